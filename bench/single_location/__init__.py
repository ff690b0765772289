"""Single-location regression: steps of five scalars, and of seven, against steps of the vectors, in one process."""

from bench.single_location.lap import Lap
from bench.single_location.race import claims, trials
from bench.trial import Benchmark

BENCHMARK = Benchmark(
    "How much cheaper is a step of the exact dynamics, logs and sharpness included, than a step of the vectors, "
    "and what do the five experiments cost?",
    trials,
    claims,
    Lap,
)
