"""Places, directions and noise from tokens and labels together."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.learners.single_location.mixture import Climb, Mixture, Posterior, Tokens, refit
from attnlearn.learners.single_location.value import LIGHT, Value, value

LABELS_TO_HELP = 2  # for each direction of v: with fewer, labels fit whatever places they were fitted at


class Joint(NamedTuple):
    """Where tokens and labels agree; `log_ratio`: of the tokens alone, against noise.

    `climbed`: steps over the tokens alone; `steps`: with the labels.
    """

    mixture: Mixture
    posterior: Posterior
    value: Value
    log_ratio: float
    climbed: int
    steps: int
    settled: bool


class _Label(NamedTuple):
    """A label speaks for the tokens whose message it is close to."""

    y: Float[np.ndarray, " n"]
    value: Value

    def scores(self, tokens: Tokens) -> Float[np.ndarray, "n tokens"]:
        r"""$-(y - \langle X_l, v\rangle)^2 / 2\varepsilon^2$."""
        apart = self.y[:, None] - tokens.along(self.value.v)  # zero where epsilon is: all labels are, and so is v
        return -np.square(apart / (self.value.epsilon or 1.0)) / 2


def with_labels(tokens: Tokens, y: Float[np.ndarray, " n"], found: Climb, max_steps: int, tol: float) -> Joint:
    """What the labels say at the places found; with enough of them, expectation-maximisation over both."""
    n, d = len(y), tokens.flat.shape[1]
    mixture, posterior, message = found.mixture, found.posterior, _message(tokens, y, found.posterior)
    steps, settled = 0, found.settled and n < LABELS_TO_HELP * d
    while n >= LABELS_TO_HELP * d and steps < max_steps and not settled:
        posterior = Posterior.of(mixture.scores(tokens) + _Label(y, message).scores(tokens))
        new, better = refit(tokens, posterior.weights), _message(tokens, y, posterior)
        moved = (
            np.linalg.norm(new.k - mixture.k),
            np.linalg.norm(better.v - message.v) / (np.linalg.norm(better.v) or 1.0),
        )
        mixture, message, steps, settled = new, better, steps + 1, max(moved) < tol
    unbiased = Mixture(mixture.k, mixture.gamma * float(np.sqrt(n * d / (n * d - d + 1))))
    log_ratio = Posterior.of(mixture.scores(tokens)).log_ratio
    return Joint(unbiased, posterior, message, log_ratio, found.steps, steps, bool(settled))


def _message(tokens: Tokens, y: Float[np.ndarray, " n"], posterior: Posterior) -> Value:
    """The value direction at these weights; what weighs next to nothing is left out."""
    weights = posterior.weights.ravel()
    picked = np.flatnonzero(weights > LIGHT)
    roots = np.sqrt(weights[picked])
    sequence = picked // posterior.weights.shape[1]
    return value(roots[:, None] * tokens.flat[picked], roots * y[sequence], len(y))
