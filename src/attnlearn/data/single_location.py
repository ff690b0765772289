r"""Single-location regression: one token of a sequence carries the label, and a direction marks its place.

$$X_J \sim \mathcal N\big(\sqrt{d/2}\,k^\star,\ \gamma^2 I_d\big), \qquad X_l \sim \mathcal N(0, I_d)\ \ (l \ne J),
  \qquad Y = \langle X_J, v^\star\rangle + \varepsilon N$$

All draws are independent and $J$ is uniform on the places. [@marion2025]
"""

import numbers
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

_DIRECTIONS = 1  # a stream of their own: samples of a key from the same seed are independent of them
UNIT = 1e-9  # the most by which directions may miss length 1 and a right angle: far above the rounding of any norm


class LocatedSequences(NamedTuple):
    """Sequences `X`, their labels `y`, and the place of the informative token in each."""

    X: Float[np.ndarray, "n tokens d"]
    y: Float[np.ndarray, " n"]
    location: Int[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class SingleLocationTask:
    r"""The law of sequences and labels.

    With $\gamma^2 = 1/2$, the default, all tokens have the same mean squared norm d.

    **Fields:**

    - `k_star`, `v_star`: $k^\star$ and $v^\star$, the key and the value direction, orthogonal and of length 1. Anything
      that NumPy reads as numbers; kept as a copy in float64.
    - `tokens`: of a sequence.
    - `gamma`: $\gamma$, the standard deviation of an entry of the informative token.
    - `epsilon`: $\varepsilon$, that of the label noise.
    """

    k_star: np.ndarray
    v_star: np.ndarray
    tokens: int = 10
    gamma: float = 0.5**0.5
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        for name in ("k_star", "v_star"):
            object.__setattr__(self, name, _vector(name, getattr(self, name)))
        if self.k_star.ndim != 1 or self.v_star.shape != self.k_star.shape:
            raise ValueError(
                "k_star and v_star must be vectors of the same width (d,), "
                f"got shapes {self.k_star.shape} and {self.v_star.shape}"
            )
        if self.d < 4:
            raise ValueError(f"the width d must be at least 4, got directions of {self.d} entries")
        _check_whole("tokens, one of them informative,", self.tokens, 2)
        _check_spreads(self.gamma, self.epsilon)
        for name in ("k_star", "v_star"):
            length = float(np.linalg.norm(getattr(self, name)))
            if not abs(length - 1) <= UNIT:
                raise ValueError(f"{name} must have length 1, got {length:.12g}: divide it by its norm")
        overlap = float(self.k_star @ self.v_star)
        if not abs(overlap) <= UNIT:
            raise ValueError(f"k_star and v_star must be orthogonal, their product is {overlap:.3g}")

    @classmethod
    def random(
        cls, seed: int, d: int = 400, tokens: int = 10, gamma: float = 0.5**0.5, epsilon: float = 0.1
    ) -> "SingleLocationTask":
        """A task whose orthonormal pair of directions is uniform on the sphere of width `d`."""
        _check_whole("the width d", d, 4)
        _check_whole("seed", seed, 0)
        key = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DIRECTIONS,)))
        k_star = _unit(key.standard_normal(d))
        g = key.standard_normal(d)
        return cls(k_star, _unit(g - (g @ k_star) * k_star), tokens, gamma, epsilon)

    @property
    def d(self) -> int:
        """The width of a token."""
        return len(self.k_star)

    @property
    def mean(self) -> Float[np.ndarray, " d"]:
        r"""$\sqrt{d/2}\,k^\star$, the mean of the informative token."""
        return np.sqrt(self.d / 2) * self.k_star

    def sample(self, key: np.random.Generator, n: int, place: int | None = None) -> LocatedSequences:
        """`n` sequences with their labels and places.

        `place`: where the informative token stands in all of them; `None`: anywhere, uniformly. The authors' code has
        it at 0, which a predictor that knows positions can exploit.
        """
        self._check_draw(key, n, place)
        X = key.standard_normal((n, self.tokens, self.d))
        location = key.integers(0, self.tokens, n) if place is None else np.full(n, place)
        rows = np.arange(n), location
        X[rows] = informative = self.mean + self.gamma * X[rows]
        return LocatedSequences(X, informative @ self.v_star + self.epsilon * key.standard_normal(n), location)

    def batches(
        self, key: np.random.Generator, n: int, size: int, place: int | None = None
    ) -> Iterator[LocatedSequences]:
        """`n` sequences, at most `size` at a time: only one batch is ever in memory."""
        self._check_draw(key, n, place)
        _check_whole("the size of a batch", size, 1)
        return (self.sample(key, min(size, n - start), place) for start in range(0, n, size))

    def _check_draw(self, key: Any, n: Any, place: Any) -> None:
        if not isinstance(key, np.random.Generator):
            raise TypeError(f"key must be a generator, got {key!r}: give np.random.default_rng(seed)")
        _check_whole("n, the number of sequences,", n, 1)
        if place is None:
            return
        _check_whole("place", place, 0)
        if place >= self.tokens:
            raise ValueError(f"place must be one of the {self.tokens} places, 0 to {self.tokens - 1}, got {place}")


def _unit(a: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    return a / np.linalg.norm(a)


def _vector(name: str, given: Any) -> np.ndarray:
    try:
        vector = np.asarray(given).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a vector of real numbers: {error}") from error
    if not np.isfinite(vector).all():
        raise ValueError(f"{name} has entries that are NaN or infinite")
    return vector


def _check_whole(name: str, number: Any, least: int) -> None:
    if not isinstance(number, numbers.Integral) or isinstance(number, bool):
        raise TypeError(f"{name} must be a whole number, got {number!r}")
    if int(number) < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")


def _check_spreads(gamma: Any, epsilon: Any) -> None:
    for name, spread in (("gamma", gamma), ("epsilon", epsilon)):
        if not isinstance(spread, numbers.Real) or isinstance(spread, bool):
            raise TypeError(f"{name}, a standard deviation, must be one real number, got {spread!r}")
    if not 0 < gamma < np.inf:
        raise ValueError(f"gamma, a standard deviation, must be positive and finite, got {gamma}")
    if not 0 <= epsilon < np.inf:
        raise ValueError(f"epsilon, a standard deviation, must be at least 0 and finite, got {epsilon}")
