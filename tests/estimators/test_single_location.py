"""`SingleLocationRegressor`: shapes, searches, failures, and scikit-learn's own checks of an estimator."""

import copy
import doctest
import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from attnlearn import Status
from attnlearn.data import SingleLocationTask
from attnlearn.estimators import RecoveryError, RecoveryWarning, SingleLocationRegressor, single_location
from attnlearn.learners import SingleLocationEM
from attnlearn.learners.single_location import door

TASK = SingleLocationTask.random(0, d=12, tokens=4)
X, Y, LOCATION = TASK.sample(np.random.default_rng(1), 60)
NOISE = np.random.default_rng(2).standard_normal(X.shape)


def test_it_knows_what_the_learner_learned():
    model = SingleLocationRegressor(random_state=3).fit(X, Y)
    found = SingleLocationEM().learn(X, Y, np.random.default_rng(3))
    assert np.array_equal(model.k_, found.k) and np.array_equal(model.v_, found.v)
    assert (model.gamma_, model.epsilon_, model.n_iter_) == (found.gamma, found.epsilon, found.steps)
    assert np.array_equal(model.k_error_, found.errors.k) and np.array_equal(model.v_error_, found.errors.v)
    assert (model.gamma_error_, model.epsilon_error_) == (found.errors.gamma, found.errors.epsilon)
    assert (model.status_, model.n_features_in_) == (Status.LEARNED, 12)
    assert np.array_equal(model.predict(X), found.predict(X)) and np.array_equal(model.locate(X), found.locate(X))
    assert np.mean(model.location_ == LOCATION) > 0.9


def test_it_predicts_new_sequences_and_scores_them():
    new = TASK.sample(np.random.default_rng(4), 200)
    model = SingleLocationRegressor().fit(X, Y)
    assert model.score(new.X, new.y) > 0.85 and model.predict(new.X).shape == (200,)
    assert np.allclose(model.locate(new.X).sum(axis=1), 1) and model.locate(new.X[:, :2]).shape == (200, 2)


def test_lists_of_sequences_of_one_length_are_taken():
    model = SingleLocationRegressor().fit(list(X), Y)
    assert np.array_equal(model.v_, SingleLocationRegressor().fit(X, Y).v_)
    with pytest.raises(ValueError, match="X must hold sequences of one length"):
        model.predict([X[0], X[1, :2]])


def test_it_takes_part_in_searches_and_copies():
    assert cross_val_score(SingleLocationRegressor(), X, Y, cv=3).min() > 0.5
    search = GridSearchCV(SingleLocationRegressor(), {"max_steps": [50, 300]}, cv=2).fit(X, Y)
    model = search.best_estimator_
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.predict(X), model.predict(X))
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "k_")


def test_no_informative_token_is_an_error_and_the_model_stays_unfitted():
    model = SingleLocationRegressor()
    with pytest.raises(RecoveryError, match="No informative token.*Log-likelihood ratio") as caught:
        model.fit(NOISE, Y)
    assert caught.value.status is Status.NO_INFORMATIVE_TOKEN
    with pytest.raises(sklearn.exceptions.NotFittedError, match="not fitted"):
        model.predict(X)
    assert not hasattr(model, "status_") and not hasattr(model, "n_features_in_")


def test_an_error_leaves_the_previous_fit():
    model = SingleLocationRegressor(random_state=0).fit(X, Y)
    before, predicted = dict(vars(model)), model.predict(X)
    with pytest.raises(RecoveryError, match="No informative token"):
        model.fit(NOISE[:, :, :8], Y)  # of another width
    assert vars(model) == before and np.array_equal(model.predict(X), predicted)


@pytest.mark.parametrize(
    "tokens, labels, wanted",
    [(NOISE, Y, "No informative token"), (2 * X, Y, "Not single-location data"), (X, 0 * Y, "Labels unexplained")],
)
def test_failures_are_warnings_on_request(tokens, labels, wanted):
    model = SingleLocationRegressor(on_failure="warn")
    with pytest.warns(RecoveryWarning, match=wanted):
        model.fit(tokens, labels)
    assert wanted in model.status_.value and model.predict(X).shape == (60,)


@pytest.mark.parametrize("on_failure", ["raise", "warn"])
@pytest.mark.parametrize(
    "options, n, wanted", [({}, 8, "Too few examples.*8 labels for the 12"), ({"max_steps": 2}, 60, "Not converged")]
)
def test_doubts_are_warnings_either_way(on_failure, options, n, wanted):
    with pytest.warns(RecoveryWarning, match=wanted):
        SingleLocationRegressor(on_failure=on_failure, **options).fit(X[:n], Y[:n])


@pytest.mark.parametrize(
    "options, data, wanted",
    [
        ({"on_failure": "ignore"}, {}, "on_failure must be one of 'raise', 'warn', got 'ignore'"),
        ({"max_steps": 0}, {}, "max_steps must be a whole number of at least 1, got 0"),
        ({"tol": 2.0}, {}, "tol, a movement relative to a length, must be between 0 and 1"),
        ({"random_state": "seed"}, {}, "cannot be used to seed"),
        ({}, {"X": X[0]}, r"X must be sequences of tokens \(n, k, d\)"),
        ({}, {"X": X[:, :1]}, "X has sequences of one token"),
        ({}, {"X": X[:, :, :3]}, "X has tokens of width 3"),
        ({}, {"y": None}, "requires y to be passed, but the target y is None"),
        ({}, {"y": Y[:5]}, r"y must hold one number for each of the 60 sequences"),
        ({}, {"y": np.stack([Y, Y], axis=1)}, "y should be a 1d array"),
        ({}, {"X": np.where(X > 3, np.nan, X)}, "Input X contains NaN"),
    ],
)
def test_says_what_is_wrong(options, data, wanted):
    with pytest.raises(ValueError, match=wanted):
        SingleLocationRegressor(**options).fit(**{"X": X, "y": Y, **data})


def test_says_so_before_it_is_fitted():
    for ask in (SingleLocationRegressor().predict, SingleLocationRegressor().locate):
        with pytest.raises(sklearn.exceptions.NotFittedError, match="not fitted"):
            ask(X)


def test_the_example_of_the_docstring_holds():
    assert doctest.testmod(single_location).failed == 0


# --- scikit-learn's checks, on rows of tables made to sequences -------------------------------------------------------


class RowsAsSequences(SingleLocationRegressor):
    """A row of a table becomes a sequence: itself, shifted by one, backwards. Anything else goes on as it came."""

    def fit(self, X, y):
        return super().fit(sequences(X), y)

    def predict(self, X):
        return super().predict(sequences(X))

    def locate(self, X):
        return super().locate(sequences(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def sequences(X):
    table = np.asarray(X)
    return np.stack([table, np.roll(table, 1, axis=1), table[:, ::-1]], axis=1) if table.ndim == 2 else X


CHECKS = list(estimator_checks_generator(RowsAsSequences(on_failure="warn", max_steps=50, random_state=0)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimator, check", CHECKS, ids=lambda one: getattr(getattr(one, "func", None), "__name__", "")
)
def test_the_estimator_keeps_the_contract(estimator, check, monkeypatch):
    monkeypatch.setattr(door, "LEAST_WIDTH", 1)  # tables of the checks have one to ten columns
    check(estimator)


def test_tables_are_not_promised():
    tags = SingleLocationRegressor().__sklearn_tags__()
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array
    assert tags.target_tags.required and not tags.target_tags.multi_output
