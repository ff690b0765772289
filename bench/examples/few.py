"""Few examples: little more than the unknowns, and few but long sequences."""

from collections.abc import Iterator

from bench.examples.contest import part_solved
from bench.examples.fit import Fit, fits, ours
from bench.examples.planted import Planted
from bench.examples.table import wrong
from bench.trial import Benchmark, Claim, by_problem

SIZES = ((8, 2, 8), (8, 4, 16), (16, 4, 16))
SEEDS = 20
LONG, LONG_SEEDS = Planted(8, 4, 64, logit_std=4.0, law="gaussian"), 10
LONG_MORE = Planted(8, 4, 64, ratio=20.0, logit_std=4.0, law="gaussian")


def problems(sizes: tuple[tuple[int, int, int], ...]) -> dict[Planted, float]:
    """The part that should be solved of each."""
    flat = {Planted(*size, ratio=2.5): 0.95 for size in sizes}
    return flat | {Planted(*size, ratio=3.0, logit_std=4.0): 0.9 for size in sizes}


TARGETS = {problem.name: part for problem, part in (problems(SIZES) | {LONG: 0.8}).items()}


def trials(tiny: bool) -> Iterator[Fit]:
    if tiny:
        runs = [(problem, 2) for problem in problems(SIZES[:1])]
    else:
        runs = [(problem, SEEDS) for problem in problems(SIZES)] + [(LONG, LONG_SEEDS), (LONG_MORE, LONG_SEEDS)]
    for problem, seeds in runs:
        for seed in range(seeds):
            yield from fits(problem, ours(problem), seed)


def claims(found: list[Fit]) -> list[Claim]:
    parts = {problem: part_solved(own) for problem, own in by_problem(found).items()}
    rows = [Claim(f"{name}: part solved", part, ">=", TARGETS.get(name)) for name, part in parts.items()]
    return [*rows, wrong(found)]


BENCHMARK = Benchmark("How few examples are enough, and how few long ones?", trials, claims, Fit)
