"""The scikit-learn face: learn an attention layer with `fit`, answer with `predict`."""

from attnlearn.estimators.failures import RecoveryError, RecoveryWarning
from attnlearn.estimators.regressor import AttentionRegressor

__all__ = ["AttentionRegressor", "RecoveryError", "RecoveryWarning"]
