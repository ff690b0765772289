"""Tokens or heads that are badly scaled: ours, and the baselines on raw and on whitened tokens."""

from collections.abc import Iterator

from bench.examples.contest import compared, contest, part_solved, rounds
from bench.examples.fit import Fit, chosen
from bench.examples.planted import Planted
from bench.trial import Benchmark, Claim, by_problem

SIZE, SEEDS, CONTESTS = (8, 4, 16), 10, 3
CORRELATED_TOKENS = Planted(*SIZE, law="gaussian", condition=1e3)
HEADS = (Planted(*SIZE, cosine=0.9), Planted(*SIZE, cosine=0.99), Planted(*SIZE, norm_span=100.0))


def trials(tiny: bool) -> Iterator[Fit]:
    if tiny:
        yield from contest(Planted(4, 2, 8, law="gaussian", condition=1e3), 0, budgets=(200,), whiten=True)
        return
    for problem in (CORRELATED_TOKENS, *HEADS):
        yield from rounds(problem, SEEDS, CONTESTS, whiten=problem is CORRELATED_TOKENS)


def claims(found: list[Fit]) -> list[Claim]:
    problems = by_problem(found)
    rows = [
        Claim(f"{name}: ours, part solved", part_solved(chosen(own, name, "ours")), "==", 1.0)
        for name, own in problems.items()
    ]
    return [*rows, *compared(found)]


BENCHMARK = Benchmark(
    "Are badly scaled tokens and heads recovered, and how far do Adam and L-BFGS come there?", trials, claims, Fit
)
