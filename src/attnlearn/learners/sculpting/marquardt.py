r"""Phase (vi): Levenberg–Marquardt from a tuple of attention matrices, each projection matrix eliminated (Kaufman).

In the $m(m-1)$ coordinates of the hull it ends the faithful route; in all $md^2$ coordinates it is the polish. It is
dense and in NumPy: rows are few, nothing is compiled, and the formula stands beside the hull's directions. For many
rows and for other layers there is `least_squares`.

For row $a$, $$\frac{\partial y_o}{\partial\Theta_{i,pq}}=x_{a,p}\,\big[\mathrm{Cov}_i(x_a)W_i\big]_{qo},\qquad
\mathrm{Cov}_i(x)=\sum_bp_{i,b}\,x_bx_b^\top-q_iq_i^\top .$$
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.learners.sculpting.rows import Rows, features, regression, weights

BLOCK_SCALARS = 2**22  # of the Jacobian that is held at once
FLOOR = 1e-9  # of the trace: damping of columns that are zero
EXACT = 1e-28  # squared residual over squared outputs
PATIENCE = 6  # iterations after which a small gain ends the run
LEAST_GAIN = 1e-6
REFUSALS = 8


@dataclass(frozen=True)
class Start:
    """Attention matrices (m, d, d) and the directions (n, d, d) in which each may move; `None`: in all."""

    thetas: Float[np.ndarray, "m d d"]
    directions: Float[np.ndarray, "n d d"] | None = None


class Fitted(NamedTuple):
    """The end of a run: attention matrices, projection matrices stacked, relative residual, steps that helped."""

    thetas: Float[np.ndarray, "m d d"]
    W: Float[np.ndarray, "md o"]
    residual: float
    steps: int


class Point(NamedTuple):
    """Where a run stands."""

    thetas: np.ndarray
    phi: np.ndarray
    W: np.ndarray
    misfit: np.ndarray
    cost: float


def marquardt(rows: Rows, start: Start, steps: int) -> Fitted:
    """The minimum that `start` leads to. Cost: $O(Ro(mn)^2)$ operations a step, with n = $d^2$ in all directions."""
    at = _point(rows, start.thetas)
    damping, taken = 1e-2, 0
    while taken < steps and at.cost > EXACT * rows.square and (start.directions is None or len(start.directions)):
        H, gradient = normal(rows, at, start.directions)
        after = None
        for _ in range(REFUSALS):
            trial = _point(rows, at.thetas + _move(H, gradient, damping, (len(at.thetas), start.directions)))
            if trial.cost < at.cost:
                after = trial
                break
            damping *= 4
        if after is None:
            break
        gain, at, taken = 1 - after.cost / at.cost, after, taken + 1
        damping = max(damping / 5, 1e-12)
        if gain < LEAST_GAIN and taken >= PATIENCE:
            break
    return Fitted(at.thetas, at.W, float(np.sqrt(at.cost / rows.square)), taken)


def _point(rows: Rows, thetas: Float[np.ndarray, "m d d"]) -> Point:
    phi = features(rows, thetas)
    W = regression(phi, rows.Y)
    misfit = rows.Y - phi @ W
    cost = float(np.square(misfit).sum())
    return Point(thetas, phi, W, misfit, cost if np.isfinite(cost) else np.inf)


def _move(H: np.ndarray, gradient: np.ndarray, damping: float, shape: tuple[int, np.ndarray | None]) -> np.ndarray:
    heads, directions = shape
    trace = np.trace(H)
    diagonal = damping * (np.diag(H) + FLOOR * trace) + 1e-14 * trace
    step = np.linalg.solve(H + np.diag(diagonal), gradient).reshape(heads, -1)
    if directions is None:
        d = round(np.sqrt(step.shape[1]))
        return step.reshape(heads, d, d)
    return np.tensordot(step, directions, axes=1)


def normal(
    rows: Rows, at: Point, directions: Float[np.ndarray, "n d d"] | None
) -> tuple[Float[np.ndarray, "mn mn"], Float[np.ndarray, " mn"]]:
    """$J^\\top J$ and $J^\\top r$ of the Jacobian with the range of the features projected out, block by block."""
    Q = np.linalg.qr(at.phi)[0]
    count, o = rows.Y.shape
    columns = len(at.thetas) * (at.thetas[0].size if directions is None else len(directions))
    block = max(1, BLOCK_SCALARS // (o * columns))
    H, gradient = np.zeros((columns, columns)), np.zeros(columns)
    inside = np.zeros((Q.shape[1], o * columns))
    for first in range(0, count, block):
        some = slice(first, first + block)
        J = jacobian(rows.part(some), at.thetas, at.W, directions)
        flat = J.reshape(-1, columns)
        H += flat.T @ flat
        gradient += flat.T @ at.misfit[some].ravel()
        inside += Q[some].T @ J.reshape(len(J), -1)
    inside = inside.reshape(-1, columns)
    return H - inside.T @ inside, gradient


def jacobian(
    rows: Rows,
    thetas: Float[np.ndarray, "m d d"],
    W: Float[np.ndarray, "md o"],
    directions: Float[np.ndarray, "n d d"] | None = None,
) -> Float[np.ndarray, "R o m n"]:
    """Derivatives of the predictions at fixed W, in all entries of the attention matrices or along directions."""
    d = thetas.shape[-1]
    found = []
    for theta, ov in zip(thetas, W.reshape(len(thetas), d, -1), strict=True):
        p = weights(rows, theta)
        values = rows.X @ ov
        mean = np.einsum("rk,rko->ro", p, values)
        moved = (rows.X * p[..., None]).swapaxes(1, 2) @ (values - mean[:, None])
        if directions is None:
            found.append(np.einsum("rp,rqo->ropq", rows.query, moved).reshape(*mean.shape, -1))
        else:
            towards = np.einsum("rp,npq->rnq", rows.query, directions)
            found.append(np.einsum("rnq,rqo->ron", towards, moved))
    return np.stack(found, axis=2)
