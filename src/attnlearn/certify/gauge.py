r"""Which changes of the parameters no sequence of given tokens can show, in closed form.

What is asked and seen of the tokens (`certify.support`) decides which part of $\tilde\Theta$ = [qk; query_bias] and
`ov` can matter; the rest is free for every normaliser. Of the visible part:

- Heads with the same attention weights, up to a factor, are seen through the weighted sum of their `ov`, and changes of
  their scores through $\sum_h \delta\tilde\Theta_h\,x x^\top W_h$: this vanishes for every token where
  $\sum_h \delta\tilde\Theta_h[a, \cdot] \odot W_h[\cdot, o] = 0$ (symmetric product) for all $a, o$. Softmax sees the
  covariance of tokens in the place of $x x^\top$.
- ReLU: a factor may move between scores and `ov` of a head. Linear: every invertible mix of heads, since only
  $\sum_h \tilde\Theta_h \otimes W_h$ is seen, and that up to the order of the two tokens that meet $x x^\top$.
- Few token types, and weights that each depend on their own score: `certify.token_types`.
"""

import numpy as np
from jaxtyping import Float

from attnlearn.certify.coordinates import Coordinates, Unknowns
from attnlearn.certify.families import Family, independent, zeros
from attnlearn.certify.support import Support
from attnlearn.certify.token_types import token_types
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.inputs import Inputs, as_inputs
from attnlearn.layers.slots import Slots, Symmetry

EQUAL_TOLERANCE = 1e-8  # relative distance of visible scores below which heads count as equal, as in `distance`
ZERO_TOLERANCE = 1e-9  # of the largest visible circuit: a smaller one counts as zero
NULL_TOLERANCE = 1e-12  # eigenvalues of a Gram matrix of trace 1 per head that count as zero


def gauge(
    layer: AttentionLayer, X: Float[np.ndarray, "n k d"] | Inputs, unknowns: Unknowns = Unknowns()
) -> tuple[tuple[Family, ...], str]:
    """The independent null directions of what is unknown, by name, and what the closed form lacks ("": nothing).

    Kinds without directions are left out. Holds for inputs in general position: enough sequences of tokens that fill
    their span or are few types; where weights sum to one, of three tokens or more, or of one (attention is then not
    seen at all), since two may hide more. Heads of `Linear` are taken as linearly independent, and no more than their
    circuits can keep apart. Where the closed form lacks something, only what the tokens do not touch is named.
    """
    inputs = as_inputs(X)
    support = Support.of(layer.slots, inputs)
    families, lacking = [_unseen_keys(layer, support), _unasked(layer, support)], ""
    if layer.slots.simplex:
        families += [_ov_constant(layer, support), *_simplex(layer, support)]
        if support.counts[-1] == 2 and support.types is not None:
            lacking = "rows see two of few token types only"
    else:
        families.append(_unseen_ov_rows(layer, support))
        lacking = _lacking(layer.slots, support, inputs)
        families += [] if lacking else _of_symmetry(layer, support)
    if not layer.slots.simplex or unknowns != Unknowns():  # else they are independent as they stand
        families = independent(tuple(families), layer, Coordinates(layer, unknowns))
    return tuple(family for family in families if family.dimension), lacking


def _lacking(slots: Slots, support: Support, inputs: Inputs) -> str:
    """What keeps the closed form of weights that depend on their own score from holding."""
    if slots.symmetry is None:
        name = getattr(slots.normaliser, "__name__", type(slots.normaliser).__name__)
        return f"the normaliser {name} does not say what its heads hide (`symmetry`)"
    if support.counts[-1] == 1:
        return "every row sees one token only"
    if support.types is not None and inputs.rows == "mean":
        return "of few token types only the mean over rows is read"
    return ""


def _simplex(layer: AttentionLayer, support: Support) -> list[Family]:
    families = []
    for heads, factors in _classes(layer, support):
        families.append(_ov_transfer(layer, support, heads, factors))
        families.append(_unseen_scores(layer, support, heads))
    return families


def _of_symmetry(layer: AttentionLayer, support: Support) -> list[Family]:
    """Where each weight depends on its own score and the number of visible tokens alone."""
    symmetry = layer.slots.symmetry
    if support.types is not None:
        return list(token_types(layer, support.types, support.counts))
    if symmetry is Symmetry.MIXING:
        every = tuple(range(layer.heads))
        return [_mixing(layer), _unseen_scores(layer, support, every), _unseen_ov(layer, support, every)]
    families = [_scale(layer)] if symmetry is Symmetry.SCALE else []
    for heads, factors in _classes(layer, support):
        silent = not factors.any()
        families.append(_unseen_ov(layer, support, heads) if silent else _ov_transfer(layer, support, heads, factors))
        families.append(_unseen_scores(layer, support, heads))
    return families


