r"""Phase (iv): the affine hull of the attention matrices, as the null space of the certificates.

In homogeneous form every head is a null vector, $[A,-b/s]\,(\mathrm{vec}\,\Theta_i,s)=0$: the $m$ smallest right
singular vectors of the whitened matrix span $\{(\Theta_i,s)\}$. From them come the minimum-norm point $\theta_0$ and
an orthonormal basis $V$ of the $m-1$ directions of the hull. The *gap*, the $(m+1)$-th smallest singular value over
the $m$-th, measures how far to trust it, and its peak over $m$ counts the heads.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlearn.learners.sculpting.certificates import WIDEST, Edges

POOL = 20  # times the wanted functionals: so many rows of least slack are searched for distinct ones
LARGEST_GAP = 1000.0
PLENTY = 0.5  # of the largest gap
FARTHEST = 10.0  # norms of the equalities' own solution: a point beyond lies at infinity, and is no attention matrix
MOST_HEADS = 6  # that are told apart by the gap


@dataclass(frozen=True)
class Carving:
    """How many functionals are used, in multiples of the square of the width, for one head and for several; how often
    they are reweighted; the least relative singular value that counts as full rank; gaps called good and fair."""

    one_head: tuple[int, ...] = (8, 16, 32)
    more_heads: tuple[int, ...] = (2, 3, 5, 8)
    reweightings: int = 8
    rank_floor: float = 0.02
    good: float = 13.0
    fair: float = 7.0


class Equalities(NamedTuple):
    r"""$\langle\Theta,A_t\rangle=b_t\pm\varepsilon_t$, with distinct functionals."""

    A: Float[np.ndarray, "T dd"]
    b: Float[np.ndarray, " T"]
    epsilon: Float[np.ndarray, " T"]


class Hull(NamedTuple):
    """The affine hull `point` + span(`directions`), orthogonal to each other; all singular values, ascending; the gap;
    how many functionals carved it."""

    point: Float[np.ndarray, "d d"]
    directions: Float[np.ndarray, "n d d"]
    singular_values: Float[np.ndarray, " dd1"]
    gap: float
    functionals: int


def select(edges: Edges, most: int, error: float) -> Equalities:
    """The `most` distinct functionals of least slack, or fewer where there are no more."""
    slack = np.where(edges.residual < WIDEST, edges.slack(error), np.inf)
    order = np.argsort(slack, kind="stable")
    order = order[np.isfinite(slack[order])]
    for size in (POOL * most, len(order)):  # mostly the first is enough
        pool = edges.take(order[:size])
        kept = _distinct(pool.functionals)[:most]
        if len(kept) == most:
            break
    return Equalities(pool.functionals[kept], pool.log_odds[kept], pool.tolerance(error)[kept])


def _distinct(A: Float[np.ndarray, "rows dd"]) -> Int[np.ndarray, " some"]:
    """The first row of every functional, in order; a functional and its negative are one."""
    keys = np.round(A / 2, 9)
    leading = np.take_along_axis(keys, (keys != 0).argmax(axis=1)[:, None], axis=1)
    _, place = np.unique(keys * np.sign(leading) + 0.0, axis=0, return_index=True)
    return np.sort(place)


def full_rank(A: Float[np.ndarray, "T dd"], heads: int, floor: float) -> bool:
    """Whether heads, and not repeated functionals, make the null space: the `heads`-th smallest singular value of the
    normalised functionals is above `floor` times the largest."""
    values = np.linalg.svd(A / np.linalg.norm(A, axis=1, keepdims=True), compute_uv=False)[::-1]
    return heads <= len(values) and bool(values[heads - 1] > floor * values[-1])


def hull(equalities: Equalities, heads: int, reweightings: int = 8) -> Hull:
    """The hull of so many heads. At least $d^2+m$ functionals. Cost: $O(Td^4)$ operations a reweighting."""
    A, b, epsilon = equalities
    weight = 1 / epsilon
    scale = max(float(np.linalg.norm(np.linalg.lstsq(weight[:, None] * A, weight * b, rcond=1e-6)[0])), 1e-3)
    homogeneous = np.c_[A, -b / scale]
    sigma, null = np.zeros(0), np.zeros((0, 0))
    for _ in range(reweightings):
        _, sigma, right = np.linalg.svd(weight[:, None] * homogeneous, full_matrices=False)
        sigma, null = sigma[::-1], right[::-1][:heads]
        misfit = scale * np.linalg.norm(homogeneous @ null.T, axis=1)
        typical = max(np.median(misfit / epsilon), 1e-9)
        weight = 1 / np.sqrt(epsilon**2 + (misfit / typical) ** 2)
    gap = sigma[heads] / max(sigma[heads - 1], sigma[heads] / LARGEST_GAP)
    point, directions = _affine(null, scale)
    if np.linalg.norm(point) > FARTHEST * scale:
        gap = 1.0
    d = round(np.sqrt(A.shape[1]))
    return Hull(point.reshape(d, d), directions.reshape(-1, d, d), sigma, float(gap), len(A))


def _affine(null: Float[np.ndarray, "m dd1"], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The points of the null space with last coordinate `scale`: the one of least norm, and the directions."""
    last, rest = null[:, -1], null[:, :-1]
    point = scale * (last @ rest) / (last @ last)
    if len(null) == 1:
        return point, np.zeros((0, rest.shape[1]))
    across = np.linalg.svd(last[None])[2][1:]
    directions = np.linalg.qr((across @ rest).T)[0].T
    return point - directions.T @ (directions @ point), directions


