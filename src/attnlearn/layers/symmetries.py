r"""What a layer's function leaves undetermined, and one representative of all layers that agree.

On any tokens: the order of heads; heads with equal $(\Theta, \beta)$, of which only the sum of $W$ is seen; heads
with $W = 0$; and what the normaliser hides (`Symmetry`): a sign (erf), a scale (ReLU) or a mix of all heads (linear).
On tokens with a constant direction $a$, $a^\top x = 1$ (a constant coordinate $i$: $a = e_i$), moreover

$$(\Theta_i + a\delta_i^\top,\ \beta_i - \delta_i)$$

for free $\delta_i \in R^d$, and where weights sum to one and ignore a constant in a row of scores

$$\Theta_i + u_i a^\top, \qquad \beta_i + s_i a, \qquad (W_i + a c_i^\top,\ c - \textstyle\sum_i c_i)$$

for free $u_i \in R^d$, $s_i \in R$, $c_i \in R^{d_{out}}$.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.layers import heads
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.heads import ZERO_RTOL
from attnlearn.layers.slots import Slots, Symmetry
from attnlearn.layers.weights import as_float64

CONSTANT_ATOL = 1e-10  # largest |a^T x - 1| for which a is a constant direction


class Canonical(NamedTuple):
    """A canonical layer; its head `h` was head `origin[h]` of the layer it came from (the largest, where merged)."""

    layer: AttentionLayer
    origin: tuple[int, ...]


def canonical(layer: AttentionLayer, X: Any = None) -> AttentionLayer:
    r"""One representative of all layers with the same function; on tokens `X`, where they are given.

    Heads with equal $(\Theta, \beta)$ merge, heads with $W = 0$ vanish, the rest stand by descending $\|W\|_F$.
    Erf: of $\pm(\Theta, \beta, W)$ the one with positive $\sum_n \cos(n)\,[\Theta; \beta^\top]_n$, entries by rows.
    ReLU: $\|[\Theta; \beta^\top]\| = \|W\|$. Both: heads with $\Theta = 0$, $\beta = 0$ vanish too. Linear: the
    singular value decomposition of $\sum_i \mathrm{vec}[\Theta_i; \beta_i^\top]\,\mathrm{vec}(W_i)^\top$, one head a
    singular value: orthogonal heads, and no layer with this sum has fewer.

    Where the tokens `X` (..., d) have a constant direction $a$, query biases are written into the circuits,
    $\Theta_i \leftarrow \Theta_i + a\beta_i^\top$, and for softmax the rest of the freedom is removed: $\beta = 0$,
    $c = 0$, $\Theta_i a = 0$, and all $W_i^\top a$ are equal:

    $$\Theta_i \leftarrow (\Theta_i + a\beta_i^\top)(I - aa^\top/|a|^2), \qquad
      W_i \leftarrow W_i - a\Big(w_i - \tfrac1m\big(c + \textstyle\sum_j w_j\big)\Big)^\top, \quad
      w_i = W_i^\top a/|a|^2.$$

    A head with $W_i = a w_i^\top$ vanishes too; if none is left, the constant stays in $c$. The tokens must span
    all $d$ dimensions.

    **Guarantee.** Certain: the function is unchanged and a second application changes nothing, up to rounding and
    the tolerances of `layers.heads`. Softmax: on generic tokens two layers with the same function on sequences of every
    length have the same form: the answer to $n$ copies of one token and $l$ of another is rational in $n/l$, its poles
    tell the scores of the distinct heads and its residues their values [@kim2026]. The others: observed, and only near
    a layer; the null space of the derivative is the freedom removed here (`identifiability`). It is more for linear
    layers with $d_{out} = 1$, whose form is then not the only one; `distance` still knows them as equal.
    Cost: $m^2 d^2$.
    Raises `ValueError` for a normaliser that does not name its symmetry, for tokens that do not span all dimensions,
    and for a normaliser whose weights do not sum to one on $d$ distinct tokens (one-hot), which hide more.
    """
    return canonical_with_origin(layer, known_direction(layer, X)).layer


def canonical_with_origin(layer: AttentionLayer, direction: Float[np.ndarray, " d"] | None) -> Canonical:
    """The canonical form on tokens with this constant direction (`None`: generic tokens), and where heads came from."""
    symmetry = _symmetry(layer.slots)
    extended, ov, offset = heads.extended(layer), layer.ov, layer.offset
    largest, zero = heads.norms(ov).max(initial=0.0), ZERO_RTOL * heads.norms(extended).max(initial=0.0)
    if direction is not None:
        extended = heads.without_biases(extended, direction)
        if symmetry is Symmetry.SHIFT:
            extended, ov, offset = heads.without_constants(extended, ov, offset, direction)
    extended[heads.norms(extended) <= zero] = 0.0
    if symmetry is Symmetry.MIXING:
        extended, ov = heads.orthogonal(extended, ov)
        origin = np.arange(len(ov))
    else:
        extended, ov = heads.representative(extended, ov, symmetry)
        largest = heads.norms(ov).max(initial=0.0) if symmetry is Symmetry.SCALE else largest
        extended, ov, origin = heads.merged(extended, ov)
        silent = (heads.norms(extended) == 0) & (symmetry in (Symmetry.SIGN, Symmetry.SCALE))
        kept = (heads.norms(ov) > ZERO_RTOL * largest) & ~silent
        extended, ov, origin = extended[kept], ov[kept], origin[kept]
    if symmetry is Symmetry.SCALE:
        extended, ov = heads.balanced(extended, ov)
    if symmetry is Symmetry.SHIFT and direction is not None and len(ov):
        ov = ov + direction[:, None] * (offset / len(ov))
        offset = np.zeros_like(offset)
    order = heads.order(extended, ov)
    extended = extended[order]
    result = AttentionLayer(extended[:, :-1], ov[order], extended[:, -1], offset, layer.slots)
    return Canonical(result, tuple(origin[order].tolist()))


def known_direction(layer: AttentionLayer, X: Any) -> Float[np.ndarray, " d"] | None:
    """`constant_direction`, for a layer whose symmetries on such tokens are known; else `ValueError`."""
    direction = constant_direction(X, layer.width)
    if direction is not None and not layer.slots.simplex:
        distinct = np.unique(as_float64("X", X).reshape(-1, layer.width), axis=0)
        if len(distinct) == layer.width:
            raise ValueError(
                f"X has only {len(distinct)} distinct tokens; of such a layer with {_name(layer.slots)} they show only "
                "one answer for each pair of tokens (see `identifiability`). Give more, or leave X out"
            )
    return direction


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
    r"""Dimension of the continuous freedom of a layer with distinct heads and non-zero circuits, in closed form.

    On generic tokens 0 for softmax, sigmoid and erf, $m$ for ReLU, $m^2$ for linear; for linear with $d_{out} = 1$ and
    $m \le d$ moreover $m(m-1)/2$ for each of $d$ rows of $\Theta$ and for the query bias. On tokens `X` with a
    constant direction, softmax has $md + (m-1)d_{out}$ more where only the circuits are parameters, and $d_{out}$ more
    where the offset is. For every normaliser it is $md$ more where the query biases are, since $\Theta_i$ absorbs them
    (which then count no row of their own). Biases that are no parameters are zero.
    Assumes sequences of at least three tokens, which span all $d$ dimensions (else `ValueError`). The order of heads
    comes on top; it is discrete. Raises `ValueError` as `canonical` does.
    """
    symmetry, constant = _symmetry(layer.slots), known_direction(layer, X) is not None
    m, d, d_out = layer.ov.shape
    if symmetry is Symmetry.SHIFT:
        return (m * d + (m - 1) * d_out + m * d * query_bias + d_out * offset) * constant
    own = {Symmetry.SCALE: m, Symmetry.MIXING: m * m}.get(symmetry, 0)
    if symmetry is Symmetry.MIXING and d_out == 1:
        own += m * (m - 1) // 2 * (d + (query_bias and not constant))
    return own + m * d * (query_bias and constant)


def random_gauge(
    layer: AttentionLayer, key: np.random.Generator, direction: Float[np.ndarray, " d"] | None = None
) -> AttentionLayer:
    """A random layer with the same function: one head split in two, a zero head added, all heads shuffled.

    With the signs, scales or mixes of heads that the normaliser hides. With a constant `direction` of the tokens,
    biases moved between circuits and bias terms, for softmax with row shifts.
    """
    symmetry = _symmetry(layer.slots)
    m, d, d_out = layer.ov.shape
    origin = np.append(np.arange(m), [key.integers(m), key.integers(m)])  # the last head gets W = 0
    share = np.ones(m + 2)
    share[m] = key.uniform(0.2, 0.8)
    share[origin[m]] = 1 - share[m]
    share[m + 1] = 0.0
    extended, ov, offset = heads.extended(layer)[origin], layer.ov[origin] * share[:, None, None], layer.offset
    extended[-1, :-1] = key.standard_normal((d, d))
    extended, ov = _randomly_mixed(extended, ov, symmetry, key)
    if direction is not None:
        moved = key.standard_normal((m + 2, d))
        extended[:, :-1] += direction[:, None] * moved[:, None, :]
        extended[:, -1] -= moved
    if direction is not None and symmetry is Symmetry.SHIFT:
        constants = key.standard_normal((m + 2, d_out))
        extended += key.standard_normal((m + 2, d + 1, 1)) * direction
        ov = ov + direction[:, None] * constants[:, None, :]
        offset = offset - constants.sum(axis=0)
    order = key.permutation(m + 2)
    return AttentionLayer(extended[order, :-1], ov[order], extended[order, -1], offset, layer.slots)


def _randomly_mixed(
    extended: Float[np.ndarray, "heads d_plus_1 d"],
    ov: Float[np.ndarray, "heads d d_out"],
    symmetry: Symmetry,
    key: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A random sign, scale or mix of the heads, where the normaliser hides it."""
    mix = np.eye(len(ov))
    if symmetry is Symmetry.SIGN:
        mix *= key.choice([-1.0, 1.0], len(ov))
    if symmetry in (Symmetry.SCALE, Symmetry.MIXING):
        mix *= np.exp(key.uniform(-1, 1, len(ov)))
    if symmetry is Symmetry.MIXING:
        mix = np.linalg.qr(key.standard_normal(mix.shape))[0] @ mix
    return np.tensordot(mix, extended, 1), np.tensordot(np.linalg.inv(mix).T, ov, 1)


def _symmetry(slots: Slots) -> Symmetry:
    if slots.symmetry is None:
        raise ValueError(
            f"the symmetries of the normaliser {_name(slots)} are not known: give it a class variable `symmetry`"
        )
    return slots.symmetry


def _name(slots: Slots) -> str:
    return type(slots.normaliser).__name__