def _unseen_keys(layer: AttentionLayer, support: Support) -> Family:
    shape = (layer.heads, layer.width + 1, len(support.unseen))

    def element(coefficients):
        change = coefficients.reshape(shape) @ support.unseen
        return zeros(layer)._replace(qk=change[:, :-1], query_bias=change[:, -1])

    name, formula = "unseen keys", "qk[h] + u aᵀ, query_bias[h] + s a, where aᵀx is 0 for all tokens"
    if layer.slots.simplex:
        name, formula = "row shift", formula.replace("0 for all tokens", "the same for all tokens of a row")
    if layer.slots.simplex and support.counts[-1] == 1:
        name, formula = "one token", "qk and query_bias: a token seen alone has the attention weight 1"
    return Family(name, formula, tuple(range(layer.heads)), int(np.prod(shape)), element)


def _unasked(layer: AttentionLayer, support: Support) -> Family:
    shape = (layer.heads, len(support.unasked), len(support.keys))

    def element(coefficients):
        change = np.einsum("se,hsp,pd->hed", support.unasked, coefficients.reshape(shape), support.keys, optimize=True)
        return zeros(layer)._replace(qk=change[:, :-1], query_bias=change[:, -1])

    formula = "qk[h] + a wᵀ, query_bias[h] - (aᵀx) w, where aᵀx is the same for all tokens"
    return Family("query constant", formula, tuple(range(layer.heads)), int(np.prod(shape)), element)


def _unseen_ov_rows(layer: AttentionLayer, support: Support) -> Family:
    shape = (layer.heads, len(support.unseen), layer.width_out)

    def element(coefficients):
        return zeros(layer)._replace(ov=support.unseen.T @ coefficients.reshape(shape))

    formula = "ov[h] + a cᵀ, where aᵀx is 0 for all tokens"
    return Family("unseen ov rows", formula, tuple(range(layer.heads)), int(np.prod(shape)), element)


def _ov_constant(layer: AttentionLayer, support: Support) -> Family:
    """Weights sum to one: all heads write alike what is constant in a row, and the offset what is always so."""
    constants = support.means @ support.unseen.T
    size = np.linalg.norm(support.means) / np.sqrt(len(constants)) or 1.0
    columns = np.concatenate([constants / size, np.ones((len(constants), 1))], axis=1)
    _, values, rows = np.linalg.svd(np.linalg.qr(columns, mode="r"), full_matrices=True)
    null = rows[int(np.sum(values > ZERO_TOLERANCE * values[0])) :]
    directions, offsets = null[:, :-1] / size, null[:, -1]
    q, m = len(support.unseen), layer.heads
    cut = (m - 1) * q * layer.width_out

    def element(coefficients):
        moved = coefficients[:cut].reshape(m - 1, q, layer.width_out)
        both = coefficients[cut:].reshape(len(null), layer.width_out)
        values = np.concatenate([moved, (directions.T @ both - moved.sum(axis=0))[None]])
        return zeros(layer)._replace(ov=support.unseen.T @ values, offset=offsets @ both)

    formula = "ov[h] + a cᵀ, undone in ov[g], where aᵀx is the same for all tokens of a row; of all rows: in the offset"
    dimension = cut + len(null) * layer.width_out
    return Family("ov constant", formula, tuple(range(m)), dimension, element)


def _ov_transfer(layer: AttentionLayer, support: Support, heads: tuple[int, ...], factors: np.ndarray) -> Family:
    shape = (len(heads) - 1, len(support.keys), layer.width_out)

    def element(coefficients):
        change, moved = zeros(layer), support.keys.T @ coefficients.reshape(shape)
        change.ov[list(heads[1:])] = moved
        change.ov[heads[0]] = -np.einsum("h,hdo->do", factors[1:], moved)
        return change

    formula = "ov[h] + D, ov[g] - D: heads with the same attention weights are seen through the sum of their ov"
    return Family("equal heads", formula, heads, int(np.prod(shape)), element)


def _scale(layer: AttentionLayer) -> Family:
    def element(coefficients):
        c = coefficients[:, None, None]
        return zeros(layer)._replace(qk=c * layer.qk, query_bias=c[:, 0] * layer.query_bias, ov=-c * layer.ov)

    formula = "c qk[h], c query_bias[h], ov[h] / c for c > 0"
    return Family("scale", formula, tuple(range(layer.heads)), layer.heads, element)


def _mixing(layer: AttentionLayer) -> Family:
    def element(coefficients):
        mix = coefficients.reshape(layer.heads, layer.heads)
        qk, query_bias = np.einsum("hg,gde->hde", mix, layer.qk), mix @ layer.query_bias
        return zeros(layer)._replace(qk=qk, query_bias=query_bias, ov=-np.einsum("hg,hdo->gdo", mix, layer.ov))

    formula = "any invertible mix of the heads' qk and query_bias, undone in their ov"
    return Family("mixing", formula, tuple(range(layer.heads)), layer.heads**2, element)


def _unseen_scores(layer: AttentionLayer, support: Support, heads: tuple[int, ...]) -> Family:
    """Changes of the scores of heads that their `ov` hide: a zero head, or equal heads with parallel `ov`."""
    null = _symmetric_null((support.keys @ layer.ov)[list(heads)], _largest(support.keys @ layer.ov))
    formula = "qk[h] and query_bias[h] of heads whose ov is zero, or equal heads whose ov are parallel"
    return _scores(layer, support, (heads, null), ("unseen scores", formula))


