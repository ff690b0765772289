r"""Planted problems: a layer drawn by a recipe, tokens of a law, and as many examples as a ratio asks.

Entries of $\Theta_i$ are $N(0, (s/d)^2)$ and entries of $W_i$ are $N(0, 1/d)$, so that for tokens with entries of mean
square 1 logits have the standard deviation $s$ and outputs are of order one. No biases and no offset.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

import attnlearn as al

LAYER, TOKENS, ROOT, NOISE, SOLVER = 1, 2, 3, 4, 5  # streams of a seed; [seed, 0] would be the stream of the seed alone
Law = Literal["sign", "gaussian"]


@dataclass(frozen=True)
class Planted:
    r"""A family of problems; a seed picks one.

    - `d`, `heads`, `tokens`: width, number of heads, tokens in a sequence.
    - `ratio`: numbers told for every unknown; decides the number of `sequences`.
    - `logit_std`: $s$.
    - `law`: tokens with independent entries, signs $\pm 1$ or Gaussian.
    - `condition`: of the covariance of the tokens, which are mixed by a random root of it; its mean eigenvalue is 1.
    - `cosine`: between the QK circuits of two heads, $\Theta_i = \sqrt c\,\Theta + \sqrt{1-c}\,\Theta'_i$.
    - `norm_span`: factor between the largest and the smallest $\|W_i\|_F$.
    - `rank`: of all circuits; `None`: full.
    - `noise`: standard deviation on the outputs, relative to their root mean square.
    """

    d: int
    heads: int
    tokens: int
    ratio: float = 5.0
    logit_std: float = 1.0
    law: Law = "sign"
    condition: float = 1.0
    cosine: float = 0.0
    norm_span: float = 1.0
    rank: int | None = None
    noise: float = 0.0
    slots: al.Slots = al.Slots()

    @property
    def unknowns(self) -> int:
        """Free numbers of the circuits; a matrix (d, d) of rank r has r (2 d - r)."""
        rank = self.rank or self.d
        return 2 * self.heads * rank * (2 * self.d - rank)

    @property
    def sequences(self) -> int:
        """Examples, rounded up."""
        return math.ceil(self.ratio * self.unknowns / (self.tokens * self.d))

    @property
    def name(self) -> str:
        """Sizes, the logits, and every other setting that is not the default."""
        told = [f"d, m, k, n = {self.d}, {self.heads}, {self.tokens}, {self.sequences}"]
        told += [f"logit std {self.logit_std:g}"]
        for field in fields(self)[5:-1]:
            value = getattr(self, field.name)
            if value != field.default:
                named = value if isinstance(value, str) else f"{field.name.replace('_', ' ')} {value:g}"
                told.append(named)
        slots = [type(slot).__name__ for slot in (self.slots.normaliser, self.slots.mask) if slot is not None]
        return ", ".join([*told, " ".join(slots)] if self.slots != al.Slots() else told)

    def layer(self, seed: int) -> al.AttentionLayer:
        """The hidden layer."""
        key = np.random.default_rng([seed, LAYER])
        qk, ov = self._maps(key)
        if self.cosine:
            shared = key.standard_normal((self.d, self.d))
            qk = np.sqrt(self.cosine) * shared + np.sqrt(1 - self.cosine) * qk
        norms = self.norm_span ** np.linspace(-0.5, 0.5, self.heads)[:, None, None]
        return al.AttentionLayer(qk * self.logit_std / self.d, norms * ov / np.sqrt(self.d), slots=self.slots)

    def _maps(self, key: np.random.Generator) -> np.ndarray:
        """QK and OV circuits (2, m, d, d) with Gaussian entries of unit variance, or of products of that rank."""
        if self.rank is None:
            return key.standard_normal((2, self.heads, self.d, self.d))
        left, right = key.standard_normal((2, 2, self.heads, self.d, self.rank))
        return left @ right.swapaxes(-1, -2) / np.sqrt(self.rank)

    def inputs(self, seed: int, sequences: int, draw: int = 0) -> np.ndarray:
        """Sequences of tokens (n, k, d); other draws are of the same law."""
        key = np.random.default_rng([seed, TOKENS, draw])
        shape = (sequences, self.tokens, self.d)
        tokens = key.choice((-1.0, 1.0), shape) if self.law == "sign" else key.standard_normal(shape)
        return tokens if self.condition == 1 else tokens @ self._root(seed)

    def _root(self, seed: int) -> np.ndarray:
        """A symmetric root of the covariance; eigenvalues from 1 to `condition` in equal ratios, then of mean 1."""
        axes = np.linalg.qr(np.random.default_rng([seed, ROOT]).standard_normal((self.d, self.d)))[0]
        eigenvalues = self.condition ** np.linspace(0, 1, self.d)
        return axes * np.sqrt(eigenvalues / eigenvalues.mean()) @ axes.T

    def examples(self, seed: int) -> al.Examples:
        """The examples of one seed; the hidden layer is their `truth`, for judging."""
        layer, X = self.layer(seed), self.inputs(seed, self.sequences)
        Y = layer(X)
        noise = np.random.default_rng([seed, NOISE]).standard_normal(Y.shape)
        return al.Examples(X, Y + self.sigma(Y) * noise, truth=layer)

    def sigma(self, Y: np.ndarray) -> float:
        """Standard deviation of the noise on outputs `Y`."""
        return self.noise * float(np.sqrt(np.mean(Y**2)))
