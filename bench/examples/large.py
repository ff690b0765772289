"""The largest layers: time, and memory in a process of its own."""

import multiprocessing
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

from bench.examples.contest import part_solved
from bench.examples.fit import Fit, fits, ours
from bench.examples.planted import Planted
from bench.trial import Benchmark, Claim, by_problem, worst

SIZES = (
    Planted(128, 4, 32, ratio=4.0),
    Planted(64, 16, 32, ratio=4.0),
    Planted(32, 32, 32, ratio=4.0),
    Planted(128, 8, 32, ratio=16.0, rank=16),  # numbers per degree of freedom of the thin layer; 3.8 of the full one
)
PEAK = "peak GiB"


def trials(tiny: bool) -> Iterator[Fit]:
    for problem in (Planted(8, 2, 8, ratio=4.0),) if tiny else SIZES:
        context = multiprocessing.get_context("spawn")  # JAX and fork do not mix
        with ProcessPoolExecutor(1, mp_context=context) as child:
            yield child.submit(_measured, problem, 0).result()


def _measured(problem: Planted, seed: int) -> Fit:
    """One fit with the peak memory of this process, Python and JAX with it."""
    (fit,) = fits(problem, ours(problem), seed)
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB on Linux
    return replace(fit, figures={PEAK: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit})


def claims(found: list[Fit]) -> list[Claim]:
    rows = []
    for problem, own in by_problem(found).items():
        rows.append(Claim(f"{problem}: part solved", part_solved(own), "==", 1.0))
        rows.append(Claim(f"{problem}: seconds", worst(own, "seconds"), "<=", 180.0))
        rows.append(Claim(f"{problem}: seconds of compiling", worst(own, "compile_seconds")))
        rows.append(Claim(f"{problem}: peak memory, GiB", max(fit.figures[PEAK] for fit in own), "<=", 4.0))
    return rows


BENCHMARK = Benchmark("How long do the largest layers take, and how much memory?", trials, claims, Fit)
