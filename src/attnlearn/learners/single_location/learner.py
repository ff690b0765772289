r"""`SingleLocationEM`: the informative token and its message, from samples.

1. Expectation-maximisation over the tokens alone finds the place in every sequence, the key direction k and $\gamma$.
   It starts at the mean of all tokens; where sequences are few and the places no better than chance, at single tokens.
2. Ridge regression of the labels on the tokens found, averaged over ridges by the evidence of the labels.
3. Where there are two labels or more for each direction of v, the labels help to find the places, until nothing moves.
"""

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from attnlearn._progress import progress
from attnlearn._status import Status
from attnlearn.learners._blas import one_blas_thread
from attnlearn.learners.single_location.door import as_labels, as_tokens, check_learnable, check_width, label_scale
from attnlearn.learners.single_location.joint import with_labels
from attnlearn.learners.single_location.mixture import (
    Climb,
    Mixture,
    Posterior,
    Tokens,
    climb,
    mean_start,
    token_starts,
)
from attnlearn.learners.single_location.value import Value
from attnlearn.learners.single_location.verdict import better_than_chance, verdict
from attnlearn.records import Cost

MEAN_IS_ENOUGH = 10  # sequences for each token of one: from there on the mean's cosine with k is above .9
FEW_STEPS = 5  # from a single token, before the next is tried


class Errors(NamedTuple):
    r"""Standard errors: of the entries of k and v, of $\gamma$ and of $\varepsilon$, all as if the places were known.

    $$\sigma(k_j)^2 = \frac{\gamma^2(1-k_j^2)}{n h^2}, \quad
      \sigma(v_j)^2 = \varepsilon^2\big[(A + \tau I)^{-1}\big]_{jj}, \quad
      \frac{\sigma(\gamma)}\gamma = \frac1{\sqrt{2nd}}, \quad
      \frac{\sigma(\varepsilon)}\varepsilon \approx \frac1{\sqrt{2(n - \mathrm{dof})}}$$

    with $A = \sum wXX^\top$. Those of v and $\varepsilon$ are posterior ones and count the doubt about the ridge
    $\tau$. At one ridge that of $\varepsilon$ is $\varepsilon/\sqrt{2n}$; with the doubt it is above the formula by
    10 % at n = 1.5 d, 3 % at 2 d and .3 % at 5 d: z-scores have mean square .98 to 1.01 (200 to 300 draws, d = 40).
    Below d labels they are mostly what is known beforehand.
    """

    k: Float[np.ndarray, " d"]
    v: Float[np.ndarray, " d"]
    gamma: float
    epsilon: float


@dataclass(frozen=True, eq=False)
class LocatedToken:
    """What was learned of a single-location task; numbers are the best so far where `status` is not `LEARNED`.

    **Fields:**

    - `k`, `v`: the key direction, of length 1, and the value direction, of the length that the labels give it.
    - `gamma`, `epsilon`: spread of the informative token and of the label noise.
    - `errors`: standard errors of these four.
    - `weights`: the probability of every place, in every sequence learned from.
    - `log_ratio`: log-likelihood ratio of the tokens against sequences of noise alone.
    - `steps`: of expectation-maximisation, over all starts.
    - `dof`: how many directions of v the labels determine.
    """

    k: Float[np.ndarray, " d"]
    v: Float[np.ndarray, " d"]
    gamma: float
    epsilon: float
    errors: Errors
    weights: Float[np.ndarray, "n tokens"]
    log_ratio: float
    dof: float
    steps: int
    status: Status
    evidence: str
    cost: Cost

    @property
    def location(self) -> Int[np.ndarray, " n"]:
        """The likeliest place in every sequence learned from."""
        return self.weights.argmax(axis=1)

    def locate(self, X: Any) -> Float[np.ndarray, "n tokens"]:
        """The probability of every place in new sequences, which may have another number of tokens."""
        return self._posterior(self._tokens(X)).weights

    def predict(self, X: Any) -> Float[np.ndarray, " n"]:
        r"""$\sum_l P(J = l \mid X)\,\langle X_l, v\rangle$, the mean of the label given the sequence."""
        tokens = self._tokens(X)
        return np.sum(self._posterior(tokens).weights * tokens.along(self.v), axis=1)

    def _posterior(self, tokens: Tokens) -> Posterior:
        return Posterior.of(Mixture(self.k, self.gamma).scores(tokens))

    def _tokens(self, X: Any) -> Tokens:
        X = as_tokens(X)
        check_width(X, len(self.k))
        return Tokens.of(X)


