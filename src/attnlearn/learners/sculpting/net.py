r"""Phase (v), the net: points of a grid in the hull, and every $m$-tuple of them by one regression.

$\Theta_i=\theta_0+c_i^\top V$ with $|c_i|\le\rho=2.5\,|\theta_0|\sqrt{m-1}$: for orthogonal heads of equal norm
$|c_i|=|\theta_0|\sqrt{m-1}$ exactly. All regressions share one Gram matrix of the features of all points.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from attnlearn.learners.sculpting.hull import Hull
from attnlearn.learners.sculpting.rows import Rows, shown

RIDGE = 1e-7  # of the mean diagonal, for comparing tuples
BATCH = 4096  # tuples that are solved at once
APART = 1.5  # grid steps by which kept tuples differ at least
BALL = 800  # points drawn by chance where a grid would have more


@dataclass(frozen=True)
class Grid:
    """Points an axis for 2, 3 and 4 heads (5 for more, or 800 random points); the ball's radius in the length that
    orthogonal heads have; tuples that are extended, looked at and kept; rows of the regressions."""

    per_axis: tuple[int, ...] = (61, 21, 9)
    radius: float = 2.5
    beam: int = 200
    pool: int = 400
    kept: int = 8
    rows: int = 1500


class Points(NamedTuple):
    """Points of the net in coordinates of the hull, and the distance of neighbours."""

    c: Float[np.ndarray, "points n"]
    step: float


class Gram(NamedTuple):
    """$G=\\Phi^\\top\\Phi$ and $B=\\Phi^\\top Y$ of the features of all points, and $|Y|^2$."""

    G: Float[np.ndarray, "points points d d"]
    B: Float[np.ndarray, "points d o"]
    square: float


def points(found: Hull, heads: int, grid: Grid, key: np.random.Generator) -> Points:
    """The grid in the ball; one point for one head."""
    n = heads - 1
    if n == 0:
        return Points(np.zeros((1, 0)), 0.0)
    radius = grid.radius * float(np.linalg.norm(found.point)) * np.sqrt(n)
    per_axis = grid.per_axis[n - 1] if n <= len(grid.per_axis) else 5
    if per_axis**n > 5 * BALL and n > len(grid.per_axis):
        directions = key.standard_normal((BALL, n))
        lengths = radius * key.random((BALL, 1)) ** (1 / n)
        return Points(directions / np.linalg.norm(directions, axis=1, keepdims=True) * lengths, radius / 2)
    return ball(radius, per_axis, n)


def ball(radius: float, per_axis: int, n: int) -> Points:
    """A grid of n coordinates, so many points an axis, without the corners outside the ball."""
    axis = np.linspace(-radius, radius, per_axis)
    c = np.stack(np.meshgrid(*[axis] * n, indexing="ij"), axis=-1).reshape(-1, n)
    return Points(c[np.linalg.norm(c, axis=1) <= radius * (1 + 1e-9)], float(axis[1] - axis[0]))


def matrices(found: Hull, c: Float[np.ndarray, "*some n"]) -> Float[np.ndarray, "*some d d"]:
    """Attention matrices at these coordinates."""
    return found.point + np.tensordot(c, found.directions, axes=1)


def gram(rows: Rows, thetas: Float[np.ndarray, "points d d"]) -> Gram:
    """One Gram matrix for all regressions. Cost: $O(R(n_Gd)^2)$ operations."""
    n, d = len(thetas), rows.query.shape[1]
    phi = np.concatenate([shown(rows, theta) for theta in thetas], axis=1)
    G = (phi.T @ phi).reshape(n, d, n, d).transpose(0, 2, 1, 3)
    return Gram(np.ascontiguousarray(G), (phi.T @ rows.Y).reshape(n, d, -1), rows.square)


def costs(shared: Gram, tuples: Int[np.ndarray, "tuples m"]) -> Float[np.ndarray, " tuples"]:
    """Squared error of the regression on the features of each tuple. Cost: $O((md)^3)$ operations a tuple."""
    m, d, o = tuples.shape[1], shared.B.shape[1], shared.B.shape[2]
    found = []
    for start in range(0, len(tuples), BATCH):
        some = tuples[start : start + BATCH]
        A = shared.G[some[:, :, None], some[:, None, :]].transpose(0, 1, 3, 2, 4).reshape(-1, m * d, m * d)
        right = shared.B[some].reshape(-1, m * d, o)
        ridge = RIDGE * np.trace(A, axis1=1, axis2=2)[:, None, None] / (m * d)
        W = np.linalg.solve(A + ridge * np.eye(m * d), right)
        found.append(shared.square - (right * W).sum(axis=(1, 2)))
    return np.concatenate(found)


def scored(shared: Gram, heads: int, beam: int) -> tuple[Int[np.ndarray, "tuples m"], Float[np.ndarray, " tuples"]]:
    """All tuples that are looked at, distinct and sorted, with their errors: all singles, all pairs of them, and for
    more heads the best tuples of one head less, each extended by every point."""
    n = len(shared.B)
    tuples = np.arange(n)[:, None]
    error = costs(shared, tuples)
    for size in range(2, heads + 1):
        base = tuples if size == 2 else tuples[np.argsort(error)[:beam]]
        grown = np.c_[np.repeat(base, n, axis=0), np.tile(np.arange(n), len(base))]
        grown = np.sort(grown, axis=1)
        tuples = np.unique(grown[(np.diff(grown, axis=1) > 0).all(axis=1)], axis=0)
        error = costs(shared, tuples)
    return tuples, error


def search(shared: Gram, net: Points, heads: int, grid: Grid) -> list[Float[np.ndarray, "m n"]]:
    """The coordinates of the best tuples that differ by more than some steps of the grid, whatever their order."""
    tuples, error = scored(shared, heads, grid.beam)
    kept: list[np.ndarray] = []
    for one in tuples[np.argsort(error)[: grid.pool]]:
        c = net.c[one]
        if all(_apart(c, other) > APART * net.step for other in kept):
            kept.append(c)
        if len(kept) == grid.kept:
            break
    return kept


def _apart(c: Float[np.ndarray, "m n"], other: Float[np.ndarray, "m n"]) -> float:
    """Frobenius distance under the best order of the heads."""
    square = np.square(c[:, None] - other[None]).sum(axis=-1)
    return float(np.sqrt(square[linear_sum_assignment(square)].sum()))
