r"""Rows (one asking token with its example and its output), and what heads with given attention matrices show them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Rows(NamedTuple):
    """Asking tokens, the examples that they stand in, their outputs."""

    query: Float[np.ndarray, "R d"]
    X: Float[np.ndarray, "R k d"]
    Y: Float[np.ndarray, "R o"]

    @classmethod
    def of(cls, X: Float[np.ndarray, "n k d"], Y: Float[np.ndarray, "n k o"], index: np.ndarray) -> "Rows":
        """The rows that `index` names in the list of all n k of them."""
        example, row = np.divmod(index, X.shape[1])
        return cls(X[example, row], X[example], Y[example, row])

    def part(self, where: slice) -> "Rows":
        """Some of them."""
        return Rows(*(field[where] for field in self))

    @property
    def square(self) -> float:
        """Sum of the squared outputs."""
        return float(np.square(self.Y).sum())


def weights(rows: Rows, theta: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "R k"]:
    """What one head gives to each token of the example."""
    logits = np.einsum("rq,rkq->rk", rows.query @ theta, rows.X)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def shown(rows: Rows, theta: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "R d"]:
    """$q(a)=X^\\top p(a,\\cdot)$, the token that one head shows."""
    return np.einsum("rk,rkd->rd", weights(rows, theta), rows.X)


def features(rows: Rows, thetas: Float[np.ndarray, "m d d"]) -> Float[np.ndarray, "R md"]:
    """What all heads show, side by side."""
    return np.concatenate([shown(rows, theta) for theta in thetas], axis=1)


def regression(phi: Float[np.ndarray, "R md"], Y: Float[np.ndarray, "R o"]) -> Float[np.ndarray, "md o"]:
    """OV circuits of the heads, stacked, by least squares without a ridge."""
    return np.linalg.lstsq(phi, Y, rcond=1e-10)[0]


def relative_error(rows: Rows, thetas: Float[np.ndarray, "m d d"], W: Float[np.ndarray, "md o"]) -> float:
    """Validation: Frobenius error of the predictions, relative to the outputs."""
    return float(np.linalg.norm(rows.Y - features(rows, thetas) @ W) / np.linalg.norm(rows.Y))
