r"""Which parameters of a layer are unknown, as flat vectors in orthonormal coordinates.

Circuits are unknown entry by entry, or, where their rank is known to be at most r, along the tangent space of such
matrices: at $M = U S V^\top$ these are the $Z$ whose block $U_\perp^\top Z V_\perp$ is zero, $r(p + q - r)$
dimensions for a (p, q) matrix. Coordinates are entries of $[U, U_\perp]^\top Z\, [V, V_\perp]$, so lengths and
angles of vectors are those of the changes of the circuits. The query bias is the last row of
$\tilde\Theta_i = [\Theta_i; \beta_i^\top]$.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.products import Circuits

FREE = ("qk", "ov", "query_bias", "offset")
EXCESS = 1e-9  # of the largest singular value: what a circuit of the stated rank may hold beyond it


@dataclass(frozen=True)
class Unknowns:
    """What is unknown about a layer; the rest is given and carries no error.

    - `free`: names of the unknown parameters, of `qk`, `ov`, `query_bias`, `offset`.
    - `head_dim`: largest rank of a circuit (of qk together with its query bias, where both are unknown). `None`: any.
    """

    free: tuple[str, ...] = FREE
    head_dim: int | None = None

    def __post_init__(self):
        if not self.free or not set(self.free) <= set(FREE) or len(set(self.free)) < len(self.free):
            raise ValueError(f"free must name some of {', '.join(FREE)}, each once, got {self.free}")
        if self.head_dim is not None and self.head_dim < 1:
            raise ValueError(f"head_dim must be at least 1, or None for any rank, got {self.head_dim}")


class Coordinates:
    """Flat vectors of the unknown parameters at a layer, and the changes of circuits that they stand for.

    Raises `ValueError` where a circuit has a higher rank than `unknowns.head_dim`.
    """

    def __init__(self, layer: AttentionLayer, unknowns: Unknowns = Unknowns()):
        free, d = set(unknowns.free), layer.width
        self._rows = slice(0 if "qk" in free else d, d + 1 if "query_bias" in free else d)
        extended = np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)[:, self._rows]
        ov = layer.ov if "ov" in free else layer.ov[:, :0]
        offset = layer.offset[None, None] if "offset" in free else layer.offset[None, None][:, :0]
        ranks = (unknowns.head_dim if "qk" in free else None, unknowns.head_dim, None)
        self._blocks = [_block(matrices, rank) for matrices, rank in zip((extended, ov, offset), ranks, strict=True)]
        self._shapes = layer.qk.shape, layer.ov.shape
        self.size = sum(block.size for block in self._blocks)

    def circuits(self, vectors: Float[np.ndarray, "batch size"]) -> Circuits:
        """The changes, with a leading axis; parameters that are not free do not change."""
        parts = zip(self._blocks, self._parts(vectors), strict=True)
        rows, ov, offset = (block.matrices(part) for block, part in parts)
        (heads, d, _), ov_shape = self._shapes
        extended = np.zeros((len(vectors), heads, d + 1, d))
        extended[:, :, self._rows] = rows
        full = np.zeros((len(vectors), *ov_shape))
        full[:, :, : ov.shape[2]] = ov
        constant = np.zeros((len(vectors), ov_shape[-1])) if not offset.size else offset[:, 0, 0]
        return Circuits(extended[:, :, :-1], full, extended[:, :, -1], constant)

    def vectors(self, circuits: Circuits) -> Float[np.ndarray, "batch size"]:
        """The adjoint: coordinates of the part of the changes (with a leading axis) that is free."""
        parts = zip(self._blocks, self._free(circuits), strict=True)
        return np.concatenate([block.vectors(part) for block, part in parts], axis=1)

    def curvature(
        self, gradient: Circuits, vectors: Float[np.ndarray, "batch size"]
    ) -> Float[np.ndarray, "batch size"]:
        r"""What the Hessian of a function with this gradient has from the bend of the matrices of given rank, times v.

        To second order they move by $Z + U_\perp Z_{21}S^{-1}Z_{12}V_\perp^\top$, the blocks in the coordinates of Z.
        """
        slopes = self._free(Circuits(*(np.asarray(part)[None] for part in gradient)))
        terms = zip(self._blocks, slopes, self._parts(vectors), strict=True)
        return np.concatenate([block.curvature(slope[0], part) for block, slope, part in terms], axis=1)

    def _parts(self, vectors: Float[np.ndarray, "batch size"]) -> list[np.ndarray]:
        """The coordinates of every block."""
        return np.split(vectors, np.cumsum([block.size for block in self._blocks])[:-1], axis=1)

    def _free(self, circuits: Circuits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The free rows of the matrices of every block."""
        qk, ov, query_bias, offset = (np.asarray(part) for part in circuits)
        extended = np.concatenate([qk, query_bias[:, :, None, :]], axis=2)[:, :, self._rows]
        used = [block.left.shape[1] for block in self._blocks]
        return extended, ov[:, :, : used[1]], offset[:, None, None, :][:, :, : used[2]]


