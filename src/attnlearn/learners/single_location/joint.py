"""Places, directions and noise from tokens and labels together."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.learners.single_location.mixture import Climb, Mixture, Posterior, Tokens, refit
from attnlearn.learners.single_location.value import LIGHT, Value, value

LABELS_TO_HELP = 2  # for each direction of v: with fewer, labels fit whatever places they were fitted at
LEAST_EPSILON = 1e-75  # above zero: where all labels are zero, so is all that is divided by it


class Joint(NamedTuple):
    """Where tokens and labels agree; `log_ratio`: of the tokens alone, against noise."""

    mixture: Mixture
    posterior: Posterior
    value: Value
    log_ratio: float
    steps: int
    settled: bool


class _Label(NamedTuple):
    """A label speaks for the tokens whose message it is close to."""

    y: Float[np.ndarray, " n"]
    value: Value

    def scores(self, tokens: Tokens) -> Float[np.ndarray, "n tokens"]:
        r"""$-(y - \langle X_l, v\rangle)^2 / 2\varepsilon^2$."""
        noise = max(self.value.epsilon, LEAST_EPSILON)
        return -np.square((self.y[:, None] - tokens.along(self.value.v)) / noise) / 2


def with_labels(tokens: Tokens, y: Float[np.ndarray, " n"], found: Climb, max_steps: int, tol: float) -> Joint:
    """What the labels say at the places found; with enough of them, expectation-maximisation over both."""
    n, d = len(y), tokens.flat.shape[1]
    mixture, posterior, message = found.mixture, found.posterior, _message(tokens, y, found.posterior)
    steps, settled = 0, found.settled and n < LABELS_TO_HELP * d
    while n >= LABELS_TO_HELP * d and steps < max_steps and not settled:
        posterior = Posterior.of(mixture.scores(tokens) + _Label(y, message).scores(tokens))
        new, better = refit(tokens, posterior.weights), _message(tokens, y, posterior)
        moved = np.linalg.norm(new.k - mixture.k), np.linalg.norm(better.v - message.v) / _length(better.v)
        mixture, message, steps, settled = new, better, steps + 1, max(moved) < tol
    unbiased = Mixture(mixture.k, mixture.gamma * float(np.sqrt(n * d / (n * d - d + 1))))
    return Joint(unbiased, posterior, message, Posterior.of(mixture.scores(tokens)).log_ratio, steps, bool(settled))


def _message(tokens: Tokens, y: Float[np.ndarray, " n"], posterior: Posterior) -> Value:
    """The value direction at these weights; what weighs next to nothing is left out."""
    weights = posterior.weights.ravel()
    picked = np.flatnonzero(weights > LIGHT)
    roots = np.sqrt(weights[picked])
    sequence = picked // posterior.weights.shape[1]
    return value(roots[:, None] * tokens.flat[picked], roots * y[sequence], len(y))


def _length(v: Float[np.ndarray, " d"]) -> float:
    return max(float(np.linalg.norm(v)), np.finfo(float).tiny)
