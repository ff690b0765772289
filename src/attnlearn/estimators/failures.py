"""How an estimator says that the layer was not recovered."""

from sklearn.exceptions import ConvergenceWarning

from attnlearn._status import Status


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
