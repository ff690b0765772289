r"""Which token is the informative one? A mixture whose hidden variable is the place.

$$X_J \sim \mathcal N(h\,k, \gamma^2 I_d), \quad X_l \sim \mathcal N(0, I_d)\ (l \ne J), \quad h = \sqrt{d/2}, \qquad
  P(J = l \mid X) \propto e^{s_l}, \quad s_l = -\frac{|X_l - h k|^2}{2\gamma^2} + \frac{|X_l|^2}{2} - d\log\gamma$$

$e^{s_l}$ is how much likelier token l is as the informative one than as one of the others, and the mean of it over the
places is the likelihood of a sequence against that of noise alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

FIRST_GAMMA = 1.0  # of the first step, which then weighs by exp(h <X, k>)
LEAST_GAMMA = 1e-6  # below it a token is its mean, to the rounding of squared distances


class Tokens(NamedTuple):
    """The tokens of all sequences, one after the other, and their squared norms."""

    flat: Float[np.ndarray, "rows d"]
    squares: Float[np.ndarray, "n tokens"]

    @classmethod
    def of(cls, X: Float[np.ndarray, "n tokens d"]) -> "Tokens":
        """Tokens of sequences; no copy where `X` lies in one piece."""
        return cls(X.reshape(-1, X.shape[-1]), np.einsum("nld,nld->nl", X, X))

    @property
    def length(self) -> float:
        r"""$h = \sqrt{d/2}$, the length of the mean of the informative token."""
        return float(np.sqrt(self.flat.shape[1] / 2))

    def along(self, direction: Float[np.ndarray, " d"]) -> Float[np.ndarray, "n tokens"]:
        """The product of every token with a direction."""
        return (self.flat @ direction).reshape(self.squares.shape)


class Mixture(NamedTuple):
    """The key direction and the spread of the informative token."""

    k: Float[np.ndarray, " d"]
    gamma: float

    def scores(self, tokens: Tokens) -> Float[np.ndarray, "n tokens"]:
        """$s$: the logarithm of how much likelier each token is as the informative one."""
        h, d = tokens.length, len(self.k)
        apart = np.maximum(tokens.squares - 2 * h * tokens.along(self.k) + h**2, 0)
        return tokens.squares / 2 - apart / (2 * self.gamma**2) - d * np.log(self.gamma)


class Posterior(NamedTuple):
    """The probability of every place, and the log-likelihood ratio of the sequences against noise alone."""

    weights: Float[np.ndarray, "n tokens"]
    log_ratio: float

    @classmethod
    def of(cls, scores: Float[np.ndarray, "n tokens"]) -> "Posterior":
        """Of scores, with places that are equally likely beforehand."""
        total = logsumexp(scores, axis=1, keepdims=True)
        return cls(np.exp(scores - total), float(np.sum(total - np.log(scores.shape[1]))))


def refit(tokens: Tokens, weights: Float[np.ndarray, "n tokens"]) -> Mixture:
    r"""The mixture that fits best where places have these weights: $k \propto \sum wX$ and
    $\gamma^2 = \sum w|X - hk|^2 / (nd)$."""
    total = weights.ravel() @ tokens.flat
    n, d, h = len(weights), len(total), tokens.length
    spread = np.vdot(weights, tokens.squares) - 2 * h * np.linalg.norm(total) + n * h**2
    return Mixture(_direction(total), float(np.sqrt(max(spread / (n * d), LEAST_GAMMA**2))))


class Climb(NamedTuple):
    """Where expectation-maximisation came to rest; `settled`: it did, before its steps ran out."""

    mixture: Mixture
    posterior: Posterior
    steps: int
    settled: bool


def climb(tokens: Tokens, mixture: Mixture, max_steps: int, tol: float) -> Climb:
    """Expectation-maximisation over the tokens alone, until the direction moves by less than `tol`."""
    settled, step = False, 0
    while step < max_steps and not settled:
        new = refit(tokens, Posterior.of(mixture.scores(tokens)).weights)
        settled = bool(np.linalg.norm(new.k - mixture.k) < tol)
        mixture, step = new, step + 1
    return Climb(mixture, Posterior.of(mixture.scores(tokens)), step, settled)


def mean_start(tokens: Tokens) -> Mixture:
    r"""The direction of the mean of all tokens.

    Its cosine with the truth is about $1/\sqrt{1 + 2(L-1+\gamma^2)/n}$, whatever d is.
    """
    return Mixture(_direction(tokens.flat.sum(axis=0)), FIRST_GAMMA)


def token_starts(tokens: Tokens, sequences: int, key: np.random.Generator) -> Iterator[Mixture]:
    r"""The direction of every token of some sequences, chosen by chance.

    One token of each is the informative one, whose cosine with the truth is about $1/\sqrt{1+2\gamma^2}$, however few
    the sequences are.
    """
    length = tokens.squares.shape[1]
    for sequence in key.permutation(len(tokens.squares))[:sequences]:
        for token in tokens.flat[sequence * length : (sequence + 1) * length]:
            yield Mixture(_direction(token), FIRST_GAMMA)


def _direction(a: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """`a` at length 1; of zero, the diagonal."""
    length = np.linalg.norm(a)
    return a / length if length else np.full(len(a), 1 / np.sqrt(len(a)))