@dataclass(frozen=True, eq=False)
class _Block:
    """Matrices (heads, p, q) in rotated coordinates, of which those in `kept` are free; `inverse`: of S, 0 for 0."""

    left: Float[np.ndarray, "heads p p"]
    right: Float[np.ndarray, "heads q q"]
    kept: Bool[np.ndarray, "p q"]
    inverse: Float[np.ndarray, "heads r"]

    @property
    def size(self) -> int:
        return len(self.left) * int(self.kept.sum())

    def matrices(self, vectors: Float[np.ndarray, "batch size"]) -> Float[np.ndarray, "batch heads p q"]:
        return self.left @ self._unpacked(vectors) @ self.right.swapaxes(1, 2)

    def curvature(
        self, gradient: Float[np.ndarray, "heads p q"], vectors: Float[np.ndarray, "batch size"]
    ) -> Float[np.ndarray, "batch size"]:
        rank = self.inverse.shape[1]
        if not rank:
            return np.zeros_like(vectors)
        slope = self._rotate(gradient)[:, rank:, rank:]
        Z = self._unpacked(vectors)
        found = np.zeros_like(Z)
        found[:, :, rank:, :rank] = slope @ Z[:, :, :rank, rank:].swapaxes(2, 3) * self.inverse[:, None, :]
        found[:, :, :rank, rank:] = self.inverse[:, :, None] * (Z[:, :, rank:, :rank].swapaxes(2, 3) @ slope)
        return found[:, :, self.kept].reshape(vectors.shape)

    def _rotate(self, matrices: Float[np.ndarray, "*batch heads p q"]) -> Float[np.ndarray, "*batch heads p q"]:
        return self.left.swapaxes(1, 2) @ matrices @ self.right

    def _unpacked(self, vectors: Float[np.ndarray, "batch size"]) -> Float[np.ndarray, "batch heads p q"]:
        rotated = np.zeros((len(vectors), len(self.left), *self.kept.shape))
        rotated[:, :, self.kept] = vectors.reshape(len(vectors), len(self.left), int(self.kept.sum()))
        return rotated

    def vectors(self, matrices: Float[np.ndarray, "batch heads p q"]) -> Float[np.ndarray, "batch size"]:
        return self._rotate(matrices)[:, :, self.kept].reshape(len(matrices), self.size)


def _block(matrices: Float[np.ndarray, "heads p q"], rank: int | None) -> _Block:
    heads, p, q = matrices.shape
    if rank is None or rank >= min(p, q):
        left, right = (np.broadcast_to(np.eye(size), (heads, size, size)) for size in (p, q))
        return _Block(left, right, np.ones((p, q), bool), np.zeros((heads, 0)))
    left, values, right = np.linalg.svd(matrices)
    if (values[:, rank] > EXCESS * values[:, 0]).any():
        raise ValueError(f"head_dim={rank}, but a circuit has a higher rank; truncate the layer or give a larger one")
    kept = np.ones((p, q), bool)
    kept[rank:, rank:] = False
    values = values[:, :rank]
    inverse = np.divide(1, values, out=np.zeros_like(values), where=values > EXCESS * values[:, :1])
    return _Block(left, right.swapaxes(1, 2), kept, inverse)
