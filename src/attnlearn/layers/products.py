r"""The derivative J of a layer's outputs in its parameters, and its transpose, as products without a matrix.

With $p_i = \mathrm{softmax}(S_i)$, $S_i = \tilde X \tilde\Theta_i X^\top$, $\tilde X = [X, 1]$ and $\tilde\Theta_i =
[\Theta_i; \beta_i^\top]$:

$$J\delta = \delta c + \sum_i p_i'[\delta S_i]\, X W_i + p_i X\, \delta W_i, \qquad
  \delta S_i = \tilde X\, \delta\tilde\Theta_i\, X^\top$$

The tangents are circuits, or the factors of $\tilde\Theta_i = Q_i K_i^\top$ and $W_i = V_i O_i$. What the formula needs
of the layer is computed once and kept; the transpose is JAX's of the same formula, so the two are adjoint to rounding.
"""

from typing import Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from attnlearn._types import float64
from attnlearn.layers.attention import AttentionLayer, Numbers
from attnlearn.layers.factored import Factored
from attnlearn.layers.inputs import Inputs, as_inputs
from attnlearn.layers.slots import Slots

SEQUENCES = 32  # in a chunk: matrices of some hundred rows, large enough for their products to run at full speed


class Circuits(NamedTuple):
    """A change of a layer's circuits, one array each."""

    qk: Float[Numbers, "heads d d"]
    ov: Float[Numbers, "heads d d_out"]
    query_bias: Float[Numbers, "heads d"]
    offset: Float[Numbers, " d_out"]


Tangent = TypeVar("Tangent", Factored, Circuits)


class Pass(eqx.Module):
    """What one forward pass over a chunk leaves behind for its derivative."""

    inputs: Inputs
    queries: Float[Numbers, "*n heads q r"]
    keys: Float[Numbers, "*n heads k r"]
    values: Float[Numbers, "*n heads k s"]
    scores: Float[Numbers, "*n heads q k"]
    maps: Float[Numbers, "*n heads q k"]


class Linearisation(eqx.Module, Generic[Tangent]):
    """J at one layer, over sequences of one length.

    **Fields:**

    - `at`: the layer, in factors.
    - `slots`: its slots.
    - `passes`: the kept forward pass, in chunks (chunks, sequences, ...).
    - `zero`: the zero tangent; its type says in what J differentiates.
    - `sequences`: their number; the last chunk is padded with zero tokens.

    Products are JAX arrays in the precision of the fields (float64, or what `astype` was given), with padding removed:
    go on under `float64`, or in NumPy.
    Cost: about two forward passes of a layer in factors each; memory about $2m(r + k)$ numbers a token.
    """

    at: Factored
    slots: Slots
    passes: Pass
    zero: Tangent
    sequences: int = eqx.field(static=True)

    @float64
    def outputs(self) -> Float[jax.Array, "n read d_out"]:
        """The layer's outputs, in the rows that are read."""
        return _flat(_outputs(self.at, self.passes), self.sequences)

    @float64
    def apply(self, tangent: Tangent) -> Float[jax.Array, "n read d_out"]:
        """J times a change of the parameters."""
        return _flat(_apply(self.at, self.slots, self.passes, tangent), self.sequences)

    @float64
    def transpose(self, change: Float[Numbers, "n read d_out"]) -> Tangent:
        """J transposed times a change of the outputs."""
        chunks, sequences = self.passes.inputs.X.shape[:2]
        return _transpose(self.at, self.slots, self.passes, self.zero, _chunked(change, chunks, sequences))

    @float64
    def astype(self, dtype: type[np.floating]) -> "Linearisation[Tangent]":
        """The same derivative with its products in another precision."""
        return jax.tree.map(lambda array: array if array.dtype == bool else jnp.asarray(array, dtype), self)


