"""Attention in plain NumPy, in float64 or float32: what a black box computes.

It shares no code with the JAX layer that recovered circuits are compared with, and NumPy does not compile anew for
every batch and length that a learner asks.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Causal, Slots


def softmax(scores: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """Attention weights from `scores` (..., k, k), over the tokens that `visible` (k, k) lets each row see."""
    if visible is not None:
        scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


class CircuitAttention:
    """A layer with softmax, computed from its circuits in `dtype`."""

    def __init__(self, layer: AttentionLayer, dtype: Any = np.float64):
        arrays = (layer.qk, layer.ov, layer.query_bias[:, None], layer.offset)
        self._qk, self._ov, self._query_bias, self._offset = (array.astype(dtype) for array in arrays)
        self._mask = layer.slots.mask

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Answers (batch, k, d_out) to `X` (batch, k, d), in the dtype of the circuits."""
        visible = None if self._mask is None else np.asarray(self._mask(X.shape[1]))
        X = X[:, None]
        weights = softmax((X @ self._qk + self._query_bias) @ X.swapaxes(-1, -2), visible)
        return (weights @ X @ self._ov).sum(1) + self._offset


@dataclass(frozen=True)
class SelfAttention:
    r"""Multi-head self-attention from $W_Q, W_K, W_V, W_O$ with biases and scale $1/\sqrt{d_h}$.

    Matrices act on rows ($x W + b$) and hold the heads side by side: `query`, `key`, `value` are (d, m d_h), `output`
    is (m d_h, d_out).
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    query_bias: np.ndarray
    key_bias: np.ndarray
    value_bias: np.ndarray
    output_bias: np.ndarray
    heads: int
    causal: bool = False

    def astype(self, dtype: Any) -> "SelfAttention":
        """The same layer with its numbers in `dtype`, in which it then computes."""
        arrays = {name: value.astype(dtype) for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Answers (batch, k, d_out) to `X` (batch, k, d), in the dtype of the weights.

        Each sequence for itself, so that a sequence has the same answer, to the last bit, in every batch.
        """
        return self._answers(X, X)

    def together(self, X: np.ndarray) -> np.ndarray:
        """The same up to rounding, several times as fast: one product for the tokens of all sequences."""
        return self._answers(X, X.reshape(-1, X.shape[-1]))

    def _answers(self, X: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """`tokens`: `X` in the shape in which it is multiplied."""
        batch, k, _ = X.shape
        q, key, value = (
            (tokens @ matrix + bias).reshape(batch, k, self.heads, -1).swapaxes(1, 2)
            for matrix, bias in (
                (self.query, self.query_bias),
                (self.key, self.key_bias),
                (self.value, self.value_bias),
            )
        )
        scores = q @ key.swapaxes(-1, -2) / np.sqrt(q.shape[-1]).astype(q.dtype)
        shares = softmax(scores, np.tri(k, dtype=bool) if self.causal else None)
        mixed = (shares @ value).swapaxes(1, 2).reshape(*tokens.shape[:-1], -1)
        return (mixed @ self.output + self.output_bias).reshape(batch, k, -1)

    def head(self, index: int) -> "SelfAttention":
        """One head, from 0, read where it enters `output`: its answers are the d_h numbers that it mixes."""
        size = self.query.shape[1] // self.heads
        part = slice(index * size, (index + 1) * size)
        inner = {name: getattr(self, name)[..., part] for name in ("query", "key", "value")}
        biases = {f"{name}_bias": getattr(self, f"{name}_bias")[part] for name in inner}
        unmixed = {"output": np.eye(size), "output_bias": np.zeros(size)}
        return replace(self, **inner, **biases, **unmixed, heads=1)

    @property
    def width(self) -> int:
        """Entries of a token."""
        return len(self.query)

    def circuits(self) -> AttentionLayer:
        """The circuits of these weights in float64, for judging."""
        return AttentionLayer.from_qkvo(
            self._heads(self.query),
            self._heads(self.key),
            self._heads(self.value),
            self.output.reshape(self.heads, -1, self.output.shape[1]),
            b_Q=self.query_bias.reshape(self.heads, -1),
            b_K=self.key_bias.reshape(self.heads, -1),
            b_V=self.value_bias.reshape(self.heads, -1),
            b_O=self.output_bias,
            slots=Slots(mask=Causal() if self.causal else None),
        )

    def _heads(self, matrix: np.ndarray) -> np.ndarray:
        return matrix.reshape(len(matrix), self.heads, -1).swapaxes(0, 1)
