r"""What a softmax layer's function leaves undetermined, and one representative of all layers that agree.

On any tokens: the order of heads; heads with equal $(\Theta, \beta)$, of which only the sum of $W$ is seen; heads
with $W = 0$. On tokens with a constant direction $a$, $a^\top x = 1$ (one-hot tokens: $a = 1$), moreover

$$\Theta_i + u_i a^\top, \qquad \beta_i + s_i a, \qquad (\Theta_i + a\delta_i^\top,\ \beta_i - \delta_i), \qquad
  (W_i + a c_i^\top,\ c - \textstyle\sum_i c_i)$$

for free $u_i, \delta_i \in R^d$, $s_i \in R$, $c_i \in R^{d_{out}}$: the first two add a constant to a row of scores,
the others write a constant as $a^\top x$. The second is a combination of the first and the third.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Slots, Softmax
from attnlearn.layers.weights import as_float64

EQUAL_RTOL = 1e-8  # heads whose (Theta, beta) differ by less, relative to the larger norm, are one head
ZERO_RTOL = 1e-12  # circuits smaller than this, relative to the largest of the layer, are zero
CONSTANT_ATOL = 1e-10  # largest |a^T x - 1| for which a is a constant direction


class Canonical(NamedTuple):
    """A canonical layer; its head `h` was head `origin[h]` of the layer it came from (the largest, where merged)."""

    layer: AttentionLayer
    origin: tuple[int, ...]


def canonical(layer: AttentionLayer, X: Any = None) -> AttentionLayer:
    r"""One representative of all softmax layers with the same function; on tokens `X`, where they are given.

    Heads with equal $(\Theta, \beta)$ merge, heads with $W = 0$ vanish, the rest stand by descending $\|W\|_F$.
    Where the tokens `X` (..., d) have a constant direction $a$, biases are written into the circuits and the rest of
    the freedom is removed: $\beta = 0$, $c = 0$, $\Theta_i a = 0$, and all $W_i^\top a$ are equal:

    $$\Theta_i \leftarrow (\Theta_i + a\beta_i^\top)(I - aa^\top/|a|^2), \qquad
      W_i \leftarrow W_i - a\Big(w_i - \tfrac1m\big(c + \textstyle\sum_j w_j\big)\Big)^\top, \quad
      w_i = W_i^\top a/|a|^2.$$

    A head with $W_i = a w_i^\top$ vanishes too; if none is left, the constant stays in $c$. The tokens must span
    all $d$ dimensions.

    **Guarantee.** Certain: the function is unchanged and a second application changes nothing, up to rounding and
    the tolerances of this file. On generic tokens two layers with the same function on sequences of every length have
    the same form: the answer to $n$ copies of one token and $l$ of another is rational in $n/l$, its poles tell the
    scores of the distinct heads and its residues their values [@kim2026]. Cost: $m^2 d^2$.
    Raises `ValueError` for a normaliser other than softmax, whose symmetries are others, and for tokens that do not
    span all dimensions.
    """
    return canonical_with_origin(layer, constant_direction(X, layer.width)).layer


def canonical_with_origin(layer: AttentionLayer, direction: Float[np.ndarray, " d"] | None) -> Canonical:
    """The canonical form on tokens with this constant direction (`None`: generic tokens), and where heads came from."""
    _require_softmax(layer.slots)
    largest = _norms(layer.ov).max(initial=0.0)
    extended, ov, offset = _extended(layer), layer.ov, layer.offset
    if direction is not None:
        extended, ov, offset = _without_constants(extended, ov, offset, direction)
    extended[_norms(extended) <= ZERO_RTOL * _norms(_extended(layer)).max(initial=0.0)] = 0.0
    sizes = _norms(ov)
    groups = _equal_heads(extended)
    origin = np.array([max(members, key=lambda head: sizes[head]) for members in groups], int)
    ov = np.array([ov[members].sum(axis=0) for members in groups]).reshape(-1, *ov.shape[1:])
    kept = _norms(ov) > ZERO_RTOL * largest
    ov, origin = ov[kept], origin[kept]
    if direction is not None and len(ov):
        ov = ov + direction[:, None] * (offset / len(ov))
        offset = np.zeros_like(offset)
    order = _order(extended[origin], ov)
    origin = origin[order]
    result = AttentionLayer(extended[origin, :-1], ov[order], extended[origin, -1], offset, layer.slots)
    return Canonical(result, tuple(origin.tolist()))


def _extended(layer: AttentionLayer) -> Float[np.ndarray, "heads d_plus_1 d"]:
    r"""$[\Theta_i; \beta_i^\top]$: everything that a head's scores depend on."""
    return np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)


