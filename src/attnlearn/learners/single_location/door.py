"""What sequences and labels may be: each check says what came, what is wanted, and the way out."""

from typing import Any

import numpy as np
from jaxtyping import Float

from attnlearn.data.example_checks import as_numbers, check_finite

LEAST_WIDTH, LEAST_TOKENS = 4, 2
WAY_OUT = "Leave these sequences out."


def as_tokens(given: Any) -> Float[np.ndarray, "n tokens d"]:
    """`given` as sequences of tokens in float64, copied only where it is something else."""
    X = np.asarray(as_numbers("X", given), np.float64)
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(
            f"X must be sequences of tokens (n, tokens, d), none of them 0, got shape {X.shape}. "
            "One sequence is X[None]."
        )
    check_finite("X", X, None, WAY_OUT)
    return X


def check_learnable(X: Float[np.ndarray, "n tokens d"]) -> None:
    """Refuses sequences without a place to find, and tokens narrower than those of a `SingleLocationTask`."""
    _, tokens, d = X.shape
    if tokens < LEAST_TOKENS:
        raise ValueError(
            "X has sequences of one token, so there is no place to find: fit y to X[:, 0] by least squares, "
            f"or give sequences of at least {LEAST_TOKENS} tokens"
        )
    if d < LEAST_WIDTH:
        raise ValueError(
            f"X has tokens of width {d}, but a single-location task has the key, the value and two directions across "
            f"them at least: give tokens of width {LEAST_WIDTH} or more"
        )


def label_scale(y: Float[np.ndarray, " n"]) -> float:
    """The root mean square of labels, whose squares may overflow or vanish; 1 where all are zero."""
    largest = float(np.abs(y).max())
    return largest * float(np.sqrt(np.mean(np.square(y / largest)))) if largest else 1.0


def as_labels(given: Any, n: int) -> Float[np.ndarray, " n"]:
    """`given` as one label a sequence, in float64."""
    y = np.asarray(as_numbers("y", given), np.float64)
    if y.shape != (n,):
        raise ValueError(f"y must hold one number for each of the {n} sequences, shape ({n},), got shape {y.shape}")
    check_finite("y", y, None, WAY_OUT)
    return y


def check_width(X: Float[np.ndarray, "n tokens d"], d: int) -> None:
    """Refuses tokens of another width than those learned from."""
    if X.shape[2] != d:
        raise ValueError(f"X has tokens of width {X.shape[2]}, learned were tokens of width {d}")
