"""The scikit-learn face: learn an attention layer, or a single-location task, with `fit`, answer with `predict`."""

from attnlearn.estimators.failures import RecoveryError, RecoveryWarning
from attnlearn.estimators.regressor import AttentionRegressor
from attnlearn.estimators.single_location import SingleLocationRegressor

__all__ = ["AttentionRegressor", "RecoveryError", "RecoveryWarning", "SingleLocationRegressor"]
