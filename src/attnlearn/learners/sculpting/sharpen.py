r"""Sculpting again with the heads in hand: certificates of every head for itself.

Phase (ii) needs rows in which all heads share their weight alike, which grows rare with each head. Once the heads are
roughly known, $\hat\Theta_i$ and $W_i$, that is no longer needed. With the two values $u,v$ that take most weight in a
row, the rest as predicted, $\hat q_i$, and $\pi_i$ the weight of $u$ in head $i$,
$$y-\sum_i(\hat q_i-\hat\pi_i(u-v))^\top W_i=\sum_i\pi_i\,(u-v)^\top W_i$$
has $m$ unknowns and as many equations as an output has entries. The shares give an equality for each head,
$$\langle\Theta_i,x_a(u-v)^\top\rangle=\log\frac{\pi_i}{\varrho_i-\pi_i}-\log\frac{n_u}{n_v},$$
$\varrho_i$ the predicted weight of both. Each $\Theta_i$ is regressed, $W_i$ refitted, and so on; at last the logarithm
gives way to its linearisation around $\hat\pi_i$, which label noise does not bias.

This is ours, and no part of the paper's algorithm. No guarantee: it is judged on held-out rows alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn.learners.sculpting import net
from attnlearn.learners.sculpting.marquardt import Fitted, Start, marquardt
from attnlearn.learners.sculpting.net import Grid
from attnlearn.learners.sculpting.rows import Rows, features, relative_error, weights
from attnlearn.learners.sculpting.tokens import values

LEAST_SHARE, LEAST_PREDICTED = 0.03, 1e-3  # of a value, measured and predicted, that an equality is made of
PRIOR = 1e-3  # of the mean curvature: holds a head where no row speaks of it
REWEIGHTINGS, HULL_STEPS = 6, 15
SPAN_AXIS, SPAN_RADIUS = (21, 21, 7), 1.5  # points an axis of a net in the span, in the length of the longest head


@dataclass(frozen=True)
class Sharpening:
    """Rows that certificates are made of and rows of the other fits; rounds of each kind in a turn, and turns; the
    predicted weight outside two values up to which a row takes part in each turn, the last for all that follow."""

    rows: int = 20_000
    fit_rows: int = 6000
    rounds: int = 6
    turns: int = 4
    outside: tuple[float, ...] = (0.1, 1.0)


class Sharpened(NamedTuple):
    """The best layer in the hull of its own heads, its error on held-out rows, and the errors on the way."""

    fitted: Fitted
    directions: Float[np.ndarray, "n d d"]
    error: float
    path: tuple[float, ...]


class HeadEqualities(NamedTuple):
    r"""$\langle\Theta_i,A_t\rangle=b_{it}\pm\varepsilon_{it}$ for each head i; $\varepsilon$ infinite where a row says
    nothing."""

    A: Float[np.ndarray, "T dd"]
    b: Float[np.ndarray, "m T"]
    epsilon: Float[np.ndarray, "m T"]


def sharpen(
    rows: Rows, held_out: Rows, thetas: Float[np.ndarray, "m d d"], settings: Sharpening, target: float
) -> Sharpened:
    """The best of all turns, each from the heads of the one before, or from a net in their span where these fail."""
    few = rows.part(slice(0, Grid().rows))
    best, path = None, []
    for turn in range(settings.turns):
        progress("sharpening", turn, settings.turns)
        outside = settings.outside[min(turn, len(settings.outside) - 1)]
        thetas = _rounds(rows, thetas, settings, outside)
        found = _judged(few, held_out, thetas)
        path.append(found.error)
        best = found if best is None or found.error < best.error else best
        if found.error > target:
            thetas = _in_span(few, held_out, thetas)
        thetas = _rounds(rows, thetas, settings, None)
        found = _judged(few, held_out, thetas)
        path.append(found.error)
        best = found if found.error < best.error else best
        if best.error <= target:
            break
    assert best is not None
    return best._replace(path=tuple(path))


def _rounds(
    rows: Rows, thetas: Float[np.ndarray, "m d d"], settings: Sharpening, outside: float | None
) -> Float[np.ndarray, "m d d"]:
    """Shares, then each head, then the OV circuits; `outside=None`: linearised, with all rows."""
    rows = rows.part(slice(0, settings.rows))
    fit = rows if outside is None else rows.part(slice(0, settings.fit_rows))
    W = robust_ov(fit, thetas)
    for _ in range(settings.rounds):
        known = head_equalities(rows, thetas, W, outside)
        thetas = np.stack([regress(known, i, theta) for i, theta in enumerate(thetas)])
        W = robust_ov(fit, thetas)
    return thetas


def robust_ov(rows: Rows, thetas: Float[np.ndarray, "m d d"], iterations: int = 3) -> Float[np.ndarray, "m d o"]:
    """OV circuits of the heads, by regression with rows of large misfit weighed down."""
    phi, weight = features(rows, thetas), np.ones(len(rows.Y))
    W = np.zeros((phi.shape[1], rows.Y.shape[1]))
    for _ in range(iterations):
        W = np.linalg.lstsq(weight[:, None] * phi, weight[:, None] * rows.Y, rcond=1e-10)[0]
        misfit = np.linalg.norm(rows.Y - phi @ W, axis=1)
        weight = 1 / np.sqrt(1 + (misfit / (2 * np.median(misfit) + 1e-300)) ** 2)
    return W.reshape(len(thetas), thetas.shape[1], -1)


class _Edge(NamedTuple):
    """Of the rows that take part: asking token, u, v, log of their multiplicities' ratio, and for each head the
    predicted weights of u and v and the token shown."""

    query: np.ndarray
    u: np.ndarray
    v: np.ndarray
    times: np.ndarray
    of_u: np.ndarray
    of_v: np.ndarray
    shown: np.ndarray
    Y: np.ndarray


def _main_edges(rows: Rows, thetas: Float[np.ndarray, "m d d"], outside: float) -> _Edge:
    first, times = values(rows.X)
    p = np.stack([weights(rows, theta) for theta in thetas])
    mass = np.where(first, p * times, 0.0)
    top = np.argsort(-mass.sum(axis=0), axis=1)[:, :2]
    every = np.arange(len(rows.Y))
    rest = 1 - mass[:, every, top[:, 0]] - mass[:, every, top[:, 1]]
    r = np.flatnonzero((rest.max(axis=0) <= outside) & (first.sum(axis=1) > 1))
    u, v = top[r].T
    shown = np.einsum("mrk,rkd->mrd", p[:, r], rows.X[r])
    return _Edge(
        rows.query[r],
        rows.X[r, u],
        rows.X[r, v],
        np.log(times[r, u] / times[r, v]),
        mass[:, r, u],
        mass[:, r, v],
        shown,
        rows.Y[r],
    )


def head_equalities(
    rows: Rows, thetas: Float[np.ndarray, "m d d"], W: Float[np.ndarray, "m d o"], outside: float | None
) -> HeadEqualities:
    """What every row says of every head, by the heads known so far."""
    edge = _main_edges(rows, thetas, 1.0 if outside is None else outside)
    difference = edge.u - edge.v
    steps = np.einsum("rd,mdo->rom", difference, W)
    settled = np.einsum("mrd,mdo->ro", edge.shown - edge.of_u[..., None] * difference, W)
    target, m = edge.Y - settled, len(thetas)
    square = steps.swapaxes(1, 2) @ steps
    ridge = 1e-9 * np.trace(square, axis1=1, axis2=2).mean() / m if len(square) else 0.0
    inverse = np.linalg.inv(square + ridge * np.eye(m))
    share = np.einsum("rij,roj,ro->ir", inverse, steps, target)
    misfit = np.linalg.norm(target - np.einsum("rom,mr->ro", steps, share), axis=1)
    spread = np.sqrt(np.einsum("rii->ir", inverse) / max(rows.Y.shape[1] - m, 1))
    b, epsilon = _odds(edge, share, (misfit, spread), outside is None)
    A = (edge.query[:, :, None] * difference[:, None, :]).reshape(len(difference), difference.shape[1] ** 2)
    return HeadEqualities(A, np.where(np.isfinite(epsilon), b, 0.0), epsilon)


def _odds(
    edge: _Edge, share: np.ndarray, error: tuple[np.ndarray, np.ndarray], linear: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Right sides and their uncertainty; `linear`: around the predicted shares, with one noise for all rows."""
    misfit, spread = error
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        both = edge.of_u + edge.of_v
        if linear:
            slope = edge.of_u * edge.of_v / both
            b = np.log(edge.of_u / edge.of_v) + (share - edge.of_u) / slope - edge.times
            told = (edge.of_u > LEAST_PREDICTED) & (edge.of_v > LEAST_PREDICTED)
            return b, np.where(told, np.sqrt(np.mean(misfit**2)) * spread / slope, np.inf)
        rest = both - share
        told = (share > LEAST_SHARE) & (rest > LEAST_SHARE)
        slope = share * rest / both
        return np.log(share / rest) - edge.times, np.where(told, (misfit * spread + 0.3 * (1 - both)) / slope, np.inf)