def _without_constants(
    extended: Float[np.ndarray, "heads d_plus_1 d"],
    ov: Float[np.ndarray, "heads d d_out"],
    offset: Float[np.ndarray, " d_out"],
    direction: Float[np.ndarray, " d"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The same function with $\beta_i = 0$, $\Theta_i a = 0$ and $W_i^\top a = 0$; all constants in the offset."""
    unit = direction / (direction @ direction)
    qk = extended[:, :-1] + direction[:, None] * extended[:, -1:, :]
    qk = qk - (qk @ unit)[:, :, None] * direction
    constants = np.einsum("mde,d->me", ov, unit)
    extended = np.concatenate([qk, np.zeros_like(extended[:, -1:])], axis=1)
    return extended, ov - direction[:, None] * constants[:, None, :], offset + constants.sum(axis=0)


def constant_direction(X: Any, width: int) -> Float[np.ndarray, " d"] | None:
    r"""The $a$ with $a^\top x = 1$ for all tokens of `X` (..., d), by least squares; `None` where there is none.

    Residual at most `CONSTANT_ATOL` per token. Raises `ValueError` for tokens that do not span all d dimensions: they
    have more freedom than is known here, and too few tokens always have such an $a$.
    """
    if X is None:
        return None
    tokens = as_float64("X", X)
    if tokens.ndim < 2 or tokens.shape[-1] != width or tokens.size == 0:
        raise ValueError(f"X has shape {tokens.shape}, wanted (..., {width}) with at least one token")
    tokens = tokens.reshape(-1, width)
    direction, _, rank, _ = np.linalg.lstsq(tokens, np.ones(len(tokens)), rcond=None)
    if rank < width:
        raise ValueError(
            f"the {len(tokens)} tokens of X span {rank} of {width} dimensions; all are wanted: give more tokens, "
            "or leave X out for what holds on generic tokens"
        )
    return direction if np.abs(tokens @ direction - 1).max() < CONSTANT_ATOL else None


def gauge_dimension(layer: AttentionLayer, X: Any = None, query_bias: bool = True, offset: bool = True) -> int:
    r"""Dimension of the continuous freedom of a softmax layer with distinct heads and non-zero $W_i$, in closed form.

    0 on generic tokens. On tokens `X` with a constant direction $md + (m-1)d_{out}$ where only the circuits are
    parameters; $md$ more where the query biases are, since $\Theta_i$ absorbs them; $d_{out}$ more where the offset is.
    Assumes sequences of at least three tokens, which span all $d$ dimensions (else `ValueError`). The order of heads
    comes on top; it is discrete.
    """
    _require_softmax(layer.slots)
    if constant_direction(X, layer.width) is None:
        return 0
    m, d, d_out = layer.ov.shape
    return m * d + (m - 1) * d_out + m * d * query_bias + d_out * offset


def random_gauge(
    layer: AttentionLayer, key: np.random.Generator, direction: Float[np.ndarray, " d"] | None = None
) -> AttentionLayer:
    """A random layer with the same function: one head split in two, a zero head added, all heads shuffled.

    With a constant `direction` of the tokens, row shifts, and biases moved between circuits and bias terms.
    """
    _require_softmax(layer.slots)
    m, d, d_out = layer.ov.shape
    origin = np.append(np.arange(m), [key.integers(m), key.integers(m)])  # the last head gets W = 0
    share = np.ones(m + 2)
    share[m] = key.uniform(0.2, 0.8)
    share[origin[m]] = 1 - share[m]
    share[m + 1] = 0.0
    qk, query_bias, ov = layer.qk[origin], layer.query_bias[origin], layer.ov[origin] * share[:, None, None]
    qk[-1] = key.standard_normal((d, d))
    offset = layer.offset
    if direction is not None:
        rows, moved = key.standard_normal((2, m + 2, d))
        constants = key.standard_normal((m + 2, d_out))
        qk = qk + rows[:, :, None] * direction + direction[:, None] * moved[:, None, :]
        query_bias = query_bias - moved + key.standard_normal((m + 2, 1)) * direction
        ov = ov + direction[:, None] * constants[:, None, :]
        offset = offset - constants.sum(axis=0)
    order = key.permutation(m + 2)
    return AttentionLayer(qk[order], ov[order], query_bias[order], offset, layer.slots)


def _require_softmax(slots: Slots) -> None:
    if not isinstance(slots.normaliser, Softmax):
        raise ValueError(
            f"the symmetries of the normaliser {type(slots.normaliser).__name__} are not known here, only of Softmax"
        )


def _equal_heads(extended: Float[np.ndarray, "heads rows d"]) -> list[list[int]]:
    """Groups of heads whose maps are equal to `EQUAL_RTOL`, each group and the list ascending."""
    norms = _norms(extended)
    limits = EQUAL_RTOL * np.maximum.outer(norms, norms)
    equal = np.array([_norms(extended - one) for one in extended]).reshape(limits.shape) <= limits
    count, labels = connected_components(equal, directed=False)
    return [np.flatnonzero(labels == label).tolist() for label in range(count)]


def _order(extended: Float[np.ndarray, "heads rows d"], ov: Float[np.ndarray, "heads d d_out"]) -> np.ndarray:
    """Heads by descending norm of `ov`; ties by norm, then by a fixed linear function, of the QK circuit.

    Figures are rounded to nine digits, so that rounding errors make no order.
    """
    mark = np.cos(np.arange(1, 1 + extended[0].size)).reshape(extended[0].shape) if len(extended) else 0.0
    figures = _norms(ov), _norms(extended), (extended * mark).sum(axis=(1, 2))
    keys = [-np.round(figure / max(np.abs(figure).max(initial=0.0), 1e-300), 9) for figure in figures]
    return np.lexsort(keys[::-1])


def _norms(maps: Float[np.ndarray, "heads rows columns"]) -> Float[np.ndarray, " heads"]:
    return np.linalg.norm(maps, axis=(1, 2))
