r"""How far two layers are apart, with everything removed that their function does not show.

Both are made canonical and their heads matched by the assignment of least cost (Hungarian method), with
$\|\Theta-\Theta'\|^2/s_\Theta^2 + \|W-W'\|^2/s_W^2 + |\beta-\beta'|^2/s_\beta^2$ for two heads and the norms $s$ of
the reference's head. Circuits instead of ordinary weights: inner rotations of a head need no matching. Heads of a
linear layer are known only up to any mix, so there the sum over heads is compared.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.heads import ZERO_RTOL
from attnlearn.layers.slots import Symmetry
from attnlearn.layers.symmetries import canonical_with_origin, known_direction


@dataclass(frozen=True)
class HeadDistance:
    """Errors of one head relative to the reference's head `head`, which `matched` of the other layer answers to."""

    head: int
    matched: int
    qk: float
    ov: float
    query_bias: float


@dataclass(frozen=True)
class Distance:
    """Errors of a layer against a reference: the worst over heads, relative in the Frobenius norm per head.

    `permutation[i]` is the head of the layer that answers to `per_head[i].head` of the reference; heads are named by
    their place in the layers given, merged heads by their largest member. `reason` says why errors are infinite, or why
    there are none per head.
    """

    qk: float
    ov: float
    query_bias: float
    offset: float
    permutation: tuple[int, ...] = ()
    per_head: tuple[HeadDistance, ...] = ()
    reason: str = ""

    @property
    def worst(self) -> float:
        """The largest of the four errors."""
        return max(self.qk, self.ov, self.query_bias, self.offset)


def distance(a: AttentionLayer, b: AttentionLayer, X: Any = None) -> Distance:
    r"""Errors of layer `a` against the reference `b`, up to all symmetries; on tokens `X`, where they are given.

    Heads equal to 1e-8 merge and heads with $W = 0$ vanish first. Relative errors per head: $\Theta$ by
    $\|\Theta_b\|$, $W$ by $\|W_b\|$, $\beta$ by $|\beta_b|$, or by $\|\Theta_b\|$ where $\beta_b = 0$; a head of the
    reference with $\Theta_b = 0$ is measured by its largest $\|\Theta\|$. The offset by $|c_b|$, or where that is 0
    by $\|W_b\|$ over all heads, the scale of its outputs. Where the reference is zero throughout, errors are absolute.
    Different numbers of heads after merging, or different slots: all errors are infinite, and `reason` says so.

    Linear: `qk` and `ov` are both the error of $\sum_i \Theta_i \otimes W_i$, made symmetric in the two indices that
    meet the same token, relative to its norm; `query_bias` that of $\sum_i \beta_i \otimes W_i$, relative to its norm,
    or to that of the other where it is 0. There is nothing per head, and `reason` says so.

    Raises `ValueError` for different widths, and as `canonical` does. Cost: $m^2 d^2 + m^3$; linear $m d^3 d_{out}$.
    """
    for layer in (a, b):
        if not isinstance(layer, AttentionLayer):
            raise TypeError(f"a distance is between two layers, got {type(layer).__name__}: did a run end without one?")
    if (a.width, a.width_out) != (b.width, b.width_out):
        raise ValueError(
            f"widths differ: {a.width} -> {a.width_out} against {b.width} -> {b.width_out}; "
            "a distance is between layers of equal widths"
        )
    if a.slots != b.slots:
        return _infinite(f"The slots differ: {a.slots} against {b.slots}.")
    direction = known_direction(b, X)
    (a, origin_a), (b, origin_b) = canonical_with_origin(a, direction), canonical_with_origin(b, direction)
    if b.slots.symmetry is Symmetry.MIXING:
        return _of_mixed(a, b)
    if a.heads != b.heads:
        return _infinite(f"After merging there are {a.heads} heads against {b.heads} of the reference.")
    errors = _relative_errors(a, b)
    matched = linear_sum_assignment((errors**2).sum(axis=0))[1]
    per_head = [
        HeadDistance(origin_b[head], origin_a[other], *(float(error) for error in errors[:, head, other]))
        for head, other in enumerate(matched)
    ]
    per_head.sort(key=lambda one: one.head)
    qk, ov, query_bias = (max((getattr(one, name) for one in per_head), default=0.0) for name in _PER_HEAD)
    return Distance(qk, ov, query_bias, _offset(a, b), tuple(one.matched for one in per_head), tuple(per_head))


