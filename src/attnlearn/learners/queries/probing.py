r"""How the stages ask: the black box with its precision, and the two-token question all of them share.

A sequence [x + v, x, ..., x] asks its last row, so a causal mask changes nothing. With $l$ copies of $x$

$$F_{last} = c + x^T W_\Sigma + \sum_i \sigma(s_i - \log l)\, v^T W_i, \qquad s_i = [x, 1]^T [\Theta_i; \beta_i] v .$$
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlearn.data.queries import QueryOracle

Rows = Float[np.ndarray, "n d"]
Answers = Float[np.ndarray, "n d_out"]


@dataclass(frozen=True)
class Box:
    """The black box as the stages see it.

    `scale` is the typical size of a token entry, `amplitude` (at least 1) how many times longer tokens may become
    where length lifts the answer above additive noise.
    """

    oracle: QueryOracle
    scale: float = 1.0
    amplitude: float = 1.0

    @property
    def width(self) -> int:
        return self.oracle.width

    @property
    def noise(self) -> float:
        return self.oracle.noise

    def epsilon(self, size: float) -> float:
        """Relative precision of an answer whose tokens have entries of typical `size`."""
        return self.oracle.epsilon + self.noise / size

    @property
    def exact(self) -> bool:
        """Float64 answers without noise."""
        return self.noise == 0 and self.oracle.epsilon < 1e-12

    def ask(self, tokens: Float[np.ndarray, "n k d"]) -> Float[np.ndarray, "n k d_out"]:
        return self.oracle.ask(tokens, purpose="learning")

    def rounded(self, tokens: np.ndarray) -> np.ndarray:
        """The tokens as the box receives them."""
        return tokens.astype(self.oracle.dtype).astype(np.float64)

    @property
    def calls(self) -> int:
        return self.oracle.ledger.calls


@dataclass(frozen=True)
class Affine:
    r"""What one-token sequences show: `offset` $c$ and `ov_sum` $W_\Sigma = \sum_i W_i$; `causal`: the mask."""

    offset: Float[np.ndarray, " d_out"]
    ov_sum: Float[np.ndarray, "d d_out"]
    causal: bool = False

    def of(self, x: Rows) -> Answers:
        """The answer when every token equals `x`."""
        return self.offset + x @ self.ov_sum


@dataclass(frozen=True)
class Values:
    r"""The OV circuits and what the read-out of the QK circuits needs to know.

    `ranks` of the circuits, `precision` their relative error, `logit_size` and `bias_size` the standard deviations of
    the largest head's $x^T \Theta v$ and $\beta^T v$ on tokens of entries `scale`; `figures` and `spectra` for people.
    `uncertain`: orthonormal output directions in which `ov` is known less well than `precision`.
    """

    ov: Float[np.ndarray, "m d d_out"]
    ranks: tuple[int, ...]
    precision: float
    logit_size: float
    bias_size: float
    spectra: Float[np.ndarray, "m n"]
    figures: Mapping[str, Any] = field(default_factory=dict)
    uncertain: Float[np.ndarray, "u d_out"] | None = None


def moved(box: Box, affine: Affine, x: Rows, v: Rows, copies: int = 1) -> Answers:
    r"""$\sum_i \sigma(s_i - \log l) v^T W_i$ with $l$ = `copies`: what the token $x + v$ moves in the answer to $x$."""
    tokens = np.concatenate([(x + v)[:, None], np.repeat(x[:, None], copies, axis=1)], axis=1)
    return box.ask(tokens)[:, -1] - affine.of(x)


def orthogonal_rows(key: np.random.Generator, n: int, d: int) -> Rows:
    """`n` at most `d` orthogonal rows with entries of unit variance."""
    return np.linalg.qr(key.standard_normal((d, n)))[0].T * np.sqrt(d)


def logit(p: np.ndarray) -> np.ndarray:
    r"""$\log p - \log(1 - p)$, finite at both ends."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return np.log(p) - np.log1p(-p)


def largest(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0.0))
