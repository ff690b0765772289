r"""Phase (ii), the general pattern: what an effective token proves about the weights behind it, by linear programs.

Over the distinct values $x_b$ of an example, a pattern that all heads share obeys
$$p\ge0,\quad\mathbf1^\top p=1,\quad|X^\top p-z|_\infty\le\delta .$$
If no $p$ does, the heads do not share one. Else $p_b\in[\mathrm{lo}_b,\mathrm{hi}_b]$, and every pair of values gives
$$\log\frac{\mathrm{lo}_b}{\mathrm{hi}_c}-\log\frac{n_b}{n_c}\le\langle\Theta,x_a(x_b-x_c)^\top\rangle
  \le\log\frac{\mathrm{hi}_b}{\mathrm{lo}_c}-\log\frac{n_b}{n_c}.$$
`program_bounds` solves two programs a weight with HiGHS: the tightest bounds, a row at a time. `closed_bounds` holds
for affinely independent values, where $p$ is unique: outer bounds for all rows at once.

**Guarantee.** For one head, or heads that share the pattern, if $|X^\top p-z|_\infty\le\delta$, the bounds contain $p$;
proof: $p$ is a point of the program. For several heads the existence of a pattern is evidence that they share it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog

from attnlearn.learners.sculpting.tokens import values

DEPENDENT = 1e-6  # relative singular value below which the values of an example are affinely dependent
WIDTH = 1.0  # of a slab that is kept


class Bounds(NamedTuple):
    """Least and greatest weight of each value; infeasible rows have least above greatest."""

    low: Float[np.ndarray, "*rows values"]
    high: Float[np.ndarray, "*rows values"]

    @property
    def feasible(self) -> np.ndarray:
        """Rows in which some pattern explains the effective token."""
        return np.asarray(np.all(self.low <= self.high, axis=-1))


def program_bounds(z: Float[np.ndarray, " d"], tokens: Float[np.ndarray, "values d"], delta: float) -> Bounds:
    """The tightest bounds of each weight, for the distinct values of one example. Cost: two programs a value."""
    n = len(tokens)
    upper, limit = np.r_[tokens.T, -tokens.T], np.r_[z + delta, delta - z]
    ends = np.empty((2, n))
    for b in range(n):
        for end, sign in enumerate((1.0, -1.0)):
            found = linprog(sign * np.eye(n)[b], upper, limit, np.ones((1, n)), [1.0], bounds=(0, 1), method="highs")
            if found.status == 2:
                return Bounds(np.ones(n), np.zeros(n))
            if found.status:
                raise RuntimeError(f"HiGHS ended with status {found.status}: {found.message}")
            ends[end, b] = sign * found.fun
    return Bounds(np.clip(ends[0], 0, 1), np.clip(ends[1], 0, 1))


def closed_bounds(
    Z: Float[np.ndarray, "rows d"], tokens: Float[np.ndarray, "rows values d"], delta: float
) -> tuple[Bounds, np.ndarray]:
    r"""Outer bounds of all weights, and which rows have affinely independent values, for which alone they hold.

    With $B=[x_2-x_1,\dots]^\top$ the weights of the other values are $B^+(z-x_1)$ up to
    $|B^+|_1\,(\delta\text{ an entry})$, and rows whose $z$ lies further than $\sqrt d\,\delta$ from the plane are
    infeasible.
    """
    base, others = tokens[:, 0], tokens[:, 1:] - tokens[:, :1]
    U, sigma, right = np.linalg.svd(others.swapaxes(1, 2), full_matrices=False)
    independent = sigma[:, -1] > DEPENDENT * sigma[:, 0] if sigma.shape[1] else np.ones(len(Z), bool)
    independent &= tokens.shape[1] - 1 <= tokens.shape[2]
    inverse = (right.swapaxes(1, 2) / np.where(sigma > 0, sigma, np.inf)[:, None]) @ U.swapaxes(1, 2)
    rest = np.einsum("rvd,rd->rv", inverse, Z - base)
    first = 1 - rest.sum(axis=1, keepdims=True)
    spread = delta * np.abs(inverse).sum(axis=-1)
    spread = np.c_[delta * np.abs(inverse.sum(axis=1)).sum(axis=-1), spread]
    p = np.c_[first, rest]
    off = np.linalg.norm(Z - np.einsum("rv,rvd->rd", p, tokens), axis=1)
    near = off <= np.sqrt(tokens.shape[2]) * delta
    low, high = np.maximum(p - spread, 0), np.minimum(p + spread, 1)
    return Bounds(np.where(near[:, None], low, 1), np.where(near[:, None], high, 0)), independent


class Slabs(NamedTuple):
    r"""$\mathrm{low}\le\langle\Theta,x_a(u-v)^\top\rangle\le\mathrm{high}$."""

    query: Float[np.ndarray, "n d"]
    u: Float[np.ndarray, "n d"]
    v: Float[np.ndarray, "n d"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]


def slabs(
    query: Float[np.ndarray, "rows d"],
    tokens: Float[np.ndarray, "rows values d"],
    times: Int[np.ndarray, "rows values"],
    bounds: Bounds,
) -> Slabs:
    """The slabs of every pair of values that are narrower than `WIDTH`."""
    b, c = np.triu_indices(tokens.shape[1], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.log(times[:, b] / times[:, c])
        low = np.log(bounds.low[:, b] / bounds.high[:, c]) - odds
        high = np.log(bounds.high[:, b] / bounds.low[:, c]) - odds
        row, pair = np.nonzero(bounds.feasible[:, None] & (high - low < WIDTH))
    return Slabs(query[row], tokens[row, b[pair]], tokens[row, c[pair]], low[row, pair], high[row, pair])


def patterns(Z: Float[np.ndarray, "n k d"], X: Float[np.ndarray, "n k d"], delta: float) -> Slabs:
    """All narrow slabs of a chunk: in closed form where the values are affinely independent, by programs elsewhere."""
    first, times = values(X)
    found = []
    for number in np.unique(first.sum(axis=1)):
        some = np.flatnonzero(first.sum(axis=1) == number)
        at = np.argsort(~first[some], axis=1, kind="stable")[:, :number]
        tokens = np.take_along_axis(X[some], at[..., None], axis=1).repeat(X.shape[1], axis=0)
        counted = np.take_along_axis(times[some], at, axis=1).repeat(X.shape[1], axis=0)
        z, query = Z[some].reshape(-1, X.shape[-1]), X[some].reshape(-1, X.shape[-1])
        bounds, independent = closed_bounds(z, tokens, delta)
        for row in np.flatnonzero(~independent):
            bounds.low[row], bounds.high[row] = program_bounds(z[row], tokens[row], delta)
        found.append(slabs(query, tokens, counted, bounds))
    return Slabs(*(np.concatenate(fields) for fields in zip(*found, strict=True)))