def regress(known: HeadEqualities, head: int, theta: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """One head from its equalities, by robust weighted least squares around where it is."""
    kept = np.flatnonzero(np.isfinite(known.epsilon[head]))
    if len(kept) <= len(theta):
        return theta
    A, b, epsilon = known.A[kept], known.b[head, kept], known.epsilon[head, kept]
    epsilon = epsilon + 0.1 * np.median(epsilon) + 1e-12
    weight, flat = 1 / epsilon, theta.ravel()
    at = flat
    for _ in range(REWEIGHTINGS):
        scaled = A * weight[:, None]
        H = scaled.T @ scaled
        prior = PRIOR * np.trace(H) / len(H)
        at = flat + np.linalg.solve(H + prior * np.eye(len(H)), scaled.T @ (weight * (b - A @ flat)))
        misfit = np.abs(b - A @ at)
        weight = 1 / np.sqrt(epsilon**2 + (misfit / max(np.median(misfit / epsilon), 1e-9)) ** 2)
    return at.reshape(theta.shape)


def _judged(fit: Rows, held_out: Rows, thetas: Float[np.ndarray, "m d d"]) -> Sharpened:
    """A fit in the affine hull of these heads, judged on held-out rows."""
    flat = (thetas[1:] - thetas[:1]).reshape(len(thetas) - 1, thetas[0].size)
    directions = np.linalg.qr(flat.T)[0].T.reshape(-1, *thetas.shape[1:])
    fitted = marquardt(fit, Start(thetas, directions), HULL_STEPS)
    return Sharpened(fitted, directions, relative_error(held_out, fitted.thetas, fitted.W), ())


def _in_span(fit: Rows, held_out: Rows, thetas: Float[np.ndarray, "m d d"]) -> Float[np.ndarray, "m d d"]:
    """The best tuple of a net in the linear span of these heads, after a fit in it: heads that ran together part."""
    m, d, _ = thetas.shape
    basis = np.linalg.svd(thetas.reshape(m, -1), full_matrices=False)[2].reshape(m, d, d)
    radius = SPAN_RADIUS * float(np.linalg.norm(thetas, axis=(1, 2)).max())
    points = net.ball(radius, SPAN_AXIS[m - 1] if m <= len(SPAN_AXIS) else 3, m)
    shared = net.gram(fit, np.tensordot(points.c, basis, axes=1))
    starts = [thetas, *(np.tensordot(one, basis, axes=1) for one in net.search(shared, points, m, Grid()))]
    fits = [marquardt(fit, Start(start, basis), HULL_STEPS) for start in starts]
    return min(fits, key=lambda one: relative_error(held_out, one.thetas, one.W)).thetas
