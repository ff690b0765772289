"""Random layers of six sizes with four spreads of the logits, at five examples for every unknown."""

from collections.abc import Iterator

import numpy as np

from bench.examples.contest import part_solved
from bench.examples.fit import TARGET, Fit, fits, ours
from bench.examples.planted import Planted
from bench.trial import Benchmark, Claim, by_problem, worst

SIZES = ((4, 2, 8), (8, 2, 8), (8, 4, 16), (16, 4, 16), (16, 8, 16), (32, 4, 16))  # width, heads, tokens
LOGITS, SEEDS = (0.5, 1.0, 2.0, 4.0), 10


def trials(tiny: bool) -> Iterator[Fit]:
    problems = [Planted(*size, logit_std=logit_std) for size in SIZES for logit_std in LOGITS]
    for problem in problems[1:4:2] if tiny else problems:
        for seed in range(2 if tiny else SEEDS):
            yield from fits(problem, ours(problem), seed)


def claims(found: list[Fit]) -> list[Claim]:
    rows = []
    for problem, own in by_problem(found).items():
        rows.append(Claim(f"{problem}: part solved", part_solved(own), "==", 1.0))
        rows.append(Claim(f"{problem}: most seconds", worst(own, "seconds"), "<=", 10.0))
    rows.append(Claim("median error", float(np.median([fit.error for fit in found]))))
    return [*rows, wrong(found)]


def wrong(found: list[Fit]) -> Claim:
    """Runs that missed the target and were called learned."""
    return Claim(
        f"learned with an error above {TARGET:g}",
        sum(fit.status == "LEARNED" and not fit.solved for fit in found),
        "==",
        0,
    )


BENCHMARK = Benchmark(
    "Is every random layer recovered from five times as many numbers as it has unknowns?", trials, claims, Fit
)
