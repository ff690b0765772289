r"""Heads as arrays: scores $[\Theta_i; \beta_i^\top]$ and values $W_i$, merged, scaled, made orthogonal and ordered."""

import numpy as np
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Symmetry

EQUAL_RTOL = 1e-8  # heads whose (Theta, beta) differ by less, relative to the larger norm, are one head
ZERO_RTOL = 1e-12  # circuits smaller than this, relative to the largest of the layer, are zero


def extended(layer: AttentionLayer) -> Float[np.ndarray, "heads d_plus_1 d"]:
    r"""$[\Theta_i; \beta_i^\top]$: everything that a head's scores depend on."""
    return np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)


def without_biases(
    extended: Float[np.ndarray, "heads d_plus_1 d"], direction: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "heads d_plus_1 d"]:
    r"""The same scores with $\beta_i = 0$."""
    qk = extended[:, :-1] + direction[:, None] * extended[:, -1:, :]
    return np.concatenate([qk, np.zeros_like(extended[:, -1:])], axis=1)


def without_constants(
    extended: Float[np.ndarray, "heads d_plus_1 d"],
    ov: Float[np.ndarray, "heads d d_out"],
    offset: Float[np.ndarray, " d_out"],
    direction: Float[np.ndarray, " d"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The same function with $\Theta_i a = 0$ and $W_i^\top a = 0$; all constants in the offset."""
    unit = direction / (direction @ direction)
    constants = np.einsum("mde,d->me", ov, unit)
    extended = extended - (extended @ unit)[:, :, None] * direction
    return extended, ov - direction[:, None] * constants[:, None, :], offset + constants.sum(axis=0)


def representative(
    extended: Float[np.ndarray, "heads d_plus_1 d"], ov: Float[np.ndarray, "heads d d_out"], symmetry: Symmetry
) -> tuple[np.ndarray, np.ndarray]:
    """Each head with the sign or scale at which equal weights are equal scores."""
    factors = np.ones(len(ov))
    if symmetry is Symmetry.SIGN:
        factors = np.where(_marks(extended) < 0, -1.0, 1.0)
    if symmetry is Symmetry.SCALE:
        factors = 1 / np.where(norms(extended) > 0, norms(extended), 1.0)
    return extended * factors[:, None, None], ov / factors[:, None, None]


def merged(
    extended: Float[np.ndarray, "heads d_plus_1 d"], ov: Float[np.ndarray, "heads d d_out"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heads with equal scores made one, and the largest member of each."""
    sizes, groups = norms(ov), _equal_heads(extended)
    origin = np.array([max(members, key=lambda head: sizes[head]) for members in groups], int)
    merged = np.array([ov[members].sum(axis=0) for members in groups]).reshape(-1, *ov.shape[1:])
    return extended[origin], merged, origin


def balanced(
    extended: Float[np.ndarray, "heads d_plus_1 d"], ov: Float[np.ndarray, "heads d d_out"]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and values of each head scaled to one norm; neither is zero."""
    factors = np.sqrt(norms(ov) / norms(extended))[:, None, None]
    return extended * factors, ov / factors


def orthogonal(
    extended: Float[np.ndarray, "heads d_plus_1 d"], ov: Float[np.ndarray, "heads d d_out"]
) -> tuple[np.ndarray, np.ndarray]:
    """Heads with the same sum of (scores) ⊗ (values), orthogonal in both, of equal norms, as few as there can be."""
    left, left_triangle = np.linalg.qr(extended.reshape(len(ov), -1).T)
    right, right_triangle = np.linalg.qr(ov.reshape(len(ov), -1).T)
    u, values, v = np.linalg.svd(left_triangle @ right_triangle.T, full_matrices=False)
    kept = values > ZERO_RTOL * values.max(initial=0.0)
    size = np.sqrt(values[kept])[:, None]
    extended = (size * (left @ u[:, kept]).T).reshape(-1, *extended.shape[1:])
    ov = (size * (v[kept] @ right.T)).reshape(-1, *ov.shape[1:])
    return representative(extended, ov, Symmetry.SIGN)


def _equal_heads(extended: Float[np.ndarray, "heads rows d"]) -> list[list[int]]:
    """Groups of heads whose maps are equal to `EQUAL_RTOL`, each group and the list ascending."""
    sizes = norms(extended)
    limits = EQUAL_RTOL * np.maximum.outer(sizes, sizes)
    equal = np.array([norms(extended - one) for one in extended]).reshape(limits.shape) <= limits
    count, labels = connected_components(equal, directed=False)
    return [np.flatnonzero(labels == label).tolist() for label in range(count)]


def order(extended: Float[np.ndarray, "heads rows d"], ov: Float[np.ndarray, "heads d d_out"]) -> np.ndarray:
    """Heads by descending norm of `ov`; ties by norm, then by a fixed linear function, of the QK circuit.

    Figures are rounded to nine digits, so that rounding errors make no order.
    """
    figures = norms(ov), norms(extended), _marks(extended)
    keys = [-np.round(figure / max(np.abs(figure).max(initial=0.0), 1e-300), 9) for figure in figures]
    return np.lexsort(keys[::-1])


def _marks(extended: Float[np.ndarray, "heads rows d"]) -> Float[np.ndarray, " heads"]:
    """A fixed linear function of each head's scores."""
    _, rows, d = extended.shape
    return np.einsum("hrd,rd->h", extended, np.cos(np.arange(1, 1 + rows * d)).reshape(rows, d))


def norms(maps: Float[np.ndarray, "heads rows columns"]) -> Float[np.ndarray, " heads"]:
    return np.linalg.norm(maps, axis=(1, 2))
