r"""Which start goes where on the manifold $\theta=\eta=\rho=0$, under gradient flow and under descent?

On it the state is $(\kappa,\nu)$. The flow's basins are those of the minima $(1,1)$ and $(-1,-1)$, with the stable
curve of the saddle $(0,0)$ between them. The same starts are descended with several step sizes: where a step carries a
run over the curve, it ends in the other basin.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlearn.records import Study
from attnlearn.studies.points import Row, each
from attnlearn.theory.single_location import descend, flow, saddle, separatrix

NAME = "single-location-manifold"
QUESTION = "Which start goes where on the invariant manifold, and does descent end where the flow does?"
ARRIVED = 0.99  # |kappa| and |nu| from which on a run counts as at its minimum

Starts = Float[np.ndarray, "starts 5"]


@dataclass(frozen=True)
class Design:
    """Slopes, task, step sizes; `side` starts and `orbits` drawn orbits along each axis, both numbers even, so that no
    start is the saddle; and the time (step size times steps) that all of them run."""

    lams: tuple[float, ...] = (0.1, 0.3, 0.9)
    gamma_squared: float = 0.5
    d: int = 400
    tokens: int = 10
    step_sizes: tuple[float, ...] = (0.004, 0.016, 0.064)
    side: int = 50
    orbits: int = 6
    time: float = 40.0


def single_location_manifold(design: Design = Design()) -> Study:
    """Basins of the flow on a grid of the plane, the curve between them, and the starts that descent carries over."""
    rows, seconds = each(NAME, design, design.lams, lambda lam: _row(lam, design))
    return Study(NAME, QUESTION, answer(rows, design), asdict(design), rows, seconds)


def _row(lam: float, design: Design) -> Row:
    gamma, d = math.sqrt(design.gamma_squared), design.d
    starts = _grid(design.side)
    end = flow(starts, lam, gamma, d, [design.time]).overlaps[:, -1]
    basin = np.sign(end[:, 1])
    between = separatrix(starts[:, 0], lam, gamma, d)
    point, curve = saddle(lam, gamma, d), np.linspace(-1, 1, 203)[1:-1]
    return {
        "lam": lam,
        "eigenvalues": list(point.eigenvalues),
        "unstable": list(point.unstable),
        "curve": {"kappa": curve.tolist(), "nu": separatrix(curve, lam, gamma, d).tolist()},
        "basins": basin.astype(int).reshape(design.side, -1).tolist(),  # a list for every nu, of every kappa
        "beside_curve": int((basin != np.where(starts[:, 1] > between, 1, -1)).sum()),
        "arrived": float((np.abs(end[:, :2]) > ARRIVED).all(axis=1).mean()),
        "orbits": _orbits(lam, design),
        "moved": [_moved(starts, basin, (lam, step_size), design) for step_size in design.step_sizes],
    }


def _orbits(lam: float, design: Design) -> list[dict[str, list[float]]]:
    """Orbits of the flow from a coarse grid, to five digits."""
    times = np.concatenate([[0.0], np.geomspace(1e-2, design.time, 50)])
    found = flow(_grid(design.orbits), lam, math.sqrt(design.gamma_squared), design.d, times).overlaps.round(5)
    return [{"kappa": one[:, 0].tolist(), "nu": one[:, 1].tolist()} for one in found]


def _moved(starts: Starts, basin: np.ndarray, run: tuple[float, float], design: Design) -> dict[str, Any]:
    """The starts (kappa, nu) that descent leads to the other minimum than the flow."""
    lam, step_size = run
    n_steps = round(design.time / step_size)
    gamma = math.sqrt(design.gamma_squared)
    end = descend(starts, lam, gamma, design.d, design.tokens, step_size, n_steps, n_steps).overlaps[:, -1]
    return {"step_size": step_size, "starts": starts[np.sign(end[:, 1]) != basin, :2].tolist()}


def _grid(side: int) -> Starts:
    """The centres of `side` times `side` equal squares of the plane, row after row of nu."""
    centres = -1 + (2 * np.arange(side) + 1) / side
    kappa, nu = (axis.ravel() for axis in np.meshgrid(centres, centres))
    return np.column_stack([kappa, nu, np.zeros((side**2, 3))])


def answer(rows: Sequence[Row], design: Design) -> str:
    """How many starts descent leads elsewhere, by slope and step size, and how many orbits of the flow arrive."""
    starts = design.side**2
    words = []
    for row in rows:
        counts = ", ".join(f"{len(one['starts'])} at step size {one['step_size']:g}" for one in row["moved"])
        words.append(f"lambda = {row['lam']:g}: {counts}")
    beside, arrived = sum(row["beside_curve"] for row in rows), [f"{100 * row['arrived']:.0f} %" for row in rows]
    return (
        f"Of {starts} starts the flow leads {_all_but(beside, starts * len(rows))} to the side of the saddle's stable "
        f"curve that they start on; by time {design.time:g}, {', '.join(arrived)} of them have |kappa| and |nu| above "
        f"{ARRIVED:g}. Descent ends on the other side from this many: {'; '.join(words)}."
    )


def _all_but(beside: int, number: int) -> str:
    return "all" if not beside else f"all but {beside} of {number}"
