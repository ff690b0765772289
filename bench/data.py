"""Problems: black boxes over layers that were drawn, spoilt on purpose, or really trained."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import attnlearn as al

BIAS = 0.3  # standard deviation of every entry of a bias


@dataclass(frozen=True)
class Shape:
    """Width, heads and head dimension of a layer."""

    d: int
    heads: int
    head_dim: int

    def __str__(self) -> str:
        return f"{self.d}, {self.heads}, {self.head_dim}"


TINY = Shape(16, 2, 4)  # of the small twins: one shape, so that they compile once


def drawn(shape: Shape, seed: int) -> al.AttentionLayer:
    """A layer with ordinary Gaussian weights and all biases: logits and outputs of order one."""
    d, m, r = shape.d, shape.heads, shape.head_dim
    normal = np.random.default_rng(seed).standard_normal
    W_Q, b_Q = normal((d, m * r)) / np.sqrt(d), BIAS * normal(m * r)
    W_K, b_K = normal((d, m * r)) / np.sqrt(d), BIAS * normal(m * r)
    W_V, b_V = normal((d, m * r)) / np.sqrt(d), BIAS * normal(m * r)
    W_O, b_O = normal((m * r, d)) / np.sqrt(m * r), BIAS * normal(d)
    W_Q, W_K, W_V = (W.reshape(d, m, r).swapaxes(0, 1) for W in (W_Q, W_K, W_V))
    b_Q, b_K, b_V = (b.reshape(m, r) for b in (b_Q, b_K, b_V))
    return al.AttentionLayer.from_qkvo(W_Q, W_K, W_V, W_O.reshape(m, r, d), b_Q, b_K, b_V, b_O)


def noisy(layer: al.AttentionLayer, noise: float, seed: int) -> al.QueryOracle:
    """A box whose every answer carries Gaussian noise of standard deviation `noise`, which it declares."""
    exact, key = al.oracles.from_layer(layer), np.random.default_rng([seed, 2])

    def answer(X: np.ndarray) -> np.ndarray:
        outputs = exact.ask(X)
        return outputs + noise * key.standard_normal(outputs.shape)

    oracle = al.QueryOracle(answer, layer.width, noise=noise)
    oracle.truth = layer
    return oracle


@dataclass(frozen=True)
class Circuits:
    """Arrays of a layer, to be spoilt in place."""

    qk: np.ndarray
    ov: np.ndarray
    query_bias: np.ndarray

    def copy_scores(self, one: int, other: int, sign: float = 1.0) -> None:
        self.qk[other], self.query_bias[other] = sign * self.qk[one], sign * self.query_bias[one]


Spoil = Callable[[Circuits, np.random.Generator, int, int], None]  # circuits, key, and two different heads


def equal(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Two heads with the same scores, which are one head."""
    circuits.copy_scores(one, other)


def zero(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """A head that contributes nothing."""
    circuits.ov[one] = 0


def uniform(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """A head that attends to all tokens alike."""
    circuits.qk[one], circuits.query_bias[one] = 0, 0


def query_independent(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """A head whose attention does not depend on the token that asks."""
    circuits.qk[one] = 0


def two_query_independent(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Two such heads."""
    circuits.qk[[one, other]] = 0


def opposite(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Scores of opposite sign: mirror images of each other for questions of two tokens."""
    circuits.copy_scores(one, other, -1.0)


def even_pair(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Mirror images that contribute alike: two tokens show nothing but a uniform head."""
    circuits.copy_scores(one, other, -1.0)
    circuits.ov[other] = circuits.ov[one]


def same_ov(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Two heads with one OV circuit."""
    circuits.ov[other] = circuits.ov[one]


def opposite_ov(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Two heads whose OV circuits cancel."""
    circuits.ov[other] = -circuits.ov[one]


def close(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Scores apart by a thousandth."""
    apart(circuits, key, one, other, 1e-3)


def closer_or_wider(circuits: Circuits, key: np.random.Generator, one: int, other: int) -> None:
    """Scores apart by something between a millionth and a tenth."""
    apart(circuits, key, one, other, 10 ** key.uniform(-6, -1))


def apart(circuits: Circuits, key: np.random.Generator, one: int, other: int, distance: float) -> None:
    """Scores of the other head at a relative distance from those of the first."""
    circuits.copy_scores(one, other)
    for array in (circuits.qk, circuits.query_bias):
        change = key.standard_normal(array[one].shape)
        array[other] += distance * np.linalg.norm(array[one]) / np.linalg.norm(change) * change


KINDS: dict[str, Spoil] = {
    spoil.__name__.replace("_", " "): spoil
    for spoil in (
        equal,
        zero,
        uniform,
        query_independent,
        two_query_independent,
        opposite,
        even_pair,
        same_ov,
        opposite_ov,
        close,
    )
}
SHARED_OV = {even_pair, same_ov, opposite_ov}  # the values of two heads span no more than those of one
MIXTURES: dict[str, tuple[Spoil, ...]] = {
    "uniform and opposite": (uniform, opposite),
    "query independent and equal": (query_independent, equal),
    "opposite and same ov": (opposite, same_ov),
    "uniform and query independent": (uniform, query_independent),
}


def spoilt(shape: Shape, spoils: tuple[Spoil, ...], seed: int) -> al.AttentionLayer:
    """A drawn layer, spoilt in turn: each kind on the next two heads, around the circle of heads."""
    layer, key = drawn(shape, 100 + seed), np.random.default_rng([seed, 3])
    circuits = Circuits(layer.qk.copy(), layer.ov.copy(), layer.query_bias.copy())
    for n, spoil in enumerate(spoils):
        spoil(circuits, key, 2 * n % shape.heads, (2 * n + 1) % shape.heads)
    return al.AttentionLayer(circuits.qk, circuits.ov, circuits.query_bias, layer.offset)
