"""Ours beside Adam and L-BFGS on the same examples, in turn: what both comparisons run, and what they count."""

from collections.abc import Iterator

import numpy as np

from bench.examples.baselines import LBFGS, Adam
from bench.examples.fit import Fit, best, chosen, fits, ours
from bench.examples.planted import Planted
from bench.trial import Claim, by_problem

BUDGETS = (4000, 20000)  # steps of Adam; the larger only where no rate reached the target with the smaller


def contest(problem: Planted, seed: int, budgets: tuple[int, ...] = BUDGETS, whiten: bool = False) -> Iterator[Fit]:
    """One round; `whiten`: the baselines also run on tokens whitened as ours are."""
    yield from fits(problem, ours(problem), seed)
    for whitened in (False, True)[: 1 + whiten]:
        for steps in budgets:
            tried = list(fits(problem, Adam(problem.heads, steps, whitened), seed))
            yield from tried
            if any(fit.solved for fit in tried):
                break
        for project in (False, True):
            yield from fits(problem, LBFGS(problem.heads, project, whitened), seed)


def rounds(problem: Planted, seeds: int, contests: int, whiten: bool = False) -> Iterator[Fit]:
    """So many seeds of ours; the baselines, which take most of the time, on the first of them only."""
    for seed in range(seeds):
        yield from contest(problem, seed, whiten=whiten) if seed < contests else fits(problem, ours(problem), seed)


def compared(found: list[Fit]) -> Iterator[Claim]:
    """For every problem and baseline the part of the runs solved in the time of ours, and the ratio of the times."""
    for problem, own in by_problem(found).items():
        mine = best(chosen(own, problem, "ours"))
        for solver in dict.fromkeys(fit.solver for fit in own if fit.solver != "ours"):
            pairs = list(zip(mine, best(chosen(own, problem, solver)), strict=False))  # the seeds that both ran
            within = float(np.mean([b.solved and b.to_target <= a.seconds for a, b in pairs]))
            yield Claim(f"{problem}: {solver}, part solved in the time of ours", within)
            yield Claim(f"{problem}: {solver} over ours, time to target", ratio(pairs))


def ratio(pairs: list[tuple[Fit, Fit]]) -> float:
    """Median over the seeds that both solved of (time of the second) / (time of the first); NaN without any."""
    ratios = [b.to_target / a.to_target for a, b in pairs if a.solved and b.solved]
    return float(np.median(ratios)) if ratios else np.nan


def part_solved(fits: list[Fit]) -> float:
    """Part of the runs whose worst head came within the target."""
    return float(np.mean([fit.solved for fit in fits]))
