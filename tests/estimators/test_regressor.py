"""`AttentionRegressor`: shapes, lengths, searches, failures. Where learning does not matter, with one that averages."""

import copy
import doctest
import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn
from averaging import Averaging, AveragingRegressor
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import attnlearn as al
from attnlearn import Status
from attnlearn.estimators import AttentionRegressor, RecoveryError, RecoveryWarning, regressor

N, TOKENS, WIDTH, WIDTH_OUT = 16, 4, 3, 2
KEY = np.random.default_rng(0)
X = KEY.standard_normal((N, TOKENS, WIDTH))
MASK = np.arange(TOKENS) < KEY.integers(1, TOKENS + 1, N)[:, None]
MASK[0] = True
HIDDEN = al.AttentionLayer(
    np.zeros((1, WIDTH, WIDTH)), KEY.standard_normal((1, WIDTH, WIDTH_OUT)), offset=KEY.standard_normal(WIDTH_OUT)
)
CAUSAL = al.AttentionLayer(HIDDEN.qk, HIDDEN.ov, offset=HIDDEN.offset, slots=al.Slots(mask=al.Causal()))
EXACT = 1e-12  # linear regression of 16 rows or more, well conditioned


def averaging(**options):
    return AveragingRegressor(certify=False, **options)


def listed(array):
    return [part[there] for part, there in zip(array, MASK, strict=True)]


def apart(a, b):
    return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["all", "last", "mean"])
def test_predictions_have_the_shape_of_the_outputs(rows):
    y = HIDDEN(X, rows=rows)
    model = averaging(rows=rows).fit(X, y)
    assert model.predict(X).shape == y.shape
    assert apart(model.predict(X), y) < EXACT
    assert model.score(X, y) == pytest.approx(1)
    assert (model.n_features_in_, model.n_iter_, model.status_, model.certificate_) == (WIDTH, 1, Status.LEARNED, None)


def test_single_numbers_come_back_as_single_numbers():
    y = HIDDEN(X, rows="mean")[:, 0]
    model = averaging(rows="mean").fit(X, y)
    assert apart(model.predict(X), y) < EXACT and model.predict(X).shape == (N,)
    assert model.score(X, y) == model.score(X, y[:, None]) == pytest.approx(1)


def test_the_score_is_the_mean_over_columns_of_answered_rows():
    y = HIDDEN(X, MASK)
    model = averaging().fit(X, y, mask=MASK)
    wrong = np.where(MASK[:, :, None], y + KEY.standard_normal(y.shape), np.nan)
    rows, outputs = wrong[MASK], model.predict(X, MASK)[MASK]
    squares = [
        np.sum((rows[:, e] - outputs[:, e]) ** 2) / np.sum((rows[:, e] - rows[:, e].mean()) ** 2) for e in (0, 1)
    ]
    assert model.score(X, wrong, MASK) == pytest.approx(1 - np.mean(squares))


# --- different lengths -----------------------------------------------------------------------------------------------


def test_a_list_and_a_mask_say_the_same():
    y = HIDDEN(X, MASK)
    padded = np.where(MASK[:, :, None], X, np.nan)
    masked, of_list = averaging().fit(padded, y, mask=MASK), averaging().fit(listed(X), listed(y))
    assert apart(masked.layer_.ov, of_list.layer_.ov) < EXACT
    outputs = of_list.predict(listed(X))
    assert all(
        apart(part, row) < EXACT for part, row in zip(outputs, listed(masked.predict(padded, MASK)), strict=True)
    )
    assert not masked.predict(padded, MASK)[~MASK].any()
    assert masked.score(padded, y, MASK) == pytest.approx(of_list.score(listed(X), listed(y)))


def test_lists_pass_through_cross_validation():
    scores = cross_val_score(averaging(), listed(X), listed(HIDDEN(X, MASK)), cv=2)
    np.testing.assert_allclose(scores, 1)


def test_masks_pass_through_cross_validation_when_they_are_routed():
    with sklearn.config_context(enable_metadata_routing=True):
        model = averaging().set_fit_request(mask=True).set_score_request(mask=True)
        scores = cross_val_score(model, X, HIDDEN(X, MASK), cv=2, params={"mask": MASK})
    np.testing.assert_allclose(scores, 1)


# --- searches, pipelines, copies -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_grid_of_slots_by_name_and_by_value_finds_the_hidden_one():
    grid = {"slots": ["softmax", "causal softmax", al.Slots(mask=al.Window(2))], "heads": [1, 2]}
    search = GridSearchCV(averaging(on_failure="warn"), grid, cv=2)
    with pytest.warns(RecoveryWarning, match="Stalled above the noise"):
        search.fit(X, CAUSAL(X))
    assert search.best_params_["slots"] == "causal softmax"
    assert search.best_score_ == pytest.approx(1) and search.predict(X).shape == (N, TOKENS, WIDTH_OUT)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_a_candidate_that_is_not_recovered_scores_nothing():
    search = GridSearchCV(averaging(), {"slots": ["softmax", "causal softmax"]}, cv=2).fit(X, CAUSAL(X))
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [True, False]
    assert search.best_params_ == {"slots": "causal softmax"}


