r"""The attention layer as its QK and OV circuits, and its forward pass.

$$F(X) = c + \sum_i \mathrm{softmax}\big((X \Theta_i + 1\beta_i^\top) X^\top\big)\, X W_i$$

One formula, `weights` and `forward`, in JAX for whoever differentiates; `AttentionLayer` holds NumPy float64
arrays for users and runs the same formula in float64, chunk by chunk.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.layers import weights as _weights
from attnlearn.layers.inputs import Inputs, Numbers, Rows
from attnlearn.layers.slots import Slots
from attnlearn.layers.weights import Projections, as_float64

CHUNK_SCALARS = 2**24  # numbers in the intermediate arrays of one chunk of a forward pass: 128 MiB


def weights(
    qk: Float[Numbers, "heads d d"], query_bias: Float[Numbers, "heads d"], slots: Slots, inputs: Inputs
) -> Float[jax.Array, "n heads r k"]:
    """Attention weights of every head; row $t$ holds what the asking token $t$ gives to each token. Pure JAX."""
    queries = jnp.einsum("ntd,mde->nmte", inputs.queries(), qk)
    queries = queries + jnp.broadcast_to(query_bias[:, None, :], queries.shape)
    scores = jnp.einsum("nmte,nje->nmtj", queries, inputs.X)
    return slots.normaliser(scores, jnp.broadcast_to(inputs.visible(slots)[:, None], scores.shape))


def answers(
    qk: Float[Numbers, "heads d d"],
    ov: Float[Numbers, "heads d d_out"],
    query_bias: Float[Numbers, "heads d"],
    offset: Float[Numbers, " d_out"],
    slots: Slots,
    inputs: Inputs,
) -> Float[jax.Array, "n read d_out"]:
    """Outputs of the layer in the rows that are read. Pure JAX."""
    mixed = jnp.einsum("nmtj,njd->nmtd", weights(qk, query_bias, slots, inputs), inputs.X)
    outputs = jnp.einsum("nmtd,mde->nte", mixed, ov)
    return inputs.read(outputs + jnp.broadcast_to(offset, outputs.shape))


_answers_compiled = eqx.filter_jit(answers)
_weights_compiled = eqx.filter_jit(weights)


class AttentionLayer(eqx.Module):
    r"""A multi-head attention layer: QK circuits $\Theta_i$, OV circuits $W_i$, query biases $\beta_i$, offset $c$.

    **Fields:** (NumPy float64; anything that NumPy or torch can read is accepted)

    - `qk`: $\Theta_i$; token $t$ scores token $j$ with $x_t^\top \Theta_i x_j + \beta_i^\top x_j$. The usual
        $1/\sqrt{d_h}$ is inside.
    - `ov`: $W_i$, what a token that is attended to contributes.
    - `query_bias`: $\beta_i$; zero when not given.
    - `offset`: $c$, added to every output; zero when not given.
    - `slots`: normaliser and mask, the same for every head.

    Raises `ValueError` for shapes that do not fit together and for NaN or infinite entries.
    """

    qk: Float[np.ndarray, "heads d d"]
    ov: Float[np.ndarray, "heads d d_out"]
    query_bias: Float[np.ndarray, "heads d"]
    offset: Float[np.ndarray, " d_out"]
    slots: Slots

    def __init__(self, qk: Any, ov: Any, query_bias: Any = None, offset: Any = None, slots: Slots = Slots()):
        self.qk = as_float64("qk", qk, ("heads", "d", "d"))
        heads, d, d_out = *self.qk.shape[:2], np.shape(ov)[-1] if np.ndim(ov) else 0
        self.ov = as_float64("ov", ov, (heads, d, "d_out"))
        zeros = np.zeros((heads, d)), np.zeros(d_out)
        self.query_bias = zeros[0] if query_bias is None else as_float64("query_bias", query_bias, (heads, d))
        self.offset = zeros[1] if offset is None else as_float64("offset", offset, (d_out,))
        self.slots = slots

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.qk.shape[0]

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return self.qk.shape[1]

    @property
    def width_out(self) -> int:
        """Numbers in an output row."""
        return self.ov.shape[2]

    def __call__(self, X: Any, mask: Any = None, rows: Rows = "all") -> Float[Numbers, "*batch_and_rows d_out"]:
        """Outputs for tokens `X` (..., k, d), in NumPy float64; inside a JAX transformation, in JAX.

        `mask` (..., k) says which tokens are there (`None`: all); the outputs of absent ones are 0. `rows`: `"all"`
        gives (..., k, d_out); the output of the `"last"` token, or the `"mean"` over the tokens, (..., d_out).
        """
        inputs, batch = self._inputs(X, mask, rows)
        arguments = self.qk, self.ov, self.query_bias, self.offset, self.slots
        if _traced((self, inputs)):
            outputs = answers(*arguments, inputs)
        else:
            outputs = _in_chunks(lambda part: _answers_compiled(*arguments, part), inputs, self.heads)
        return outputs.reshape(*batch, *outputs.shape[1:] if rows == "all" else outputs.shape[2:])

    def maps(self, X: Any, mask: Any = None) -> Float[Numbers, "*batch heads k k"]:
        """Attention weights for tokens `X` (..., k, d), in NumPy float64; inside a JAX transformation, in JAX."""
        inputs, batch = self._inputs(X, mask, "all")
        arguments = self.qk, self.query_bias, self.slots
        if _traced((self, inputs)):
            found = weights(*arguments, inputs)
        else:
            found = _in_chunks(lambda part: _weights_compiled(*arguments, part), inputs, self.heads)
        return found.reshape(*batch, *found.shape[1:])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the layer as one safetensors file, the slots in its metadata. `load` reads it back bit by bit."""
        arrays = {name: getattr(self, name) for name in _weights.SAVED_ARRAYS}
        _weights.write(path, arrays, self.slots)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "AttentionLayer":
        """Reads what `save` wrote. Raises `ValueError` for a damaged file and for one that holds something else."""
        arrays, slots = _weights.read(path)
        return cls(**arrays, slots=slots)

    @classmethod
    def from_qkvo(
        cls,
        W_Q: Any,
        W_K: Any,
        W_V: Any,
        W_O: Any,
        b_Q: Any = None,
        b_K: Any = None,
        b_V: Any = None,
        b_O: Any = None,
        scale: float | None = None,
        slots: Slots = Slots(),
    ) -> "AttentionLayer":
        r"""The layer of ordinary weights.

        $$\Theta_i = s\, W_{Q,i} W_{K,i}^\top, \quad \beta_i = s\, W_{K,i} b_{Q,i}, \quad W_i = W_{V,i} W_{O,i}, \quad
          c = b_O + \textstyle\sum_i b_{V,i} W_{O,i}$$

        `W_Q` (m,d,d_h), `W_K` (n,d,d_h), `W_V` (n,d,d_v), `W_O` (m,d_v,d_out), with tokens as rows ($q = x W_Q + b_Q$);
        `b_Q` (m,d_h), `b_K` (n,d_h), `b_V` (n,d_v), `b_O` (d_out,). With fewer key and value heads, $n < m$,
        consecutive query heads share one. `scale` is $s$, by default $1/\sqrt{d_h}$. The key bias adds a constant to
        a row of scores, which softmax does not see: it is dropped. For a normaliser whose rows do not sum to one,
        key and value biases are refused with `ValueError`.
        """
        ordinary = Projections(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O)
        return cls(*_weights.to_circuits(ordinary, scale, slots), slots=slots)

    def to_qkvo(self, head_dim: int | None = None) -> Projections:
        """Ordinary weights of this layer with the default scale, balanced by SVD; `from_qkvo(*result)` undoes it.

        `head_dim` is $d_h$; by default the largest numeric rank of a circuit. A query bias that is no combination of
        the keys' directions counts as one more rank. Raises `ValueError` when a circuit has a higher rank.
        """
        return _weights.from_circuits(self.qk, self.ov, self.query_bias, self.offset, head_dim)

    def _inputs(self, X: Any, mask: Any, rows: Rows) -> tuple[Inputs, tuple[int, ...]]:
        """Checked sequences in one batch dimension, and the batch dimensions that they had."""
        tokens = X if isinstance(X, jax.core.Tracer) else as_float64("X", X)
        if tokens.ndim < 2 or tokens.shape[-1] != self.width or tokens.shape[-2] == 0:
            raise ValueError(f"X has shape {tokens.shape}, wanted (..., k, {self.width}) with k of at least 1 token")
        *batch, k, d = tokens.shape
        n = math.prod(batch)
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (*batch, k) or mask.dtype != bool or not mask.any(axis=-1).all():
                raise ValueError(
                    f"mask has shape {mask.shape} and type {mask.dtype}, wanted {(*batch, k)} of bool "
                    "with at least one token in every sequence"
                )
            mask = mask.reshape(n, k)
        return Inputs(tokens.reshape(n, k, d), mask, rows), tuple(batch)


