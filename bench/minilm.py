"""The six attention layers of all-MiniLM-L6-v2, copied from queries."""

from collections.abc import Iterator
from functools import partial

import numpy as np

import attnlearn as al
from bench.data import TINY, drawn
from bench.solvers import queries
from bench.trial import Benchmark, Claim, Problem, Trial, measure, starting, worst

LAYERS, HEAD_DIM, SEEDS = 6, 32, 5
PLAIN = queries()


def trials(tiny: bool) -> Iterator[Trial]:
    if tiny:
        small = Problem("layer 0", lambda seed: al.oracles.from_layer(drawn(TINY, 100)))
        yield measure(small, PLAIN, 0)
        yield measure(small, queries("economy", economy=True, head_dim=TINY.head_dim), 0)
        return
    for layer in range(LAYERS):
        yield measure(Problem(f"layer {layer}", partial(_box, layer=layer)), PLAIN, 0)
    yield measure(Problem("layer 0, causal", partial(_box, layer=0, causal=True)), PLAIN, 0)
    for seed in range(SEEDS):
        economy = queries("economy", economy=True, head_dim=HEAD_DIM)
        yield measure(Problem("layer 0", partial(_box, layer=0)), economy, seed)


def _box(seed: int, layer: int, causal: bool = False) -> al.QueryOracle:
    return al.pretrained("minilm", layer, causal)


def claims(found: list[Trial]) -> list[Claim]:
    causal, economy = starting(found, "layer 0, causal"), starting(found, "layer", "economy")
    plain = [trial for trial in starting(found, "layer", "queries") if trial not in causal]
    rows = [
        Claim("all recovered", float(np.mean([trial.recovered for trial in found])), "==", 1.0),
        Claim("worst head Θ", worst(plain, "qk"), "<=", 1e-8),
        Claim("worst head W", worst(plain, "ov"), "<=", 1e-9),
        Claim("most calls", worst(plain, "calls"), "<=", 1600),
        Claim("most seconds", worst(plain, "seconds"), "<=", 30),
        Claim("economy: worst head Θ", worst(economy, "qk"), "<=", 1e-8),
        Claim("economy: median calls", float(np.median([trial.calls for trial in economy])), "<=", 1250),
    ]
    if causal:
        rows += [
            Claim("causal: worst head Θ", worst(causal, "qk"), "<=", 1e-8),
            Claim("causal: worst head W", worst(causal, "ov"), "<=", 1e-9),
            Claim("causal: calls", worst(causal, "calls"), "<=", 1700),
        ]
    return rows


BENCHMARK = Benchmark(
    "Are all layers of a trained model copied exactly, with the number of heads and their dimension unknown, "
    "and how many questions does it take?",
    trials,
    claims,
)
