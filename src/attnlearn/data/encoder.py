"""The parts of a BERT encoder in plain NumPy, in the precision of their weights, for batches of one length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from attnlearn.data.self_attention import SelfAttention

Encoder = Callable[[np.ndarray], Sequence[np.ndarray]]  # word pieces (batch, k) -> hidden states (batch, k, d), from 0


@dataclass(frozen=True)
class Norm:
    r"""LayerNorm $(x - \bar x) / \sqrt{\overline{(x - \bar x)^2} + \epsilon} \odot w + b$ over the last axis."""

    weight: np.ndarray
    bias: np.ndarray
    epsilon: float

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """`X` (..., d) normed, in its dtype."""
        X = X - X.mean(-1, keepdims=True)
        X = X / np.sqrt((X**2).mean(-1, keepdims=True) + self.epsilon)
        return X * self.weight + self.bias


@dataclass(frozen=True)
class Embeddings:
    """Of word pieces, of places and of token type 0: rows of three tables, added and normed."""

    words: np.ndarray
    places: np.ndarray
    kind: np.ndarray
    norm: Norm

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """The input (batch, k, d) of the lowest layer for word pieces `ids` (batch, k)."""
        return self.norm(self.words[ids] + self.places[: ids.shape[1]] + self.kind)


@dataclass(frozen=True)
class EncoderLayer:
    r"""Attention and the network $\mathrm{GELU}(x W_1 + b_1) W_2 + b_2$, each added to its input and then normed.

    $\mathrm{GELU}(x) = x \Phi(x)$ with the distribution function of the normal law; matrices act on rows.
    """

    attention: SelfAttention
    attention_norm: Norm
    inner: np.ndarray
    inner_bias: np.ndarray
    outer: np.ndarray
    outer_bias: np.ndarray
    norm: Norm

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """What the layer makes of `X` (batch, k, d)."""
        rows = self.attention_norm(X + self.attention.together(X)).reshape(-1, X.shape[-1])
        hidden = rows @ self.inner + self.inner_bias
        hidden *= ndtr(hidden)
        return self.norm(rows + hidden @ self.outer + self.outer_bias).reshape(X.shape)


@dataclass(frozen=True)
class NumpyEncoder:
    """Embeddings and the layers above them, lowest first."""

    embeddings: Embeddings
    layers: tuple[EncoderLayer, ...]

    def __call__(self, ids: np.ndarray) -> list[np.ndarray]:
        """Hidden states (batch, k, d) of word pieces `ids` (batch, k): the embeddings, then what each layer makes."""
        states = [self.embeddings(ids)]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return states
