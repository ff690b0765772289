r"""Planted layers whose heads nearly cancel: each head is large, and what they hide together is small.

$$F(X) = \underbrace{F_0(X)}_{\text{one head}} + \underbrace{\textstyle\sum_i c_i\,g_i(X)}_{\text{hidden}},\qquad
  g_i(X) = \mathrm{softmax}(X \Theta_i X^\top)\, X W, \qquad \textstyle\sum_i |c_i| = 1$$

`CancellingHeads` takes differences: equally spaced multiples of one attention matrix with binomial weights of
alternating sign, so that every term of lower order than m - 1 in the scores is gone. `ParityHeads` solves for the
weights: on sequences of two ±1 tokens the hidden part is a parity of 2m - 3 entries, so every statistic of lower
degree is gone. What follows from that stands in `theory/hardness.py` and in `docs/hardness.md`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.layers.attention import AttentionLayer

SOLVED = 1e-8  # error of the parity, relative, up to which the equations for its weights count as solved


@dataclass(frozen=True)
class CancellingHeads:
    r"""Heads whose weighted sum is a finite difference of order n = m - 1 in the scale of one attention matrix.

    $$\Theta_i = t_i\,\Theta + \gamma\,G_i, \qquad W_i = c_i W + [i = 0]\; b\, C, \qquad
      t_i = t_0 + i h, \qquad c_i = (-1)^{n-i} \tbinom{n}{i} / 2^n, \qquad i = 0, \dots, n$$

    with $\|\Theta\|_F = \|G_i\|_F = 1$ and $W$, $C$ of Gaussian entries with variance 1/d.

    **Fields:**

    - `heads`: m, at least 2.
    - `width`: d.
    - `norm`: R, the largest scale $t_n$; so $h = (R - t_0)/n$.
    - `seed`: of everything drawn.
    - `lowest`: $t_0$. With 0 the first head averages, and the common part says nothing about $\Theta$.
    - `balance`: b, the strength of the common part. Since $\sum_i c_i = 0$, the sum of all OV circuits is $b\,C$: of
        full row rank, almost surely, if b > 0 and `width_out` is at least `width`.
    - `generic`: $\gamma$. With 0 all attention matrices lie on one line; with more they are linearly independent, and
        low orders come back with a size of up to `theory.generic_size`.
    - `width_out`: of an output; `None`: that of a token.

    **Guarantee.** For `generic` 0, on every sequence: as a power series in the scores the hidden part has no term of
    order below m - 1, and no row of it is longer than `theory.hidden_size`. Certain, in exact arithmetic; proof:
    `docs/hardness.md`. The outputs depend on W through the hidden part only; on $\Theta$ too, where `lowest` is 0.
    """

    heads: int
    width: int
    norm: float
    seed: int
    lowest: float = 0.0
    balance: float = 1.0
    generic: float = 0.0
    width_out: int | None = None

    def __post_init__(self) -> None:
        _check_sizes(self.heads, self.width, self.width_out, self.seed)
        if not 0 <= self.lowest < self.norm < np.inf:
            raise ValueError(f"wanted 0 <= lowest < norm, both finite, got lowest={self.lowest}, norm={self.norm}")
        _check_strength("balance", self.balance)
        _check_strength("generic", self.generic)

    @property
    def scales(self) -> Float[np.ndarray, " heads"]:
        """$t_i$."""
        return np.linspace(self.lowest, self.norm, self.heads)

    @property
    def step(self) -> float:
        """h, the difference of neighbouring scales."""
        return (self.norm - self.lowest) / (self.heads - 1)

    @property
    def weights(self) -> Float[np.ndarray, " heads"]:
        """$c_i$: multiplied by $2^{m-1}$ they are whole numbers, so no rounding disturbs the cancellation."""
        n = self.heads - 1
        return np.array([(-1) ** (n - i) * math.comb(n, i) / 2**n for i in range(self.heads)])

    def layer(self) -> AttentionLayer:
        """All heads."""
        drawn = self._drawn()
        ov = self.weights[:, None, None] * drawn.ov
        ov[0] += self.balance * drawn.common
        return AttentionLayer(self._qk(drawn), ov)

    def common(self) -> AttentionLayer:
        """The first head with the common part as its OV circuit; the hidden part is `layer()(X) - common()(X)`."""
        drawn = self._drawn()
        return AttentionLayer(self._qk(drawn)[:1], self.balance * drawn.common[None])

    def ingredients(self) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d d_out"]]:
        r"""$\Theta$, of norm 1, and $W$: what the bound of the hidden part is computed from."""
        drawn = self._drawn()
        return drawn.qk, drawn.ov

    def _qk(self, drawn: "_Drawn") -> Float[np.ndarray, "heads d d"]:
        return self.scales[:, None, None] * drawn.qk + self.generic * drawn.generic

    def _drawn(self) -> "_Drawn":
        key, d, d_out = np.random.default_rng(self.seed), self.width, self.width_out or self.width
        qk = key.normal(size=(d, d))
        ov, common = key.normal(size=(2, d, d_out)) / np.sqrt(d)
        generic = key.normal(size=(self.heads, d, d))
        generic /= np.linalg.norm(generic, axis=(1, 2), keepdims=True)
        return _Drawn(qk / np.linalg.norm(qk), ov, common, generic)


class _Drawn(NamedTuple):
    qk: Float[np.ndarray, "d d"]
    ov: Float[np.ndarray, "d d_out"]
    common: Float[np.ndarray, "d d_out"]
    generic: Float[np.ndarray, "heads d d"]


@dataclass(frozen=True)
class ParityHeads:
    r"""Heads that hide a parity of r = 2m - 3 entries of the asking token, on sequences of two ±1 tokens.

    $$\Theta_0 = 0, \quad \Theta_i = t_i\, 1_A e_l^\top, \qquad
      W_0 = b\,C - \textstyle\sum_{i \ge 1} c_i\, e_l w^\top, \quad W_i = c_i\, e_l w^\top, \qquad i = 1, \dots, m - 1$$

    with |A| = r, l not in A, |w| = 1, and c so that $\sum_i c_i \tanh(t_i u) = \beta\,(-1)^{(r-u)/2}$ for
    u = 1, 3, ..., r, $\sum_{i\ge1} |c_i| = 1$.

    **Fields:**

    - `heads`: m, at least 2.
    - `width`: d, at least 2m - 2.
    - `norm`: R, the largest $\|\Theta_i\|_F$; $t_i \sqrt r$ lies between R / r and R, in equal ratios.
    - `seed`: of A, l, w and C.
    - `balance`: b, the strength of the common part; the sum of all OV circuits is $b\,C$.
    - `width_out`: of an output; `None`: that of a token.

    **Guarantee.** On sequences $(x_1, x_2)$ of ±1 tokens row a of the layer is, exactly,

    $$b\,C^\top \tfrac{x_1 + x_2}{2} + \beta\,[x_{1l} \ne x_{2l}] \prod_{j \in A} x_{aj}\; w .$$

    Proof: `docs/hardness.md`. Nothing is said about more than two tokens, or about other tokens.

    **Raises:** `ValueError` where `norm` is so large that tanh is ±1 and the equations for c cannot be solved.
    """

    heads: int
    width: int
    norm: float
    seed: int
    balance: float = 1.0
    width_out: int | None = None

    def __post_init__(self) -> None:
        _check_sizes(self.heads, self.width, self.width_out, self.seed)
        if self.width < self.order + 1:
            raise ValueError(
                f"{self.heads} heads hide a parity of {self.order} entries: the width must be at least "
                f"{self.order + 1}, got {self.width}"
            )
        if not 0 < self.norm < np.inf:
            raise ValueError(f"norm must be positive and finite, got {self.norm}")
        _check_strength("balance", self.balance)
        self._solved()

    @property
    def order(self) -> int:
        """r, the number of entries in the parity."""
        return 2 * self.heads - 3

    @property
    def bits(self) -> tuple[int, ...]:
        """A, in rising order."""
        return tuple(sorted(map(int, self._places()[1 : self.order + 1])))

    @property
    def switch(self) -> int:
        """l, the entry in which the two tokens must differ; no entry of the parity."""
        return int(self._places()[0])

    @property
    def size(self) -> float:
        r"""$\beta$, the length of a row of the hidden part where it is not 0."""
        return self._solved()[1]

    @property
    def direction(self) -> Float[np.ndarray, " d_out"]:
        """w."""
        direction = np.random.default_rng([self.seed, 1]).normal(size=self.width_out or self.width)
        return direction / np.linalg.norm(direction)

    def layer(self) -> AttentionLayer:
        """All heads."""
        c, _ = self._solved()
        weights = np.concatenate([[-c.sum()], c])
        score, value = np.zeros((2, self.width))
        score[list(self.bits)] = value[self.switch] = 1.0
        scales = np.concatenate([[0.0], self._scales()])
        ov = weights[:, None, None] * np.outer(value, self.direction)
        ov[0] += self.common().ov[0]
        return AttentionLayer(scales[:, None, None] * np.outer(score, value), ov)

    def common(self) -> AttentionLayer:
        """The head that averages, with the common part as its OV circuit."""
        size = self.width, self.width_out or self.width
        drawn = np.random.default_rng([self.seed, 2]).normal(size=size) / np.sqrt(self.width)
        return AttentionLayer(np.zeros((1, self.width, self.width)), self.balance * drawn[None])

    def _places(self) -> np.ndarray:
        return np.random.default_rng(self.seed).permutation(self.width)

    def _scales(self) -> Float[np.ndarray, " others"]:
        return np.geomspace(1 / self.order, 1, self.heads - 1) * self.norm / np.sqrt(self.order)

    def _solved(self) -> tuple[Float[np.ndarray, " others"], float]:
        r"""The weights c and $\beta$."""
        u = np.arange(1, self.order + 1, 2)
        parity, functions = (-1.0) ** ((self.order - u) // 2), np.tanh(np.outer(u, self._scales()))
        c = np.linalg.lstsq(functions, parity)[0]
        if not np.abs(functions @ c - parity).max() < SOLVED:
            raise ValueError(
                f"norm {self.norm} saturates the {self.heads} heads: the weights of a parity cannot be solved for. "
                "Take a smaller norm or fewer heads."
            )
        return c / np.abs(c).sum(), 1 / float(np.abs(c).sum())


def _check_sizes(heads: int, width: int, width_out: int | None, seed: int) -> None:
    if heads < 2:
        raise ValueError(f"heads cancel from two on, got heads={heads}")
    if min(width, width if width_out is None else width_out) < 1:
        raise ValueError(f"width and width_out must be at least 1, got {width=}, {width_out=}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def _check_strength(name: str, strength: float) -> None:
    if not 0 <= strength < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {strength}")