@float64
def linearise(
    at: Factored | AttentionLayer, slots: Slots, X: Float[Numbers, "n k d"] | Inputs, chunk: int = SEQUENCES
) -> Linearisation:
    """J over the sequences `X`: in `Factored` tangents at a `Factored`, in `Circuits` tangents at an `AttentionLayer`.

    `Inputs` say which tokens are there and which rows are read; an array means all. `chunk` sequences are worked on at
    a time; it changes the results by rounding only.
    """
    if isinstance(at, AttentionLayer):
        factors = Factored.of(at, rtol=np.finfo(float).eps)
        zero = jax.tree.map(jnp.zeros_like, Circuits(at.qk, at.ov, at.query_bias, at.offset))
    else:
        factors, zero = at, jax.tree.map(jnp.zeros_like, at)
    factors, inputs = jax.tree.map(jnp.asarray, factors), as_inputs(X)
    chunk = max(1, min(chunk, len(inputs)))
    chunked = jax.tree.map(lambda part: _chunked(part, -(-len(inputs) // chunk), chunk), inputs)
    return Linearisation(factors, slots, _passes(factors, slots, chunked), zero, len(inputs))


def _chunked(array: Shaped[Numbers, "n *rest"], chunks: int, sequences: int) -> Shaped[jax.Array, "chunks m *rest"]:
    """In chunks of equally many sequences, zeros at the end."""
    padding = [(0, chunks * sequences - len(array))] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(jnp.asarray(array), padding).reshape(chunks, sequences, *array.shape[1:])


def _flat(chunks: Float[jax.Array, "chunks m *rest"], sequences: int) -> Float[jax.Array, "n *rest"]:
    return chunks.reshape(-1, *chunks.shape[2:])[:sequences]


def _extended(X: Float[Numbers, "*n d"]) -> Float[jax.Array, "*n d_plus_1"]:
    """Querying tokens with the 1 that meets the query bias."""
    return jnp.concatenate([X, jnp.ones_like(X[..., :1])], axis=-1)


def _into_heads(X: Float[Numbers, "n k d"], factor: Float[Numbers, "heads d r"]) -> Float[jax.Array, "n heads k r"]:
    return jnp.einsum("nkd,mdr->nmkr", X, factor)


def _from_heads(
    parts: Float[Numbers, "n heads q s"], outputs: Float[Numbers, "heads s e"]
) -> Float[jax.Array, "n q e"]:
    return jnp.einsum("nmks,mse->nke", parts, outputs)


def _times(
    queries: Float[Numbers, "n heads q r"], keys: Float[Numbers, "n heads k r"]
) -> Float[Numbers, "n heads q k"]:
    return queries @ jnp.swapaxes(keys, -1, -2)


def _weights(slots: Slots, inputs: Inputs, scores: Float[Numbers, "n heads q k"]) -> Float[jax.Array, "n heads q k"]:
    return slots.normaliser(scores, jnp.broadcast_to(inputs.visible(slots)[:, None], scores.shape))


@eqx.filter_jit
def _passes(at: Factored, slots: Slots, inputs: Inputs) -> Pass:
    def chunk(inputs):
        X = inputs.X
        queries, keys = _into_heads(_extended(inputs.queries()), at.queries), _into_heads(X, at.keys)
        scores = _times(queries, keys)
        return Pass(inputs, queries, keys, _into_heads(X, at.values), scores, _weights(slots, inputs, scores))

    return jax.lax.map(chunk, inputs)


@eqx.filter_jit
def _outputs(at: Factored, passes: Pass) -> Float[jax.Array, "chunks n read d_out"]:
    def chunk(one):
        return one.inputs.read(_plus(at.offset, _from_heads(one.maps @ one.values, at.outputs)))

    return jax.lax.map(chunk, passes)


def _plus(offset: Float[Numbers, " d_out"], rows: Float[jax.Array, "n q d_out"]) -> Float[jax.Array, "n q d_out"]:
    return rows + jnp.broadcast_to(offset, rows.shape)


def _change(at: Factored, slots: Slots, one: Pass, tangent: Factored | Circuits) -> Float[jax.Array, "n read d_out"]:
    """The formula at the head of the file, over one chunk."""
    X, asking = one.inputs.X, one.inputs.queries()
    if isinstance(tangent, Factored):
        queries, keys = _into_heads(_extended(asking), tangent.queries), _into_heads(X, tangent.keys)
        scores = _times(queries, one.keys) + _times(one.queries, keys)
        values = one.maps @ _into_heads(X, tangent.values)
        rest = _from_heads(one.maps @ one.values, tangent.outputs)
    else:
        queries = _into_heads(asking, tangent.qk)
        queries = queries + jnp.broadcast_to(tangent.query_bias[:, None, :], queries.shape)
        scores = _times(queries, jnp.broadcast_to(X[:, None], (*queries.shape[:2], *X.shape[1:])))
        values = jnp.zeros((), X.dtype)
        rest = _from_heads(jnp.einsum("nmkj,njd->nmkd", one.maps, X), tangent.ov)
    maps = jax.jvp(lambda scores: _weights(slots, one.inputs, scores), (one.scores,), (scores,))[1]
    return one.inputs.read(_plus(tangent.offset, _from_heads(maps @ one.values + values, at.outputs) + rest))


@eqx.filter_jit
def _apply(at: Factored, slots: Slots, passes: Pass, tangent: Tangent) -> Float[jax.Array, "chunks n read d_out"]:
    return jax.lax.map(lambda one: _change(at, slots, one, tangent), passes)


@eqx.filter_jit
def _transpose(
    at: Factored, slots: Slots, passes: Pass, zero: Tangent, change: Float[jax.Array, "chunks n read d_out"]
) -> Tangent:
    def add(total, chunk):
        one, rows = chunk
        (part,) = jax.linear_transpose(lambda tangent: _change(at, slots, one, tangent), zero)(rows)
        return jax.tree.map(jnp.add, total, part), None

    return jax.lax.scan(add, zero, (passes, change))[0]
