"""Random layers of four shapes, with all biases."""

from collections.abc import Iterator
from functools import partial

import numpy as np

import attnlearn as al
from bench.data import TINY, Shape, drawn
from bench.solvers import queries
from bench.trial import Benchmark, Claim, Problem, Trial, by_problem, measure, worst

SHAPES, SEEDS = (Shape(32, 4, 8), Shape(64, 8, 8), Shape(64, 12, 8), Shape(48, 6, 16)), 20


def trials(tiny: bool) -> Iterator[Trial]:
    for shape in (TINY,) if tiny else SHAPES:
        problem = Problem(f"d, m, dh = {shape}", partial(_box, shape))
        for seed in range(2 if tiny else SEEDS):
            yield measure(problem, queries(), seed)


def _box(shape: Shape, seed: int) -> al.QueryOracle:
    return al.oracles.from_layer(drawn(shape, 100 + seed))


def claims(found: list[Trial]) -> list[Claim]:
    rows = []
    for problem, own in by_problem(found).items():
        within = [trial.recovered and trial.qk <= 1e-8 for trial in own]
        rows.append(Claim(f"{problem}: part recovered with Θ within 1e-8", float(np.mean(within)), "==", 1.0))
        rows.append(Claim(f"{problem}: worst head Θ", worst(own, "qk"), "<=", 1e-8))
    wrong = sum(trial.recovered and trial.qk > 1e-8 for trial in found)
    return [*rows, Claim("wrong and called recovered", wrong, "==", 0)]


BENCHMARK = Benchmark("Are layers that nobody trained copied every time, dense OV circuits too?", trials, claims)
