"""scikit-learn's own checks of an estimator.

They hand over tables, and a table is no sequence: tagged as it is, the estimator gets the first check alone. So they
run on a subclass that makes a sequence of each row of a table and does nothing else; all of them with a learner
without search, some with that of the library. Where a check needs a package that is not installed, it skips itself.
"""

import numpy as np
import pytest
from averaging import AveragingRegressor
from sklearn.utils.estimator_checks import estimator_checks_generator

from attnlearn.estimators import AttentionRegressor, RecoveryError

NOT_APPLICABLE = {
    "check_fit2d_1sample": (RecoveryError, "one sequence determines no layer; the error says how many do"),
    "check_regressors_no_decision_function": (RecoveryError, "ten numbers are fewer than the unknowns of a layer"),
}


class RowsAsSequences(AttentionRegressor):
    """A row of a table becomes a sequence: itself, shifted by one, backwards. Anything else goes on as it came."""

    def fit(self, X, y):
        return super().fit(sequences(X), y)

    def predict(self, X):
        return super().predict(sequences(X))

    def score(self, X, y):
        return super().score(sequences(X), y)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


class AveragingRowsAsSequences(RowsAsSequences, AveragingRegressor):
    pass


def sequences(X):
    table = np.asarray(X)
    return np.stack([table, np.roll(table, 1, axis=1), table[:, ::-1]], axis=1) if table.ndim == 2 else X


def checked(kind):
    return kind(
        heads=1, head_dim=1, rows="mean", query_bias=False, restarts=1, certify=False, on_failure="warn", random_state=0
    )


def name(check):
    return check.func.__name__


CHECKS = [check for _, check in estimator_checks_generator(checked(RowsAsSequences))]
FITTING = ("check_estimators_pickle", "check_methods_sample_order_invariance", "check_dict_unchanged", *NOT_APPLICABLE)


def passes_or_does_not_apply(check, estimator):
    error, _ = NOT_APPLICABLE.get(name(check), (None, ""))
    if error is None:
        return check(estimator)
    with pytest.raises(error):
        check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("check", CHECKS, ids=name)
def test_the_estimator_keeps_the_contract(check):
    passes_or_does_not_apply(check, checked(AveragingRowsAsSequences))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("check", [check for check in CHECKS if name(check) in FITTING], ids=name)
def test_the_estimator_keeps_the_contract_with_the_learner_of_the_library(check):
    passes_or_does_not_apply(check, checked(RowsAsSequences))


def test_every_check_that_does_not_apply_exists():
    assert {*NOT_APPLICABLE, *FITTING} <= set(map(name, CHECKS))


def test_tables_are_not_promised():
    tags = AttentionRegressor().__sklearn_tags__()
    assert tags.input_tags.three_d_array and not tags.input_tags.two_d_array
    assert tags.target_tags.required and tags.target_tags.multi_output
