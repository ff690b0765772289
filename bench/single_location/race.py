"""One run in a loop, all runs in a scan, and ours take turns; then the five experiments at full length."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats

from attnlearn.studies.single_location import FIVE, Experiment, starts_of, trained
from attnlearn.theory.single_location import Trajectory, basins
from bench.clock import compilations
from bench.single_location.baselines import TASK, Vectors, folded_loop, loop, scan
from bench.single_location.lap import Lap
from bench.trial import Claim, by_problem

ROUNDS = 7
LOOP, FOLDED, SCAN, OURS = "one run in a loop", "one run in a loop, slope compiled in", "all runs in a scan", "ours"
BASELINES = {LOOP: loop, FOLDED: folded_loop, SCAN: scan}
SAME = 1e-9  # between overlaps of steps in float64; rounding leaves less than a thousandth of it
SAME_FLOAT32 = 1e-3  # the same for SGD in float32: rounding leaves 1e-4 after 500 steps, other sequences .05
UNLIKE = 6.0  # -log10 of the p-value of the test that ours has the law of the scan: of so many runs, after so few steps
REPLICAS, FEW = 1000, 20
SECONDS = {"four experiments of descent": (10.0, 20.0), "experiment of SGD": (40.0, None)}  # running, compiling
LENGTHS = dict(zip(SECONDS, (FIVE[:4], FIVE[4:]), strict=True))


@dataclass(frozen=True)
class Job:
    """An experiment whose first steps are timed: so many logs of ours and of the baselines.

    `compared`: logs at which states must be the same; beyond the edge of stability paths follow their rounding.
    `faster`: how many times a loop and a scan are to take longer than ours.
    """

    name: str
    experiment: Experiment
    n_logs: int
    baseline_logs: int
    compared: int
    faster: tuple[float, float]

    @property
    def solvers(self) -> tuple[str, ...]:
        """In the order of their turns; only descent at a fixed slope has one that can be compiled in."""
        fixed = not self.experiment.rate and not self.experiment.batch
        return (LOOP, *[FOLDED] * fixed, SCAN, OURS)

    def steps(self, solver: str) -> int:
        """The steps that are timed of a solver."""
        return self.experiment.log_every * (self.n_logs if solver == OURS else self.baseline_logs)

    def tiny(self) -> "Job":
        """Two logs of ten steps; their times say nothing, so they have a name without a target."""
        short = replace(self.experiment, log_every=10)
        return replace(self, name=f"{self.name}, tiny", experiment=short, n_logs=2, baseline_logs=2, compared=2)


JOBS = (
    Job("fixed slope", FIVE[2], 100, 10, 10, (300.0, 8.0)),
    Job("schedule", FIVE[3], 400, 7, 1, (200.0, 5.0)),
    Job("SGD", FIVE[4], 20, 1, 1, (40.0, 4.0)),
)


def trials(tiny: bool) -> Iterator[Lap]:
    if tiny:
        for job in JOBS:
            yield from rounds(job.tiny(), runs=3, n=1)
        for name, experiments in LENGTHS.items():
            few = [replace(one, steps=20, log_every=10) for one in experiments]
            yield full(f"{name}, tiny", few, runs=3, allowed=1.0)
        return
    for job in JOBS:
        jax.clear_caches()  # nothing that was compiled for another job is at hand
        yield from rounds(job, TASK.runs, ROUNDS)
    for name, experiments in LENGTHS.items():
        jax.clear_caches()
        yield full(name, experiments, TASK.runs, allowed=0.0)


def rounds(job: Job, runs: int, n: int) -> Iterator[Lap]:
    """`n` rounds after one that compiles and is not timed; the solvers take turns in each.

    Runs on the same sequences, or on none, must be in the scan's states. Those of ours on other sequences must have
    the scan's law, which is tested beforehand.
    """
    experiment, starts = job.experiment, _starts(job.experiment, runs)
    calls = {solver: partial(_run, solver, experiment, starts, job.steps(solver)) for solver in job.solvers}
    first = {solver: _timed(partial(call, 0)) for solver, call in calls.items()}
    law = unlike(replicas(OURS, experiment), replicas(SCAN, experiment)) if experiment.batch else 0.0
    for seed in range(1, n + 1):
        took = {solver: _timed(partial(call, seed)) for solver, call in calls.items()}
        states = {solver: _states(one.found)[: job.compared] for solver, one in took.items()}
        for solver, own in states.items():
            apart, allowed = _apart(own, states[SCAN]), SAME_FLOAT32 if experiment.batch else SAME
            if experiment.batch and solver == OURS:
                apart, allowed = law, UNLIKE
            yield Lap(
                problem=job.name,
                solver=solver,
                seed=seed,
                dtype="float32" if experiment.batch and solver != OURS else "float64",
                runs=own.shape[1],
                steps=job.steps(solver),
                apart=apart,
                allowed=allowed,
                seconds=took[solver].seconds if apart <= allowed else np.nan,
                compile_seconds=first[solver].compile_seconds,
            )


def full(name: str, experiments: Sequence[Experiment], runs: int, allowed: float) -> Lap:
    """All steps of some experiments, once; `apart` is the part of the runs that end in no basin."""
    took = _timed(lambda: [ours(one, _starts(one, runs), one.steps, TASK.seed) for one in experiments])
    undecided = float(np.mean([basins(one.overlaps[:, -1]) == "undecided" for one in took.found]))
    seconds = took.seconds if undecided <= allowed else np.nan
    steps = sum(one.steps for one in experiments)
    return Lap(name, OURS, 1, "float64", runs, steps, undecided, allowed, seconds, took.compile_seconds)


def ours(experiment: Experiment, starts: np.ndarray, steps: int, seed: int) -> Trajectory:
    """`descend` or `sgd` as a user calls them, with all that they log and watch."""
    return trained(replace(experiment, steps=steps), replace(TASK, seed=seed), starts)


def claims(found: list[Lap]) -> list[Claim]:
    targets = {job.name: dict(zip((LOOP, SCAN), job.faster, strict=True)) for job in JOBS}
    rows = [Claim("part that agrees", float(np.mean([lap.agrees for lap in found])), "==", 1.0)]
    for problem, own in by_problem(found).items():
        for solver in dict.fromkeys(lap.solver for lap in own if lap.solver != OURS):
            faster = targets.get(problem, {}).get(solver)
            rows.append(Claim(f"{problem}: {solver} over ours, time of a run's step", ratio(own, solver), ">=", faster))
    for problem, own in by_problem(found).items():
        if {lap.solver for lap in own} == {OURS}:
            running, compiling = SECONDS.get(problem, (None, None))
            rows.append(Claim(f"{problem}, full length: seconds", own[0].seconds, "<=", running))
            rows.append(Claim(f"{problem}, full length: seconds of compiling", own[0].compile_seconds, "<=", compiling))
    return rows


def ratio(laps: list[Lap], solver: str) -> float:
    """Median over the rounds of how many times longer a step of one run takes than ours; NaN if one went elsewhere."""
    took = {(lap.solver, lap.seed): lap.step_time / lap.runs for lap in laps}
    return float(np.median([time / took[OURS, seed] for (name, seed), time in took.items() if name == solver]))


class _Took(NamedTuple):
    found: Any
    seconds: float  # without compilation
    compile_seconds: float


def _timed(call: Callable[[], Any]) -> _Took:
    with compilations() as spans:
        before = time.perf_counter()
        found = call()
        total = time.perf_counter() - before
    compiling = sum((end - start for start, end in spans), 0.0)
    return _Took(found, total - compiling, compiling)


def _run(solver: str, experiment: Experiment, starts: np.ndarray, steps: int, seed: int) -> Trajectory | list[Vectors]:
    if solver == OURS:
        return ours(experiment, starts, steps, seed)
    with jax.enable_x64(not experiment.batch):
        return BASELINES[solver](experiment, starts, steps // experiment.log_every, seed)


def _states(found: Trajectory | list[Vectors]) -> np.ndarray:
    """The overlaps (logs, runs, 5) of what a solver logged."""
    if isinstance(found, Trajectory):
        return found.overlaps.swapaxes(0, 1)
    return np.stack([np.reshape(one.states, (-1, 5)) for one in found])


def _starts(experiment: Experiment, runs: int) -> np.ndarray:
    return starts_of(experiment, replace(TASK, runs=runs))


def _apart(own: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of overlaps (logs, runs, 5) from those of the scan's first logs and runs."""
    return float(np.abs(own - reference[: len(own), : own.shape[1]]).max())


def replicas(solver: str, experiment: Experiment) -> np.ndarray:
    """The overlaps (REPLICAS, 5) of as many runs of the solver, after a few steps from one start."""
    starts = np.tile(_starts(experiment, 1), (REPLICAS, 1))
    return _states(_run(solver, replace(experiment, log_every=FEW), starts, FEW, TASK.seed))[-1]


def unlike(own: np.ndarray, reference: np.ndarray) -> float:
    r"""How surely two samples (REPLICAS, 5) differ in law: $-\log_{10}p$ of Kolmogorov and Smirnov's test, $p$ five
    times the smallest of the five overlaps."""
    tests: list[Any] = [scipy.stats.ks_2samp(a, b) for a, b in zip(own.T, reference.T, strict=True)]
    p = 5 * min(test.pvalue for test in tests)
    return float(np.log10(1 / np.clip(p, np.finfo(float).tiny, 1.0)))