def _scores(
    layer: AttentionLayer, support: Support, null: tuple[tuple[int, ...], np.ndarray], words: tuple[str, str]
) -> Family:
    """Changes [qk; query_bias][h] = (visible query) (null vector)_h, for every visible query and null vector."""
    heads, vectors = null
    shape = (len(support.asked), len(vectors))

    def element(coefficients):
        change, weights = zeros(layer), coefficients.reshape(shape)
        scores = np.einsum("ae,av,vhp,pd->hed", support.asked, weights, vectors, support.keys, optimize=True)
        change.qk[list(heads)], change.query_bias[list(heads)] = scores[:, :-1], scores[:, -1]
        return change

    return Family(*words, heads, int(np.prod(shape)), element)


def _unseen_ov(layer: AttentionLayer, support: Support, heads: tuple[int, ...]) -> Family:
    """Changes of the `ov` of heads that their scores hide: heads that pay no attention, or dependent scores."""
    visible = _visible(layer, support)
    null = _symmetric_null(np.swapaxes(visible, 1, 2)[list(heads)], _largest(visible))
    shape = (len(null), layer.width_out)

    def element(coefficients):
        change = zeros(layer)
        moved = np.einsum("vo,vhp,pd->hdo", coefficients.reshape(shape), null, support.keys, optimize=True)
        change.ov[list(heads)] = moved
        return change

    formula = "ov[h] of heads whose scores are zero, or cancel against those of others"
    return Family("unseen ov", formula, heads, int(np.prod(shape)), element)


def _symmetric_null(circuits: Float[np.ndarray, "heads p o"], largest: float) -> Float[np.ndarray, "null heads p"]:
    r"""Vectors $u_h$ with $\sum_h u_h \odot V_h[\cdot, o] = 0$ (symmetric product) for every column o."""
    m, p, _ = circuits.shape
    norms = np.linalg.norm(circuits, axis=(1, 2))
    scale = np.where(norms > ZERO_TOLERANCE * max(largest, np.finfo(float).tiny), norms, np.inf)
    if m == 1 and np.isfinite(scale[0]):
        return np.zeros((0, 1, p))  # the Gram matrix below is at least half the identity
    values = circuits / scale[:, None, None]
    inner = np.einsum("hio,gio->hg", values, values)
    gram = np.einsum("hg,ij->higj", inner, np.eye(p)) + np.einsum("gio,hjo->higj", values, values)
    spectrum, vectors = np.linalg.eigh(gram.reshape(m * p, m * p) / 2)
    null = vectors[:, spectrum < NULL_TOLERANCE].T
    return null.reshape(len(null), m, p) / np.where(np.isfinite(scale), scale, 1.0)[:, None]


def _visible(layer: AttentionLayer, support: Support) -> Float[np.ndarray, "heads r p"]:
    """The scores of the layer, between the bases of what is asked and seen."""
    circuits = np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)
    return support.asked @ circuits @ support.keys.T


def _largest(circuits: Float[np.ndarray, "heads p o"]) -> float:
    return float(np.linalg.norm(circuits, axis=(1, 2)).max(initial=0.0))


def _classes(layer: AttentionLayer, support: Support) -> list[tuple[tuple[int, ...], Float[np.ndarray, " heads"]]]:
    """Heads with equal weights up to a factor, each with its factor to the first of the class; 0 if it has no weights.

    The order is that of their first heads.
    """
    visible = _visible(layer, support)
    zero = np.linalg.norm(visible, axis=(1, 2)) <= ZERO_TOLERANCE * _largest(visible)
    silent = zero & (layer.slots.symmetry in (Symmetry.SIGN, Symmetry.SCALE))
    visible[zero] = 0.0
    classes: list[tuple[list[int], list[float]]] = []
    for h, scores in enumerate(visible):
        for members, factors in classes:
            factor = _factor(scores, visible[members[0]], layer.slots.symmetry)
            if factor is not None:
                members.append(h)
                factors.append(0.0 if silent[h] else factor)
                break
        else:
            classes.append(([h], [0.0 if silent[h] else 1.0]))
    return [(tuple(members), np.array(factors)) for members, factors in classes]


def _factor(
    scores: Float[np.ndarray, "r p"], first: Float[np.ndarray, "r p"], symmetry: Symmetry | None
) -> float | None:
    """What takes the weights of the `first` scores to those of `scores`; `None` where nothing does."""
    norm, other = np.linalg.norm(scores), np.linalg.norm(first)
    candidates = (1.0, -1.0) if symmetry is Symmetry.SIGN else (1.0,)
    if symmetry is Symmetry.SCALE and norm and other:
        candidates = (norm / other,)
    for factor in candidates:
        if np.linalg.norm(scores - factor * first) <= EQUAL_TOLERANCE * max(norm, abs(factor) * other):
            return float(factor)
    return None
