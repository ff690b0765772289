r"""Which changes of the parameters no sequence of given tokens can show, in closed form, for weights that sum to one.

What tokens can show is decided by their affine hull. Let $P$ (p, d) span the differences of tokens and $N$ (d-p, d) be
its complement; every token has the same $\alpha = Nx$. A score matters up to a constant in its row, so of
$\tilde\Theta$ = [qk; query_bias] only queries in the span of [x, 1] against keys in the span of $P$ are seen; of `ov`
only $P$ `ov`, because the constant part cannot be told from the offset.

Heads with the same visible scores form a class. Their `ov` are seen through the sum alone, and changes of their scores
through $\sum_h \delta\tilde\Theta_h\,\mathrm{Cov}(x)\,W_h$ with a symmetric covariance: this vanishes for every
covariance where $\sum_h \delta\tilde\Theta_h[a, \cdot] \odot W_h[\cdot, o] = 0$ (symmetric product) for all $a, o$.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.products import Circuits

HULL_TOLERANCE = 1e-10  # of the largest singular value of the centred tokens: what is smaller is rounding
EQUAL_TOLERANCE = 1e-8  # relative distance of visible scores below which heads count as equal, as in `distance`
ZERO_TOLERANCE = 1e-9  # of the largest visible `ov`: a smaller one counts as zero
NULL_TOLERANCE = 1e-12  # eigenvalues of a Gram matrix of trace 1 per head that count as zero


class Family(NamedTuple):
    """Null directions of one kind: `element` takes as many coefficients as there are directions, linearly."""

    name: str
    formula: str
    heads: tuple[int, ...]
    dimension: int
    element: Callable[[Float[np.ndarray, " dimension"]], Circuits]


@dataclass(frozen=True)
class Hull:
    """The affine hull of tokens: `differences` (p, d), its complement `constant` (d - p, d), a `point` (d,) in it."""

    differences: Float[np.ndarray, "p d"]
    constant: Float[np.ndarray, "q d"]
    point: Float[np.ndarray, " d"]

    @classmethod
    def of(cls, X: Float[np.ndarray, "n k d"]) -> "Hull":
        """The hull of all tokens of `X`."""
        tokens = X.reshape(-1, X.shape[-1])
        point = tokens.mean(axis=0)
        _, values, rows = np.linalg.svd(tokens - point, full_matrices=len(tokens) < X.shape[-1])
        p = int(np.sum(values > HULL_TOLERANCE * max(values[0], np.abs(point).max())))
        return cls(rows[:p], rows[p:], point)

    @property
    def queries(self) -> Float[np.ndarray, "p_plus_1 d_plus_1"]:
        """A basis of the span of [x, 1]."""
        differences = np.pad(self.differences, ((0, 0), (0, 1)))
        return np.concatenate([differences, np.append(self.point, 1.0)[None]])


def gauge(layer: AttentionLayer, X: Float[np.ndarray, "n k d"]) -> tuple[Family, ...]:
    """The independent null directions at `layer` on sequences of the tokens of `X`, by name; empty kinds left out.

    Holds for sequences of one token (attention is then not seen at all) and of three or more in general position;
    two-token sequences may hide more.
    """
    hull = Hull.of(X)
    classes = _classes(layer, hull) if X.shape[1] > 1 else [tuple(range(layer.heads))]
    families = [_row_shift(layer, hull), _query_constant(layer, hull), _ov_constant(layer, hull)]
    for heads in (heads for heads in classes if heads):
        families.append(_ov_transfer(layer, hull, heads))
        families.append(_unseen_scores(layer, hull, heads) if X.shape[1] > 1 else _all_scores(layer, hull, heads))
    return tuple(family for family in families if family.dimension)


def _zeros(layer: AttentionLayer) -> Circuits:
    return Circuits(*(np.zeros_like(part) for part in (layer.qk, layer.ov, layer.query_bias, layer.offset)))


def _row_shift(layer: AttentionLayer, hull: Hull) -> Family:
    shape = (layer.heads, layer.width + 1, len(hull.constant))

    def element(coefficients):
        change = coefficients.reshape(shape) @ hull.constant
        return _zeros(layer)._replace(qk=change[:, :-1], query_bias=change[:, -1])

    formula = "qk[h] + u aᵀ, query_bias[h] + s a, where aᵀx is the same for all tokens"
    return Family("row shift", formula, tuple(range(layer.heads)), int(np.prod(shape)), element)


def _query_constant(layer: AttentionLayer, hull: Hull) -> Family:
    shape = (layer.heads, len(hull.constant), len(hull.differences))

    def element(coefficients):
        keys = coefficients.reshape(shape) @ hull.differences
        return _zeros(layer)._replace(qk=hull.constant.T @ keys, query_bias=-(hull.constant @ hull.point) @ keys)

    formula = "qk[h] + a wᵀ, query_bias[h] - (aᵀx) w, where aᵀx is the same for all tokens"
    return Family("query constant", formula, tuple(range(layer.heads)), int(np.prod(shape)), element)


def _ov_constant(layer: AttentionLayer, hull: Hull) -> Family:
    shape = (layer.heads, len(hull.constant), layer.width_out)

    def element(coefficients):
        values = coefficients.reshape(shape)
        offset = -(hull.constant @ hull.point) @ values.sum(axis=0)
        return _zeros(layer)._replace(ov=hull.constant.T @ values, offset=offset)

    formula = "ov[h] + a cᵀ, offset - (aᵀx) c, where aᵀx is the same for all tokens"
    return Family("ov constant", formula, tuple(range(layer.heads)), int(np.prod(shape)), element)


def _ov_transfer(layer: AttentionLayer, hull: Hull, heads: tuple[int, ...]) -> Family:
    shape = (len(heads) - 1, len(hull.differences), layer.width_out)

    def element(coefficients):
        zeros, moved = _zeros(layer), hull.differences.T @ coefficients.reshape(shape)
        zeros.ov[list(heads[1:])] = moved
        zeros.ov[heads[0]] = -moved.sum(axis=0)
        return zeros

    formula = "ov[h] + D, ov[g] - D: heads with the same attention weights are seen through the sum of their ov"
    return Family("equal heads", formula, heads, int(np.prod(shape)), element)


def _unseen_scores(layer: AttentionLayer, hull: Hull, heads: tuple[int, ...]) -> Family:
    """Changes of the scores of a class that its `ov` hide: a zero head, or equal heads with parallel `ov`."""
    p = len(hull.differences)
    visible = hull.differences @ layer.ov
    norms = np.linalg.norm(visible, axis=(1, 2))
    scale = np.where(norms > ZERO_TOLERANCE * max(norms.max(), np.finfo(float).tiny), norms, np.inf)[list(heads)]
    if len(heads) == 1 and np.isfinite(scale[0]):
        null = np.zeros((0, 1, p))  # the Gram matrix below is at least half the identity
    else:
        values = visible[list(heads)] / scale[:, None, None]
        inner = np.einsum("hio,gio->hg", values, values)
        gram = np.einsum("hg,ij->higj", inner, np.eye(p)) + np.einsum("gio,hjo->higj", values, values)
        spectrum, vectors = np.linalg.eigh(gram.reshape(len(heads) * p, len(heads) * p) / 2)
        null = vectors[:, spectrum < NULL_TOLERANCE].T
        null = null.reshape(len(null), len(heads), p)
        null = null / np.where(np.isfinite(scale), scale, 1.0)[:, None]
    formula = "qk[h] and query_bias[h] of heads whose ov is zero, or equal heads whose ov are parallel"
    return _scores(layer, hull, (heads, null), ("unseen scores", formula))


def _all_scores(layer: AttentionLayer, hull: Hull, heads: tuple[int, ...]) -> Family:
    p = len(hull.differences)
    null = np.eye(len(heads) * p).reshape(len(heads) * p, len(heads), p)
    formula = "qk and query_bias: a sequence of one token has the attention weight 1"
    return _scores(layer, hull, (heads, null), ("one token", formula))


def _scores(
    layer: AttentionLayer, hull: Hull, null: tuple[tuple[int, ...], np.ndarray], words: tuple[str, str]
) -> Family:
    """Changes [qk; query_bias][h] = (visible query) (null vector)_h, for every visible query and null vector."""
    heads, vectors = null
    shape = (len(hull.queries), len(vectors))

    def element(coefficients):
        zeros, weights = _zeros(layer), coefficients.reshape(shape)
        change = np.einsum("ae,av,vhp,pd->hed", hull.queries, weights, vectors, hull.differences, optimize=True)
        zeros.qk[list(heads)], zeros.query_bias[list(heads)] = change[:, :-1], change[:, -1]
        return zeros

    return Family(*words, heads, int(np.prod(shape)), element)


def _classes(layer: AttentionLayer, hull: Hull) -> list[tuple[int, ...]]:
    """Heads with equal visible scores, in the order of their first heads."""
    circuits = np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)
    visible = hull.queries @ circuits @ hull.differences.T
    norms = np.linalg.norm(visible, axis=(1, 2))
    classes: list[list[int]] = []
    for h in range(layer.heads):
        for members in classes:
            g = members[0]
            if np.linalg.norm(visible[h] - visible[g]) <= EQUAL_TOLERANCE * max(norms[h], norms[g]):
                members.append(h)
                break
        else:
            classes.append([h])
    return [tuple(members) for members in classes]