def test_sequences_pass_through_a_pipeline():
    double = make_pipeline(FunctionTransformer(lambda X: 2 * X), averaging())
    assert double.fit(X, HIDDEN(X)).score(X, HIDDEN(X)) == pytest.approx(1)
    assert apart(double[-1].layer_.ov, HIDDEN.ov / 2) < EXACT


def test_copies_know_what_the_original_knows():
    model = averaging(slots=al.Slots(mask=al.Causal()), rows="mean").fit(X, CAUSAL(X, rows="mean"))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "layer_")


def test_an_estimator_prints_what_was_chosen():
    assert repr(AttentionRegressor(4, slots="causal relu")) == "AttentionRegressor(heads=4, slots='causal relu')"


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_layer_that_is_not_recovered_is_an_error_and_is_kept():
    model = averaging()
    with pytest.raises(RecoveryError, match="Stalled above the noise.*Relative residual") as caught:
        model.fit(X, CAUSAL(X))
    assert caught.value.status is model.status_ is Status.STALLED
    assert model.predict(X).shape == (N, TOKENS, WIDTH_OUT)


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(RecoveryError(Status.STALLED, "Figures.")))
    assert (error.status, error.evidence) == (Status.STALLED, "Figures.")
    assert str(error) == f"{Status.STALLED.value} Figures."


def test_the_best_layer_so_far_goes_with_a_warning_on_request():
    model = averaging(on_failure="warn")
    with pytest.warns(RecoveryWarning, match="Stalled above the noise"):
        model.fit(X, CAUSAL(X))
    assert 0 < model.score(X, CAUSAL(X)) < 1


@pytest.mark.parametrize("on_failure", ["raise", "warn"])
def test_no_layer_at_all_is_an_error_either_way(on_failure):
    model = averaging(on_failure=on_failure).fit(X, HIDDEN(X))
    with pytest.raises(RecoveryError, match="Too few examples"):
        model.fit(X[:1], HIDDEN(X[:1]))
    with pytest.raises(sklearn.exceptions.NotFittedError, match="not fitted"):  # nothing is left of the earlier fit
        model.predict(X)


@pytest.mark.parametrize("on_failure", ["raise", "warn"])
def test_an_interruption_keeps_the_layer_and_stops_the_caller(on_failure, monkeypatch):
    learn = Averaging.learn

    def interrupted(self, source, key):
        learned = learn(self, source, key)
        return type(learned)(learned.layer, Status.INTERRUPTED, learned.cost, learned.phases)

    monkeypatch.setattr(Averaging, "learn", interrupted)
    model = averaging(on_failure=on_failure)
    with pytest.raises(KeyboardInterrupt, match="Interrupted"):
        model.fit(X, HIDDEN(X))
    assert apart(model.predict(X), HIDDEN(X)) < EXACT


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, data, error, wanted",
    [
        ({"on_failure": "ignore"}, {}, ValueError, "on_failure must be one of 'raise', 'warn'"),
        ({"slots": "soft"}, {}, ValueError, "unknown slots 'soft'"),
        ({"heads": 0}, {}, ValueError, "heads must be a whole number of at least 1"),
        ({"rows": "first"}, {}, ValueError, "rows must be one of"),
        ({"random_state": "seed"}, {}, ValueError, "cannot be used to seed"),
        ({}, {"X": X[0]}, ValueError, "one sequence is"),
        ({}, {"y": None}, ValueError, "requires y to be passed"),
        ({}, {"y": HIDDEN(X)[:, 0]}, ValueError, r"Y must be \(n, k, d_out\)"),
        ({}, {"sample_weight": np.ones(N)}, TypeError, "sample_weight"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_wrong_use_is_refused_at_the_door(options, data, error, wanted):
    with pytest.raises(error, match=wanted):
        averaging(**options).fit(**{"X": X, "y": HIDDEN(X)} | data)


def test_tokens_of_another_width_are_refused():
    model = averaging().fit(X, HIDDEN(X))
    for X_other in (X[:, :, :2], listed(X[:, :, :2])):
        with pytest.raises(ValueError, match="X has 2 features, but AveragingRegressor is expecting 3 features"):
            model.predict(X_other)


def test_the_package_has_nothing_by_other_names():
    with pytest.raises(AttributeError, match="module 'attnlearn' has no attribute 'estimator'"):
        al.estimator  # noqa: B018


@pytest.mark.slow
def test_scikit_learn_is_imported_on_first_use():
    code = "import sys, attnlearn as al; assert 'sklearn' not in sys.modules; al.estimators.AttentionRegressor"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- with the learner of the library ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_of_the_documentation_runs():
    assert doctest.testmod(regressor) == (0, 7)


@pytest.mark.slow
def test_a_seed_gives_what_recover_gives_with_it():
    hidden = al.random_layer(1, heads=1, width=WIDTH)
    many = np.random.default_rng(2).standard_normal((40, TOKENS, WIDTH))
    model = AttentionRegressor(heads=1, random_state=3).fit(many, hidden(many))
    result = al.recover(al.Examples(many, hidden(many)), heads=1, seed=3)
    np.testing.assert_array_equal(model.layer_.qk, result.layer.qk)
    assert model.status_ is Status.RECOVERED and model.certificate_ == result.certificate
    drawn = AttentionRegressor(heads=1, random_state=np.random.RandomState(0)).fit(many, hidden(many))
    assert al.distance(drawn.layer_, hidden).qk < 1e-6  # what counts as success
