"""Every normaliser with every mask, circuits of full and of low rank, from random starts."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import attnlearn as al
from bench.examples.fit import Fit, fits, ours
from bench.examples.planted import Planted
from bench.trial import Benchmark, Claim, by_problem, worst

NORMALISERS = (al.Softmax(), al.Sigmoid(), al.ReLU(), al.Linear(), al.Erf())
MASKS = (None, al.Causal(), al.Window(3))
RANKS = (None, 2)
RATIO, SEEDS = 8.0, 3  # a window shows few tokens
EXTRA = "nullity beyond the gauge"


def trials(tiny: bool) -> Iterator[Fit]:
    slots = [al.Slots(*chosen) for chosen in product(NORMALISERS, MASKS)]
    for slot, rank in [(slots[1], None), (slots[6], 2)] if tiny else product(slots, RANKS):
        problem = Planted(6, 2, 8, ratio=RATIO, rank=rank, law="gaussian", slots=slot)
        for seed in range(1 if tiny else SEEDS):
            for fit in fits(problem, ours(problem), seed):
                yield replace(fit, figures={EXTRA: _extra(problem, seed)})


def _extra(problem: Planted, seed: int) -> int:
    """Nullity of the Jacobian at the hidden layer on its own inputs, less the gauge in closed form."""
    found = al.identifiability(problem.layer(seed), problem.inputs(seed, problem.sequences))
    return found.dimension - found.expected


def claims(found: list[Fit]) -> list[Claim]:
    rows = [
        Claim(f"{problem}: worst held-out error", worst(own, "held_out"), "<=", 1e-8)
        for problem, own in by_problem(found).items()
    ]
    wrong = sum(fit.figures[EXTRA] != 0 for fit in found)
    return [*rows, Claim("nullity of the Jacobian other than the gauge", wrong, "==", 0)]


BENCHMARK = Benchmark("Is every slot recovered, and is its gauge the one in closed form?", trials, claims, Fit)
