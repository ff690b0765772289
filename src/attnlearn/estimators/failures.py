"""How an estimator says that the layer was not recovered."""

import warnings
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from attnlearn._status import Status

FAILURES = ("raise", "warn")


class RecoveryError(RuntimeError):
    """The layer behind the data was not recovered.

    Attributes
    ----------
    status : Status
        What stopped the fit; its value is the sentence for people.
    evidence : str
        The figures behind the status.
    """

    def __init__(self, status: Status, evidence: str = ""):
        super().__init__(status, evidence)
        self.status = status
        self.evidence = evidence

    def __str__(self) -> str:
        return sentence(self.status, self.evidence)


class RecoveryWarning(ConvergenceWarning):
    """The layer was not recovered, and the estimator goes on with the best one so far."""


def sentence(status: Status, evidence: str) -> str:
    """The status and its figures, for people."""
    return f"{status.value} {evidence}".strip()


def check_on_failure(on_failure: Any) -> None:
    """Refuses what is not one of `FAILURES`."""
    if on_failure not in FAILURES:
        raise ValueError(f"on_failure must be one of {', '.join(map(repr, FAILURES))}, got {on_failure!r}")


def speak(status: Status, evidence: str, fatal: bool, stacklevel: int = 3) -> None:
    """A `RecoveryError` where it is fatal, else a `RecoveryWarning`, by default to whoever called the method."""
    if fatal:
        raise RecoveryError(status, evidence)
    warnings.warn(sentence(status, evidence), RecoveryWarning, stacklevel=stacklevel)
