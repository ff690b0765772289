r"""Token distributions, the examples that a layer makes of them, and the planted problems of the studies.

    cube      entries +1 and -1, each with probability 1/2
    gaussian  entries standard normal

All entries are independent, with mean 0 and variance 1. A problem is a record of numbers; the same record is the same
layer and the same examples everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer

Tokens = Callable[[np.random.Generator, int, int, int], Float[np.ndarray, "n k d"]]

TOKEN_STREAM, NOISE_STREAM = 1000, 5  # seeds of the tokens (plus that of the layer) and of the label noise


def cube(key: np.random.Generator, n: int, k: int, d: int) -> Float[np.ndarray, "n k d"]:
    """`n` sequences of `k` tokens that are uniform on the cube with 2^d corners."""
    _check_sizes(n, k, d)
    return 2.0 * key.integers(0, 2, size=(n, k, d)) - 1.0


def gaussian(key: np.random.Generator, n: int, k: int, d: int) -> Float[np.ndarray, "n k d"]:
    """`n` sequences of `k` tokens with independent standard normal entries."""
    _check_sizes(n, k, d)
    return key.standard_normal((n, k, d))


def cube_examples(layer: AttentionLayer, n: int, tokens: int, key: np.random.Generator) -> Examples:
    """`n` sequences of uniform ±1 tokens with the outputs of `layer`, which is kept as the truth."""
    return labelled(layer, cube(key, n, tokens, layer.width))


def gaussian_examples(layer: AttentionLayer, n: int, tokens: int, key: np.random.Generator) -> Examples:
    """`n` sequences of standard normal tokens with the outputs of `layer`, which is kept as the truth."""
    return labelled(layer, gaussian(key, n, tokens, layer.width))


def labelled(
    layer: AttentionLayer,
    X: Float[np.ndarray, "n k d"],
    noise: float = 0.0,
    key: np.random.Generator | None = None,
) -> Examples:
    r"""The examples $(X, F(X) + \eta\, s\, \varepsilon)$, with `layer` as their truth.

    - `noise`: $\eta$, relative to the standard deviation $s$ of all numbers in $F(X)$.
    - `key`: of $\varepsilon$, independent standard normal numbers; needed where there is noise.

    The layer is evaluated a chunk at a time: beside X and Y only one chunk is in memory.
    """
    _check_noise(noise)
    if noise and key is None:
        raise ValueError("noise is drawn by chance: give a key (a NumPy generator) with it")
    Y = np.asarray(layer(X))
    if noise and key is not None:
        Y = Y + noise * Y.std() * key.normal(size=Y.shape)
    return Examples(X, Y, truth=layer)


@dataclass(frozen=True)
class Planted:
    r"""A planted problem: a layer from a seed, and examples of it from two other streams.

    $$\Theta_i = R\,G_i/\|G_i\|_F, \qquad W_i = H_i/\sqrt d, \qquad G_i, H_i \text{ standard normal}$$

    **Fields:**

    - `heads`, `width`, `tokens`: m, d and k.
    - `norm`: R, the Frobenius norm of every $\Theta_i$: the standard deviation of a score of two independent tokens.
    - `examples`: N, the number of sequences.
    - `seed`: of the layer. The tokens have the seed 1000 + `seed`, the noise the seed 5.
    - `width_out`: of an output; `None`: that of a token.
    - `noise`: of the labels, relative to the standard deviation of all numbers in the outputs.
    - `correlation`: $\rho$; the other heads are $\rho\Theta_1+\sqrt{1-\rho^2}\,\Theta_i$, scaled to R again.
    """

    heads: int
    width: int
    tokens: int
    norm: float
    examples: int
    seed: int
    width_out: int | None = None
    noise: float = 0.0
    correlation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("heads", "width", "tokens", "examples", "width_out"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not 0 < self.norm < np.inf:
            raise ValueError(f"norm must be positive and finite, got {self.norm}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation must be at least 0 and below 1, got {self.correlation}")
        _check_noise(self.noise)

    def layer(self) -> AttentionLayer:
        """The planted layer."""
        key, d = np.random.default_rng(self.seed), self.width
        qk = key.normal(size=(self.heads, d, d))
        qk *= self.norm / np.linalg.norm(qk, axis=(1, 2), keepdims=True)
        ov = key.normal(size=(self.heads, d, self.width_out or d)) / np.sqrt(d)
        if self.correlation:
            qk[1:] = self.correlation * qk[0] + np.sqrt(1 - self.correlation**2) * qk[1:]
            qk *= self.norm / np.linalg.norm(qk, axis=(1, 2), keepdims=True)
        return AttentionLayer(qk, ov)

    def draw(self, distribution: Tokens = cube) -> Examples:
        """Its examples, with the layer as their truth; the same at every call."""
        X = distribution(np.random.default_rng(TOKEN_STREAM + self.seed), self.examples, self.tokens, self.width)
        return labelled(self.layer(), X, self.noise, np.random.default_rng(NOISE_STREAM))

    def held_out(self, n: int, distribution: Tokens = cube) -> Examples:
        """`n` more examples without noise, from a stream of their own."""
        key = np.random.default_rng([TOKEN_STREAM + self.seed, 1])
        return labelled(self.layer(), distribution(key, n, self.tokens, self.width))


def _check_sizes(n: int, k: int, d: int) -> None:
    if min(n, k, d) < 1:
        raise ValueError(f"sequences, tokens and entries must be at least 1, got {n=}, {k=}, {d=}")


def _check_noise(noise: float) -> None:
    if not 0 <= noise < np.inf:
        raise ValueError(f"noise is a standard deviation relative to that of the outputs, at least 0, got {noise}")
