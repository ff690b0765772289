"""Null directions of one kind, by name, and the independent ones among several kinds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.certify.coordinates import Coordinates
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.products import Circuits

INDEPENDENT_TOLERANCE = 1e-8  # sine of an angle between null directions below which they count as one


class Family(NamedTuple):
    """Null directions of one kind: `element` takes as many coefficients as there are directions, linearly."""

    name: str
    formula: str
    heads: tuple[int, ...]
    dimension: int
    element: Callable[[Float[np.ndarray, " dimension"]], Circuits]


def zeros(layer: AttentionLayer) -> Circuits:
    """No change of any parameter."""
    return Circuits(*(np.zeros_like(part) for part in (layer.qk, layer.ov, layer.query_bias, layer.offset)))


def flat(circuits: Circuits) -> Float[np.ndarray, " parameters"]:
    """All parameters in one row."""
    return np.concatenate([np.ravel(part) for part in circuits])


def basis(family: Family) -> Float[np.ndarray, "dimension parameters"]:
    """The directions of a family, one a row."""
    return np.stack([flat(family.element(one)) for one in np.eye(family.dimension)])


def independent(families: tuple[Family, ...], layer: AttentionLayer, coordinates: Coordinates) -> tuple[Family, ...]:
    """The families, each with what it adds to those before it, of changes of what is unknown alone.

    A direction that changes what is known may still stand, put together with directions of earlier families that undo
    this. Cost: a decomposition of a (directions, parameters) matrix for each family.
    """
    rows = known = np.zeros((0, sum(part.size for part in zeros(layer))))
    found = []
    for family in families:
        if not family.dimension:
            continue
        rows = np.concatenate([rows, _of_length_one(basis(family))])
        vectors = coordinates.vectors(_stack(rows, layer))
        inside = _flat_each(coordinates.circuits(vectors))
        allowed = _null(rows - inside) @ rows
        new = _orthonormal(allowed - (allowed @ known.T) @ known)
        known = np.concatenate([known, new])
        found.append(family._replace(dimension=len(new), element=lambda c, new=new: _one(_stack(c[None] @ new, layer))))
    return tuple(family for family in found if family.dimension)


def _stack(rows: Float[np.ndarray, "n parameters"], layer: AttentionLayer) -> Circuits:
    """Rows of parameters as circuits with a leading axis."""
    shapes = [part.shape for part in zeros(layer)]
    parts = np.split(rows, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1], axis=1)
    return Circuits(*(part.reshape(len(rows), *shape) for part, shape in zip(parts, shapes, strict=True)))


def _flat_each(circuits: Circuits) -> Float[np.ndarray, "n parameters"]:
    return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in circuits], axis=1)


def _one(circuits: Circuits) -> Circuits:
    return Circuits(*(part[0] for part in circuits))


def _of_length_one(rows: Float[np.ndarray, "n parameters"]) -> Float[np.ndarray, "m parameters"]:
    """The rows that are not zero, divided by their lengths."""
    lengths = np.linalg.norm(rows, axis=1)
    kept = lengths > 0
    return rows[kept] / lengths[kept, None]


def _orthonormal(rows: Float[np.ndarray, "n parameters"]) -> Float[np.ndarray, "rank parameters"]:
    """An orthonormal basis of the span of `rows`, which are of length one or rounding."""
    _, values, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[values > INDEPENDENT_TOLERANCE]


def _null(rows: Float[np.ndarray, "n frozen"]) -> Float[np.ndarray, "z n"]:
    """Orthonormal coefficients that make `rows` sum to zero."""
    left, values, _ = np.linalg.svd(rows, full_matrices=True)
    return left[:, int(np.sum(values > INDEPENDENT_TOLERANCE)) :].T
