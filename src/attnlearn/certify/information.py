r"""The observed information of a least-squares fit: what the outputs' curvature adds to $J^\top J$.

The Hessian of $|R|^2/2$, $R = F - Y$, is $J^\top J + B$ with $B = \sum_a R_a\nabla^2F_a$, of the order of the noise. To
first order bars do without B; where the noise is large, those from the whole Hessian cover the truth more nearly as
often as they say [@efron1978]. Circuits of a given rank move along a curved set, which adds the part of
`Coordinates.curvature`.
"""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.certify.jacobian import COLUMNS, Jacobian, Spectrum
from attnlearn.layers.attention import answers
from attnlearn.layers.inputs import Inputs
from attnlearn.layers.products import SEQUENCES, Circuits
from attnlearn.layers.slots import Slots


class Information:
    """H at `layer` on `examples`, as `jacobian` sees them; `residual` in the order of its rows."""

    def __init__(self, jacobian: Jacobian, residual: Float[np.ndarray, " outputs"]):
        self.jacobian, layer = jacobian, jacobian.layer
        self._rows = np.zeros((*jacobian.answered.shape, jacobian.width_out))
        self._rows[jacobian.answered] = residual.reshape(-1, jacobian.width_out)
        self._at = Circuits(layer.qk, layer.ov, layer.query_bias, layer.offset)
        self._gradient = self._sum(_gradient)

    def curvature(self, vectors: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, "batch parameters"]:
        """B times every row. Cost: about four forward passes each."""
        coordinates = self.jacobian.coordinates
        images = self._sum(_products, coordinates.circuits(vectors))
        return coordinates.vectors(images) + coordinates.curvature(self._gradient, vectors)

    def root(self, spectrum: Spectrum) -> Float[np.ndarray, "rank rank"]:
        r"""Lower L with $H = VS\,LL^\top SV^\top$ on the row space of $J = USV^\top$.

        **Raises:** `ValueError` where H is not positive: the layer does not minimise the squared error.
        """
        scaled = (spectrum.right / spectrum.values).T
        try:
            return np.linalg.cholesky(np.eye(spectrum.rank) + self.curvature(scaled) @ scaled.T)
        except np.linalg.LinAlgError:
            raise ValueError(
                "error bars belong to a least-squares fit, and the squared error falls from this layer in some "
                "direction: learn it from these examples first"
            ) from None

    @float64
    def _sum(self, part: Callable[..., Circuits], *tangents: Circuits) -> Circuits:
        """A sum over sequences, in chunks."""
        inputs, slots = self.jacobian.inputs, self.jacobian.layer.slots
        chunks = (slice(start, start + SEQUENCES) for start in range(0, len(inputs), SEQUENCES))
        terms = (part(self._at, slots, inputs[chunk], self._rows[chunk], *tangents) for chunk in chunks)
        return functools.reduce(lambda total, term: jax.tree.map(np.add, total, term), terms)


def _weighted(at: Circuits, slots: Slots, inputs: Inputs, rows: Float[jax.Array, "n r d_out"]) -> jax.Array:
    return jnp.sum(answers(*at, slots, inputs) * rows)


@eqx.filter_jit
def _gradient(at: Circuits, slots: Slots, inputs: Inputs, rows: Float[jax.Array, "n r d_out"]) -> Circuits:
    return jax.grad(_weighted)(at, slots, inputs, rows)


@eqx.filter_jit
def _products(
    at: Circuits, slots: Slots, inputs: Inputs, rows: Float[jax.Array, "n r d_out"], tangents: Circuits
) -> Circuits:
    def product(tangent: Circuits) -> Circuits:
        return jax.jvp(lambda at: jax.grad(_weighted)(at, slots, inputs, rows), (at,), (tangent,))[1]

    return jax.lax.map(product, tangents, batch_size=COLUMNS)