def carve(edges: Edges, heads: int, error: float, carving: Carving) -> Hull | None:
    """The hull of the most functionals whose gap is at least half of the largest; `None` where none has full rank.

    The largest gap prefers few functionals, whose hull has more noise in it. The gap that is told is the largest that
    another number of functionals confirms to within half: few functionals alone may leave a false null space.
    """
    d = edges.query.shape[1]
    found: list[Hull] = []
    for multiple in carving.one_head if heads == 1 else carving.more_heads:
        chosen = select(edges, multiple * d * d, error)
        # several heads that leave fewer functionals than asked for have run into the width: their gap says nothing
        enough = fewest(1, d, carving) if heads == 1 else max(multiple * d * d, d * d + heads)
        if len(chosen.b) < enough or (found and len(chosen.b) == found[-1].functionals):
            continue
        if full_rank(chosen.A, heads, carving.rank_floor):
            found.append(hull(chosen, heads, carving.reweightings))
    if not found:
        return None
    told = [one.gap for one in found]
    confirmed = [gap for gap in told if sum(other >= PLENTY * gap for other in told) > 1]
    largest = max(confirmed, default=min(told) if len(told) > 1 or heads == 1 else PLENTY * told[0])
    return [one for one in found if one.gap >= PLENTY * largest][-1]._replace(gap=largest)


def fewest(heads: int, d: int, carving: Carving) -> int:
    """The least number of distinct functionals that a hull is carved out of."""
    return 2 * d * d if heads == 1 else min(carving.more_heads) * d * d


def gaps(found: Hull, most: int = MOST_HEADS) -> Float[np.ndarray, " most"]:
    """Ratios of neighbouring singular values, the smallest first; entry j-1 speaks for j heads."""
    sigma = found.singular_values[: most + 1]
    return sigma[1:] / np.maximum(sigma[:-1], sigma[1:] / LARGEST_GAP)


def count_heads(edges: Edges, error: float, carving: Carving) -> int | None:
    """The number of heads at which the gap is largest, with any number of null vectors in the reweighting."""
    ratios = []
    for heads in (1, 2, 3):
        if (found := carve(edges, heads, error, carving)) is not None:
            ratios.append(gaps(found))
            ratios[-1][heads - 1] = found.gap  # the largest of all numbers of functionals
    if not ratios:
        return None
    # several gaps may reach the largest that is told: the first of them counts, not their rounding
    return int(np.argmax(np.round(np.max(ratios, axis=0), 6))) + 1
