"""The five experiments of the paper [@marion2025], at full length: 30 runs each, in exact dynamics of five scalars.

The starts of the first four are those of the authors' code, as stored overlaps; those of the fifth are drawn.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlearn.records import Study
from attnlearn.studies.points import each
from attnlearn.theory.single_location import (
    Trajectory,
    basins,
    descend,
    inverse_time,
    manifold_starts,
    oracle_risk,
    risk,
    sgd,
    sphere_starts,
    swapped_point,
)

QUESTION = "Where does training an erf attention layer on single-location regression end, from which starts, how fast?"
STORED_WIDTH, STORED_RUNS = 400, 30  # of the authors' starts; others are drawn
DIGITS = 6  # kept of every number of a curve


@dataclass(frozen=True)
class Experiment:
    """One configuration: `lam` is the slope at the first step, `rate` that of its schedule, `shown` the runs whose
    paths are drawn; a `batch` of 0 means exact gradients."""

    name: str
    lam: float
    step_size: float
    steps: int
    log_every: int
    start: str = "sphere"
    rate: float = 0.0
    shown: tuple[int, ...] = (0, 2)
    d: int = 400
    batch: int = 0
    every_run: bool = False  # all curves are kept, not only their quantiles


FIVE = (
    Experiment("init_manifold", 0.1, 4e-3, 20_000, 200, "manifold", shown=(0, 1)),
    Experiment("init_sphere_no_schedule_large_lambda", 0.9, 1e-3, 120_000, 300),
    Experiment("init_sphere_no_schedule_small_lambda", 0.1, 4e-3, 20_000, 200, shown=(5, 3, 12), every_run=True),
    Experiment("init_sphere_schedule", 1.0, 4e-3, 120_000, 300, rate=1e-4),
    Experiment("sgd_init_sphere_schedule", 2.0, 1e-3, 200_000, 500, rate=1e-4, shown=(0, 1), d=80, batch=5),
)


@dataclass(frozen=True)
class Design:
    """The experiments and what they share; `epsilon` is the label noise of the one with batches."""

    experiments: tuple[Experiment, ...] = FIVE
    runs: int = 30
    gamma_squared: float = 0.5
    tokens: int = 10
    epsilon: float = 0.1
    seed: int = 0


def single_location(design: Design = Design()) -> Study:
    """The five experiments of "Attention layers provably solve single-location regression", redrawn exactly."""
    rows, seconds = each("single-location", design, design.experiments, lambda one: _row(one, design))
    return Study("single-location", QUESTION, _answer(rows), asdict(design), rows, seconds)


def stored_starts(kind: str) -> Float[np.ndarray, "runs 5"]:
    """The authors' 30 starts at d = 400, as overlaps: `kind` is "manifold" or "sphere"."""
    text = resources.files("attnlearn.studies").joinpath("single_location_starts.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)[kind])


def _row(experiment: Experiment, design: Design) -> dict[str, Any]:
    starts = starts_of(experiment, design)
    found = trained(experiment, design, starts)
    task = np.sqrt(design.gamma_squared), experiment.d, design.tokens
    overlaps = np.concatenate([starts[:, None], found.overlaps], axis=1)
    risks = np.concatenate([risk(starts, experiment.lam, *task)[:, None], found.risk], axis=1)
    distance = np.sqrt(np.square(overlaps[..., 2:]).sum(axis=-1))
    curves = {"risk": risks, "kappa": np.abs(overlaps[..., 0]), "nu": np.abs(overlaps[..., 1]), "distance": distance}
    last = float(found.lam[0, -1])
    return {
        **asdict(experiment),
        "logged": [0, *map(int, found.steps)],
        "curves": {name: _bands(curve) for name, curve in curves.items()},
        "each_run": {name: _short(curve) for name, curve in curves.items()} if experiment.every_run else {},
        "paths": {str(run): _short(overlaps[run, :, :2].T) for run in experiment.shown if run < len(starts)},
        "ends": _ends(overlaps[:, -1], risks[:, -1]),
        "oracle_risk": float(oracle_risk(last, *task)),
        "swapped_risk": swapped_point(last, *task).risk,
        "beyond_the_edge": [[warning.run, warning.step] for warning in found.warnings],
    }


def starts_of(experiment: Experiment, design: Design) -> Float[np.ndarray, "runs 5"]:
    """The authors' starts where there are as many, else drawn ones of the same kind."""
    if experiment.d != STORED_WIDTH or design.runs > STORED_RUNS:
        draw = {"manifold": manifold_starts, "sphere": sphere_starts}[experiment.start]
        return draw(design.seed, design.runs, experiment.d)
    return stored_starts(experiment.start)[: design.runs]


def trained(experiment: Experiment, design: Design, starts: Float[np.ndarray, "runs 5"]) -> Trajectory:
    """The experiment from `starts`: descent, or SGD where it has batches."""
    schedule = inverse_time(experiment.rate) if experiment.rate else None
    task = experiment.lam, np.sqrt(design.gamma_squared), experiment.d, design.tokens
    length = experiment.step_size, experiment.steps, experiment.log_every
    if not experiment.batch:
        return descend(starts, *task, *length, schedule)
    return sgd(starts, *task, *length, schedule, experiment.batch, design.epsilon, design.seed)


def _ends(overlaps: Float[np.ndarray, "runs 5"], risks: Float[np.ndarray, " runs"]) -> dict[str, Any]:
    """For every basin that a run ended in: the runs, and the ranges of their risks and overlaps."""
    where, found = basins(overlaps), {}
    for basin in sorted(set(where.tolist())):
        here = where == basin
        kappa, nu, theta, eta, _ = np.abs(overlaps[here]).T
        ranges = {"risk": risks[here], "kappa": kappa, "nu": nu, "theta": theta, "eta": eta}
        found[basin] = {
            "runs": np.flatnonzero(here).tolist(),
            **{name: [float(values.min()), float(values.max())] for name, values in ranges.items()},
            "mean_risk": float(risks[here].mean()),
        }
    return found


def _bands(curves: Float[np.ndarray, "runs logs"]) -> dict[str, list[float]]:
    """The central 95 % over runs, and the mean."""
    low, high = np.quantile(curves, [0.025, 0.975], axis=0)
    return {"low": _short(low), "mean": _short(curves.mean(axis=0)), "high": _short(high)}


def _short(array: np.ndarray) -> Any:
    """Nested lists of numbers of a few digits."""
    return np.vectorize(lambda value: float(f"{value:.{DIGITS}g}"), otypes=[float])(array).tolist()


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    words = []
    for row in rows:
        ends = [f"{len(end['runs'])} {name} (risk {_range(end['risk'])})" for name, end in row["ends"].items()]
        beyond = len(row["beyond_the_edge"])
        edge = f", {beyond} beyond the edge of stability on the way" if beyond else ""
        words.append(f"{row['name']}: {', '.join(ends)}; at k*, v* {row['oracle_risk']:.4g}{edge}")
    return "Where the runs end. " + ". ".join(words) + "."


def _range(ends: Sequence[float]) -> str:
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"{low} to {high}"
