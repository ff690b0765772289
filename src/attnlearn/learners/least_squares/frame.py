r"""The coordinates in which learning is well conditioned: tokens with second moment one, and the way back.

Queries and keys are whitened each for themselves, $X_q B_q$ and $X_k B_k$ with $B = Q\Lambda^{-1/2}$ from $M = Q\Lambda
Q^\top$; directions that no token has are dropped, which sets their part of the layer to zero. Where constants can be
absorbed, tokens are centred first: by query biases for queries, by the offset for keys if rows of weights sum to one.

$$\Theta = B_q\Theta_w B_k^\top, \quad \beta = B_k\beta_w - \Theta^\top\bar x_q, \quad W = B_k W_w, \quad
  c = c_w - \textstyle\sum_i W_i^\top \bar x_k$$
"""

from collections.abc import Iterable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.features import Batch, Outer
from attnlearn.layers.inputs import Inputs
from attnlearn.layers.slots import Slots

WHITENING_RTOL = 1e-10  # of the largest eigenvalue: a smaller one is a direction that the tokens do not have


@dataclass(frozen=True)
class Model:
    """What is learned: the slots, and whether there are query biases and an offset; thin circuits with `head_dim`."""

    slots: Slots
    query_bias: bool
    offset: bool
    head_dim: int | None = None


@dataclass(frozen=True)
class Coordinates:
    """`X -> (X - mean) basis`."""

    mean: Float[np.ndarray, " d"]
    basis: Float[np.ndarray, "d w"]

    @classmethod
    def of(cls, moments: "Moments", centred: bool, whiten: bool = True) -> "Coordinates":
        """Whitening coordinates of tokens with these moments, around zero or around their mean."""
        mean = moments.total / moments.count if centred else np.zeros_like(moments.total)
        if not whiten:
            return cls(mean, np.eye(len(mean)))
        second = moments.squares / moments.count
        values, vectors = np.linalg.eigh(second - np.outer(mean, mean))
        rounding = len(mean) * np.finfo(float).eps * np.trace(second)
        kept = values > max(WHITENING_RTOL * values[-1], rounding)
        if not kept.any():
            return cls(mean, np.zeros((len(mean), 1)))
        return cls(mean, vectors[:, kept] / np.sqrt(values[kept]))

    def __call__(self, X: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n w"]:
        """Tokens in these coordinates."""
        return (X - self.mean) @ self.basis


@dataclass(frozen=True)
class Moments:
    """Sums over tokens that are there: their number, the tokens, their outer products."""

    count: int
    total: Float[np.ndarray, " d"]
    squares: Float[np.ndarray, "d d"]

    @classmethod
    def of(cls, tokens: Float[np.ndarray, "n d"]) -> "Moments":
        """The moments of some tokens."""
        return cls(len(tokens), tokens.sum(axis=0), tokens.T @ tokens)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class Frame:
    """The coordinates of queries and keys."""

    queries: Coordinates
    keys: Coordinates

    @classmethod
    @float64
    def of(cls, chunks: Iterable[Examples], model: Model, whiten: bool = True) -> "Frame":
        """The frame of all examples, from one pass over them."""
        queries = keys = None
        for chunk in chunks:
            inputs = chunk.inputs
            there = np.ones(inputs.X.shape[:2], bool) if inputs.present is None else np.asarray(inputs.present)
            asking = (
                np.asarray(inputs.queries())[there] if inputs.rows != "last" else np.asarray(inputs.queries())[:, 0]
            )
            parts = Moments.of(asking), Moments.of(np.asarray(inputs.X)[there])
            queries, keys = parts if queries is None or keys is None else (queries + parts[0], keys + parts[1])
        assert queries is not None and keys is not None  # Examples are never empty
        absorbs = model.offset and model.slots.simplex
        return cls(
            Coordinates.of(queries, model.query_bias, whiten),
            Coordinates.of(keys, absorbs, whiten),
        )

    @float64
    def batch(self, examples: Examples, model: Model) -> Batch:
        """Examples in these coordinates."""
        given = examples.inputs
        inputs = Inputs(np.asarray(given.X), given.present, given.rows)
        plain = Batch.of(inputs, examples.targets, model.slots, query_bias=False)
        queries, keys = self.queries(np.asarray(plain.queries)), self.keys(np.asarray(plain.keys))
        if model.query_bias:
            queries = np.concatenate([queries, np.ones_like(queries[..., :1])], axis=-1)
        return Batch(jnp.asarray(queries), jnp.asarray(keys), plain.visible, plain.read, plain.labels)

    def layer(self, outer: Outer, W: Float[np.ndarray, "columns d_out"], model: Model) -> AttentionLayer:
        """The layer with these parameters, in the user's coordinates."""
        extended, m = np.asarray(outer.circuits), outer.heads
        columns = len(W) - model.offset
        ov = np.asarray(W)[:columns].reshape(m, -1, W.shape[-1])
        if outer.values is not None:
            ov = np.asarray(outer.values) @ ov
        d = self.queries.basis.shape[1]
        qk = self.queries.basis @ extended[:, :d] @ self.keys.basis.T
        bias = extended[:, d] @ self.keys.basis.T if model.query_bias else np.zeros((m, len(self.keys.mean)))
        ov = self.keys.basis @ ov
        offset = np.asarray(W)[-1] if model.offset else np.zeros(W.shape[-1])
        return AttentionLayer(
            qk,
            ov,
            bias - np.einsum("d,mde->me", self.queries.mean, qk),
            offset - np.einsum("d,mde->e", self.keys.mean, ov),
            model.slots,
        )