_PER_HEAD = ("qk", "ov", "query_bias")


def _of_mixed(a: AttentionLayer, b: AttentionLayer) -> Distance:
    """Errors of the sums over heads."""
    scores = [np.concatenate([one.qk, one.query_bias[:, None, :]], axis=1) for one in (a, b)]
    difference, norms = np.zeros(a.width + 1), np.zeros(a.width + 1)
    for row in range(a.width + 1):
        ours, theirs = (
            np.tensordot(score[:, row], one.ov, axes=(0, 0)) for score, one in zip(scores, (a, b), strict=True)
        )
        difference[row] = np.linalg.norm((ours - theirs) + (ours - theirs).swapaxes(0, 1))
        norms[row] = np.linalg.norm(theirs + theirs.swapaxes(0, 1))
    s_qk = _scale(np.linalg.norm(norms[:-1]), norms[-1])
    qk = float(np.linalg.norm(difference[:-1]) / s_qk)
    query_bias = float(difference[-1] / _scale(norms[-1], s_qk))
    reason = "Heads of a linear layer are known up to any mix only: the errors are those of the sums over heads."
    return Distance(qk, qk, query_bias, _offset(a, b), reason=reason)


def _offset(a: AttentionLayer, b: AttentionLayer) -> float:
    return float(np.linalg.norm(a.offset - b.offset) / _scale(np.linalg.norm(b.offset), np.linalg.norm(b.ov)))


def _relative_errors(a: AttentionLayer, b: AttentionLayer) -> Float[np.ndarray, "3 heads heads"]:
    """Errors of `qk`, `ov` and `query_bias` of head `[.., g]` of `a` by head `[.., h, ..]` of the reference `b`.

    Where a head may change its sign, at the better one: that of `canonical` jumps where its mark is near 0.
    """
    errors = _errors_at(a, b, 1.0)
    if b.slots.symmetry is not Symmetry.SIGN:
        return errors
    flipped = _errors_at(a, b, -1.0)
    return np.where((flipped**2).sum(axis=0) < (errors**2).sum(axis=0), flipped, errors)


def _errors_at(a: AttentionLayer, b: AttentionLayer, sign: float) -> Float[np.ndarray, "3 heads heads"]:
    errors = np.empty((3, b.heads, a.heads))
    qk_norms = np.linalg.norm(b.qk, axis=(1, 2))
    for h in range(b.heads):
        s_qk = _scale(qk_norms[h], qk_norms.max())
        s_ov = np.linalg.norm(b.ov[h])
        s_bias = _scale(np.linalg.norm(b.query_bias[h]), s_qk)
        errors[0, h] = np.linalg.norm(sign * a.qk - b.qk[h], axis=(1, 2)) / s_qk
        errors[1, h] = np.linalg.norm(sign * a.ov - b.ov[h], axis=(1, 2)) / s_ov
        errors[2, h] = np.linalg.norm(sign * a.query_bias - b.query_bias[h], axis=1) / s_bias
    return errors


def _scale(norm: np.floating, otherwise: np.floating) -> np.floating:
    """`norm`, or where it is rounding against `otherwise`, that; 1 where both are 0."""
    return (norm if norm > ZERO_RTOL * otherwise else otherwise) or np.float64(1.0)


def _infinite(reason: str) -> Distance:
    return Distance(np.inf, np.inf, np.inf, np.inf, reason=reason)
