"""Black boxes that answer in float32 or with additive noise."""

from collections.abc import Iterator

import numpy as np

import attnlearn as al
from bench.data import TINY, Shape, drawn, noisy
from bench.solvers import queries
from bench.trial import Benchmark, Claim, Problem, Trial, measure, starting, worst

SHAPE = Shape(64, 8, 8)
NOISE, AMPLITUDE = 1e-4, 1e3


def trials(tiny: bool) -> Iterator[Trial]:
    layer = drawn(TINY if tiny else SHAPE, 1)
    single = Problem("random, float32", lambda seed: al.oracles.from_layer(layer, dtype="float32"))
    blurred = Problem("random, noise", lambda seed: noisy(layer, NOISE, seed))
    yield measure(single, queries(), 0)
    for amplitude in (1.0, AMPLITUDE):
        yield measure(blurred, queries(f"queries, amplitude {amplitude:g}", rtol=10 * NOISE, amplitude=amplitude), 0)
    if not tiny:
        trained = Problem("MiniLM layer 0, float32", lambda seed: al.pretrained("minilm", dtype="float32"))
        yield measure(trained, queries(), 0)


def claims(found: list[Trial]) -> list[Claim]:
    rows = [Claim("random, float32: worst head Θ", worst(starting(found, "random, float32"), "qk"), "<=", 1e-6)]
    for trial in starting(found, "random, noise"):
        errors = (trial.qk, trial.ov, trial.query_bias, trial.offset)
        rows.append(Claim(f"noise, {trial.solver}: worst error over τ", max(errors) / NOISE, "<=", 3.0))
    if trained := starting(found, "MiniLM"):
        rows.append(Claim("MiniLM layer 0, float32: worst head Θ", worst(trained, "qk"), "<=", 1e-5))
    rows.append(Claim("part recovered", float(np.mean([trial.recovered for trial in found]))))
    return rows


BENCHMARK = Benchmark("How exact is the copy of a box that rounds to float32 or adds noise?", trials, claims)