class SingleLocationEM(eqx.Module):
    r"""Learns a single-location task from sequences and labels, without a step size or a slope to choose.

    **Fields:**

    - `max_steps`: of expectation-maximisation, from one start, and again with the labels.
    - `tol`: the movement of k (and of v, relative to its length) at which it stops.
    - `sequences`: the most whose tokens are tried as starts.

    **Assumes** that ordinary tokens are standard normal and that the mean of the informative one has the length
    $\sqrt{d/2}$; k, v, $\gamma$, $\varepsilon$ and all places are unknown. Only observed: where every place is found,
    the excess risk is that of least squares that knows the places, $\varepsilon^2 d/(n-d-1)$ on average.

    **Cost:** n labels; a step over the tokens takes 4nLd operations, one with the labels nd² + 10d³ more.
    """

    max_steps: int = 300
    tol: float = 1e-8
    sequences: int = 2

    def __check_init__(self) -> None:
        for name in ("max_steps", "sequences"):
            number = getattr(self, name)
            if not isinstance(number, int | np.integer) or number < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
        if not 0 < self.tol < 1:
            raise ValueError(f"tol, a movement relative to a length, must be between 0 and 1, got {self.tol}")

    def learn(self, X: Any, y: Any, key: np.random.Generator) -> LocatedToken:
        """What `X` (n, tokens, d) and `y` (n,) tell; `key` chooses the tokens that are tried as starts.

        **Raises:** `ValueError`, `TypeError` for what is not that, or not finite, and for tokens < 2 or d < 4.
        """
        start = time.perf_counter()
        X = as_tokens(X)
        check_learnable(X)
        y = as_labels(y, len(X))
        tokens, scale = Tokens.of(X), label_scale(y)
        with one_blas_thread():
            found = with_labels(tokens, y / scale, self._climb(tokens, key), self.max_steps, self.tol)
        message = found.value.times(scale)
        status, evidence = verdict(tokens, y, found)
        return LocatedToken(
            k=found.mixture.k,
            v=message.v,
            gamma=found.mixture.gamma,
            epsilon=message.epsilon,
            errors=_errors(found.mixture, message, len(X)),
            weights=found.posterior.weights,
            log_ratio=found.log_ratio,
            dof=message.dof,
            steps=found.climbed + found.steps,
            status=status,
            evidence=evidence,
            cost=Cost(len(X), tokens.squares.size, len(X), time.perf_counter() - start),
        )

    def _climb(self, tokens: Tokens, key: np.random.Generator) -> Climb:
        """From the mean of all tokens; where that finds nothing in few sequences, from the first token that does."""
        best, (n, length) = climb(tokens, mean_start(tokens), self.max_steps, self.tol), tokens.squares.shape
        d, steps = len(best.mixture.k), best.steps
        if n >= MEAN_IS_ENOUGH * length or better_than_chance(best.posterior.log_ratio, d):
            return best
        for number, start in enumerate(token_starts(tokens, self.sequences, key)):
            progress("starts", number, self.sequences * length)
            tried = climb(tokens, start, FEW_STEPS, self.tol)
            best, steps = max(best, tried, key=lambda one: one.posterior.log_ratio), steps + tried.steps
            if better_than_chance(best.posterior.log_ratio, d):
                break
        last = climb(tokens, best.mixture, self.max_steps, self.tol)
        return last._replace(steps=steps + last.steps)


def _errors(mixture: Mixture, message: Value, n: int) -> Errors:
    k, gamma = mixture
    h = np.sqrt(len(k) / 2)
    return Errors(
        k=gamma / (h * np.sqrt(n)) * np.sqrt(np.clip(1 - k**2, 0, None)),
        v=message.error,
        gamma=gamma / float(np.sqrt(2 * n * len(k))),
        epsilon=message.epsilon_error,
    )
