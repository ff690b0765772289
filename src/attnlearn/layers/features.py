r"""A layer's outputs as features times coefficients: the outputs are linear in the last factor of the OV circuits.

$$F = \Phi(\theta)\, W, \qquad \Phi = \big[\,\mathcal N(\tilde X Q_i K_i^\top X^\top)\, X V_i\,\big]_{i=1..m} \;(, 1)$$

Full circuits are the case $K_i = I$, $V_i = I$: then $Q_i = \tilde\Theta_i$ and $W$ stacks the OV circuits themselves.
Everything else, derivatives with it, comes from this one formula.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from attnlearn.layers.inputs import Inputs
from attnlearn.layers.slots import Slots

Numbers = np.ndarray | jax.Array


class Outer(eqx.Module):
    r"""The parameters $\theta$ in which the outputs are not linear; several points may be stacked in front.

    **Fields:**

    - `queries`: $Q_i$; with one row more than the tokens are wide where query biases are learned.
    - `keys`: $K_i$; `None`: the identity.
    - `values`: $V_i$; `None`: the identity.
    """

    queries: Float[Numbers, "*stack heads d_q r"]
    keys: Float[Numbers, "*stack heads d r"] | None = None
    values: Float[Numbers, "*stack heads d s"] | None = None

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.queries.shape[0]

    @property
    def circuits(self) -> Float[Numbers, "*stack heads d_q d"]:
        """The QK circuits $Q_iK_i^\top$, with the query biases as a last row where they are learned."""
        return self.queries if self.keys is None else self.queries @ self.keys.swapaxes(-1, -2)


class Batch(eqx.Module):
    """Sequences as the formula wants them, with their labels.

    **Fields:**

    - `queries`: the asking tokens, a 1 behind each where query biases are learned.
    - `keys`: the tokens attended to.
    - `visible`: who sees whom.
    - `read`: the weight of an asking token in the row that is read: (n, r) where each row is read for itself, 0 for
        absent tokens; (n, 1, r) where rows are averaged.
    - `labels`: the rows that were observed; 0 in absent rows.
    """

    queries: Float[Numbers, "n r d_q"]
    keys: Float[Numbers, "n k d"]
    visible: Bool[Numbers, "n_or_1 r k"]
    read: Float[Numbers, "n *read r"]
    labels: Float[Numbers, "n rows d_out"]

    @classmethod
    def of(cls, inputs: Inputs, labels: Float[Numbers, "n rows d_out"], slots: Slots, query_bias: bool) -> "Batch":
        """The batch of `inputs` for a layer with these slots."""
        queries = inputs.queries()
        if query_bias:
            queries = jnp.concatenate([queries, jnp.ones_like(queries[..., :1])], axis=-1)
        answered = jnp.ones(queries.shape[:2]) if inputs.rows == "last" or inputs.present is None else inputs.present
        read = jnp.asarray(answered, float)
        if inputs.rows == "mean":
            read = (read / read.sum(axis=1, keepdims=True))[:, None, :]
        return cls(queries, jnp.asarray(inputs.X), inputs.visible(slots), read, jnp.asarray(labels))

    def padded(self, multiple: int) -> "Batch":
        """Filled up to a multiple of so many sequences, with zero tokens in rows that are not read."""
        missing = -len(self.labels) % multiple

        def fill(array: Numbers) -> jax.Array:
            return jnp.pad(jnp.asarray(array), [(0, missing)] + [(0, 0)] * (array.ndim - 1))

        n, r, k = len(self.labels), *self.visible.shape[1:]
        visible = jnp.broadcast_to(self.visible, (n, r, k))
        visible = jnp.pad(visible, [(0, missing), (0, 0), (0, 0)], constant_values=True)
        return Batch(fill(self.queries), fill(self.keys), visible, fill(self.read), fill(self.labels))

    def answered(self) -> Float[jax.Array, "n rows"]:
        """1 for rows that carry a label."""
        read = jnp.asarray(self.read)
        return jnp.asarray(jnp.max(read, axis=-1) > 0, read.dtype) if read.ndim == 3 else read


def features(outer: Outer, normaliser: Any, batch: Batch, offset: bool) -> Float[jax.Array, "n rows columns"]:
    """The features of every row that is read; heads side by side, then a 1 where an offset is learned. Pure JAX."""
    m = outer.heads
    n, r, _ = batch.queries.shape
    queries = jnp.einsum("nrd,mdp->nrmp", batch.queries, outer.queries)
    if outer.keys is None:
        scores = (queries.reshape(n, r * m, -1) @ jnp.swapaxes(batch.keys, 1, 2)).reshape(n, r, m, -1)
    else:
        scores = jnp.einsum("nrmp,nkmp->nrmk", queries, jnp.einsum("nkd,mdp->nkmp", batch.keys, outer.keys))
    weights = normaliser(scores, jnp.broadcast_to(batch.visible[:, :, None, :], scores.shape))
    if outer.values is None:
        mixed = (weights.reshape(n, r * m, -1) @ batch.keys).reshape(n, r, -1)
    else:
        values = jnp.einsum("nkd,mds->nkms", batch.keys, outer.values)
        mixed = jnp.einsum("nrmk,nkms->nrms", weights, values).reshape(n, r, -1)
    read = jnp.asarray(batch.read)
    mixed = read @ mixed if read.ndim == 3 else mixed * read[..., None]
    if not offset:
        return mixed
    return jnp.concatenate([mixed, batch.answered()[..., None]], axis=-1)
