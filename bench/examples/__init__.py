"""Benchmarks of learning from examples: planted problems, fits of ours and of baselines, one module a question."""

from bench.examples import against_adam, few, hard, large, noise, slots, table

BENCHMARKS = {
    "examples": table.BENCHMARK,
    "few-examples": few.BENCHMARK,
    "hard-examples": hard.BENCHMARK,
    "noise": noise.BENCHMARK,
    "against-adam": against_adam.BENCHMARK,
    "example-sizes": large.BENCHMARK,
    "slots": slots.BENCHMARK,
}
