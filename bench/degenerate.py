"""Layers in which heads coincide, cancel, mirror each other or ignore the token that asks."""

from collections.abc import Iterator
from functools import partial

import numpy as np

import attnlearn as al
from bench.data import KINDS, MIXTURES, SHARED_OV, Shape, Spoil, closer_or_wider, spoilt
from bench.solvers import queries
from bench.trial import Benchmark, Claim, Problem, Trial, by_problem, measure

NAMED, NAMED_SEEDS = Shape(24, 4, 5), 3
RANDOM, RANDOM_SEEDS = (Shape(12, 3, 3), Shape(16, 4, 4), Shape(24, 5, 5)), 200
SPOILS = (*KINDS.values(), closer_or_wider)
RTOL = 1e-6  # of the certificate


def trials(tiny: bool) -> Iterator[Trial]:
    kinds = {name: (spoil,) for name, spoil in KINDS.items()} | MIXTURES
    if tiny:
        kinds = {name: kinds[name] for name in ("equal", "opposite", "close")}
    for name, spoils in kinds.items():
        problem = Problem(name, partial(_box, RANDOM[0] if tiny else NAMED, spoils))
        for seed in range(1 if tiny else NAMED_SEEDS):
            yield measure(problem, queries(rtol=RTOL), seed)
    for seed in range(1 if tiny else RANDOM_SEEDS):
        yield measure(_random(seed), queries(rtol=RTOL), seed)


def _box(shape: Shape, spoils: tuple[Spoil, ...], seed: int) -> al.QueryOracle:
    return al.oracles.from_layer(spoilt(shape, spoils, seed))


def _random(seed: int) -> Problem:
    """A shape in turn and one to three kinds by chance."""
    key = np.random.default_rng([seed, 4])
    chosen = key.choice(len(SPOILS), size=key.integers(1, 4), replace=False)
    spoils = tuple(SPOILS[n] for n in chosen)
    name = "random, OV shared" if SHARED_OV & set(spoils) else "random, OV apart"
    return Problem(name, partial(_box, RANDOM[seed % len(RANDOM)], spoils))


def claims(found: list[Trial]) -> list[Claim]:
    wrong = sum(trial.recovered and trial.output > RTOL for trial in found)
    unlike = sum(trial.recovered and not trial.qk <= 1e-2 for trial in found)
    rows = [Claim(f"recovered with an output error above {RTOL:g}", wrong, "==", 0)]
    rows.append(Claim("recovered with other heads or Θ off by a hundredth", unlike, "==", 0))
    resolved = {name: float(np.mean([trial.recovered for trial in own])) for name, own in by_problem(found).items()}
    return rows + [Claim(f"{name}: part resolved", part) for name, part in resolved.items()]


BENCHMARK = Benchmark(
    "Is a degenerate layer resolved or refused by name, and never returned wrong as recovered?", trials, claims
)
