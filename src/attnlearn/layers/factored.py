r"""Circuits as products of thin factors, $[\Theta_i; \beta_i^\top] = Q_i K_i^\top$ and $W_i = V_i O_i$.

The form in which a low-rank layer is refined, compressed and written as ordinary weights.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from attnlearn.layers.attention import AttentionLayer, Numbers
from attnlearn.layers.slots import Slots
from attnlearn.layers.weights import balanced_factors


class Factored(eqx.Module):
    r"""A layer's circuits in factors, a pytree of NumPy or JAX arrays.

    **Fields:**

    - `queries`: $Q_i$; the last row belongs to the query bias.
    - `keys`: $K_i$.
    - `values`, `outputs`: $V_i$ and $O_i$.
    - `offset`: $c$.

    Heads of lower rank have zero columns. Not unique: $(Q_i R, K_i R^{-\top})$ and $(V_i S, S^{-1} O_i)$ are the same
    layer; `of` returns balanced factors, $Q_i^\top Q_i = K_i^\top K_i$ and $V_i^\top V_i = O_i O_i^\top$, diagonal.
    """

    queries: Float[Numbers, "heads d_plus_1 r"]
    keys: Float[Numbers, "heads d r"]
    values: Float[Numbers, "heads d s"]
    outputs: Float[Numbers, "heads s d_out"]
    offset: Float[Numbers, " d_out"]

    @classmethod
    def of(cls, layer: AttentionLayer, rank: int | None = None, rtol: float = 1e-10) -> "Factored":
        """Balanced factors of a layer by SVD.

        A circuit's rank is the number of its singular values above `rtol` times its largest; `rank` truncates all
        circuits to the nearest of at most that rank, in the Frobenius norm. Cost: $m d^3$.
        """
        if rank is not None and rank < 1:
            raise ValueError(f"rank={rank}, wanted at least 1, or None for the numeric rank of each circuit")
        extended = np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)
        queries, keys, _ = balanced_factors(extended, rank, rtol)
        values, outputs, _ = balanced_factors(layer.ov, rank, rtol)
        return cls(queries, keys, values, outputs.swapaxes(1, 2), layer.offset)

    def circuits(
        self,
    ) -> tuple[
        Float[Numbers, "heads d d"],
        Float[Numbers, "heads d d_out"],
        Float[Numbers, "heads d"],
        Float[Numbers, " d_out"],
    ]:
        """`(qk, ov, query_bias, offset)`, the products; in the arrays' own library, so also inside `jax.jit`."""
        extended = self.queries @ self.keys.swapaxes(-1, -2)
        return extended[:, :-1], self.values @ self.outputs, extended[:, -1], self.offset

    def layer(self, slots: Slots = Slots()) -> AttentionLayer:
        """The layer with these circuits, in NumPy float64."""
        return AttentionLayer(*self.circuits(), slots=slots)