def random_layer(
    seed: int | np.random.Generator,
    heads: int = 4,
    width: int = 16,
    width_out: int | None = None,
    head_dim: int | None = None,
    logit_std: float = 1.0,
) -> AttentionLayer:
    r"""A random softmax layer without biases.

    Circuits are products of Gaussian matrices (of one Gaussian matrix where `head_dim` is `None`), scaled per head:
    $\|\Theta_i\|_F$ = `logit_std` and $\|W_i\|_F = \sqrt{d_{out}}$. So for two independent tokens with independent
    entries of unit variance the score $x^\top \Theta_i y$ has standard deviation `logit_std`, exactly, and
    $x^\top W_i$ has entries of mean square one.
    """
    key = np.random.default_rng(seed)
    width_out = width if width_out is None else width_out
    if min(heads, width, width_out, width if head_dim is None else head_dim) < 1:
        raise ValueError(f"sizes must be at least 1, got {heads=}, {width=}, {width_out=}, {head_dim=}")
    qk = _gaussian_product(key, (heads, width, width), head_dim)
    ov = _gaussian_product(key, (heads, width, width_out), head_dim)
    return AttentionLayer(logit_std * qk, np.sqrt(width_out) * ov)


def _gaussian_product(
    key: np.random.Generator, shape: tuple[int, int, int], rank: int | None
) -> Float[np.ndarray, "heads d d_out"]:
    """Random maps of unit Frobenius norm, of the given rank."""
    heads, d, d_out = shape
    if rank is None:
        maps = key.standard_normal(shape)
    else:
        maps = key.standard_normal((heads, d, rank)) @ key.standard_normal((heads, rank, d_out))
    return maps / np.linalg.norm(maps, axis=(1, 2), keepdims=True)


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


@float64
def _in_chunks(function: Callable[[Inputs], jax.Array], inputs: Inputs, heads: int) -> np.ndarray:
    """`function` over the sequences, with memory bounded by `CHUNK_SCALARS` where one sequence fits.

    Batches are padded to powers of two, so that a length of sequence compiles a dozen programs at most, whatever
    the batch sizes.
    """
    n, tokens, d = inputs.X.shape
    most = max(1, CHUNK_SCALARS // (max(heads, 1) * tokens * 2 * (tokens + d)))
    most = 2 ** (most.bit_length() - 1)
    parts = []
    for start in range(0, max(n, 1), most):
        part = inputs[start : start + most]
        size = max(1, 2 ** (len(part) - 1).bit_length())
        padded = jax.tree.map(lambda array: _padded(array, size), part)  # noqa: B023 (used at once)
        parts.append(np.asarray(function(padded))[: len(part)])
    return np.concatenate(parts)


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """`array` with zeros (absent tokens) behind it, `size` long."""
    return np.concatenate([array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)])
