r"""The Jacobian of a layer's outputs in its unknown parameters: products with flat NumPy vectors, or the matrix.

Rows are the numbers that are observed: outputs of absent tokens are left out. Columns are the coordinates of
`Coordinates`, so restricted parameters and circuits of known rank need nothing further.
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.certify.coordinates import Coordinates, Unknowns
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.inputs import as_inputs
from attnlearn.layers.products import SEQUENCES, Circuits, Linearisation, linearise

MAX_BYTES = 200_000_000  # of the matrix, where it is built
COLUMNS = 32  # made at once, or fewer
CHUNK_BYTES = 2**26  # of attention weights and mixed tokens, for the columns made at once
RANK_TOLERANCE = 1e-9  # of the largest singular value: what is smaller counts as zero
WELL_CONDITIONED = 1e-5  # smallest over largest eigenvalue


class Jacobian:
    """J at `layer` on the sequences `X` (an array, or `Inputs`), in the parameters that are unknown.

    - `parameters`, `outputs`: its columns and rows; `coordinates`: what a column stands for.
    - `fits`: whether `dense` stays below `MAX_BYTES`.
    """

    @float64
    def __init__(self, layer: AttentionLayer, X: Any, unknowns: Unknowns = Unknowns()):
        self.layer, self.inputs, self.unknowns = layer, as_inputs(X), unknowns
        self.coordinates = Coordinates(layer, unknowns)
        self.answered = np.asarray(self.inputs.answered())
        self.parameters, self.width_out = self.coordinates.size, layer.width_out
        self.outputs = int(self.answered.sum()) * layer.width_out
        self.fits = 8 * self.parameters * max(self.outputs, self.parameters) <= MAX_BYTES
        self._linear = linearise(layer, layer.slots, self.inputs)
        rows, tokens = self.answered.shape[1], self.inputs.X.shape[1]
        self._tangent_bytes = 8 * min(len(self.inputs), SEQUENCES) * layer.heads * rows * (tokens + layer.width)

    @float64
    def values(self) -> Float[np.ndarray, " outputs"]:
        """The layer's outputs in the order of the rows of J."""
        return self.observed(self._linear.outputs())

    def observed(self, rows: Any) -> Float[np.ndarray, " outputs"]:
        """The entries of outputs or labels (n, r, d_out) that are observed."""
        return np.asarray(rows, np.float64)[self.answered].ravel()

    def residual(self, labels: Any) -> Float[np.ndarray, " outputs"]:
        """Outputs of the layer less these labels (n, r, d_out)."""
        return self.values() - self.observed(labels)

    @float64
    def push(self, vectors: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, "batch outputs"]:
        """J v for every row v."""
        changes = np.asarray(_apply_each(self._linear, self.coordinates.circuits(vectors)))
        return changes[:, self.answered].reshape(len(vectors), self.outputs)

    @float64
    def pull(self, vectors: Float[np.ndarray, "batch outputs"]) -> Float[np.ndarray, "batch parameters"]:
        """The transpose of J times u for every row u."""
        changes = np.zeros((len(vectors), *self.answered.shape, self.width_out))
        changes[:, self.answered] = vectors.reshape(len(vectors), -1, self.width_out)
        return self.coordinates.vectors(_transpose_each(self._linear, changes))

    def dense(self) -> Float[np.ndarray, "outputs parameters"]:
        """The matrix, column by column: as many products as parameters."""
        size = min(COLUMNS, max(1, CHUNK_BYTES // max(1, self._tangent_bytes)))
        matrix = np.empty((self.parameters, self.outputs))
        for start in range(0, self.parameters, size):
            one = np.eye(size, self.parameters, start)  # zero rows at the end: one compiled size for all
            matrix[start : start + size] = self.push(one)[: self.parameters - start]
            progress("jacobian", min(start + size, self.parameters), self.parameters)
        return matrix.T


@eqx.filter_jit
def _apply_each(linear: Linearisation, tangents: Circuits) -> Float[jax.Array, "batch n read d_out"]:
    return jax.vmap(linear.apply)(tangents)


@eqx.filter_jit
def _transpose_each(linear: Linearisation, changes: Float[np.ndarray | jax.Array, "batch n read d_out"]) -> Circuits:
    return jax.vmap(linear.transpose)(changes)


class Spectrum:
    r"""The singular value decomposition $J = U S V^\top$ of a Jacobian that fits in memory, cut at its rank.

    - `left` (outputs, rank), `values` (rank,), `right` (parameters, rank): U, S, V.
    - `null` (nullity, parameters): the directions that no output shows.

    Where $J^\top J$ is well conditioned its eigenvectors are V, at a fifth of the cost; U and S are then exact to
    rounding over `WELL_CONDITIONED`.
    """

    def __init__(self, matrix: Float[np.ndarray, "outputs parameters"]):
        outputs, parameters = matrix.shape
        squares, vectors = scipy.linalg.eigh(matrix.T @ matrix, check_finite=False)
        if squares[0] > WELL_CONDITIONED * squares[-1]:
            values, rows = np.sqrt(squares[::-1]), vectors[:, ::-1].T
            left = matrix @ rows.T / values
        else:
            left, values, rows = scipy.linalg.svd(matrix, full_matrices=outputs < parameters, check_finite=False)
        self.rank = int(np.sum(values > RANK_TOLERANCE * values.max(initial=0.0)))
        self.nullity = parameters - self.rank
        self.left, self.values = left[:, : self.rank], values[: self.rank]
        self.right, self.null = rows[: self.rank].T, rows[self.rank :]

    def solve(self, vectors: Float[np.ndarray, "batch outputs"]) -> Float[np.ndarray, "batch parameters"]:
        """The shortest least-squares solution of J p = u for every row u."""
        return (vectors @ self.left / self.values) @ self.right.T
