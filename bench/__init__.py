"""Benchmarks of attnlearn: data, objectives, solvers, and one module for every question that is measured.

They run from a checkout: `python -m bench NAME`, `python -m bench --list`. Learning from examples is measured in
`bench.examples`.
"""

from bench import against_gradient, degenerate, examples, minilm, precision, random_layers, single_location

BENCHMARKS = {
    "minilm": minilm.BENCHMARK,
    "random-layers": random_layers.BENCHMARK,
    "degenerate": degenerate.BENCHMARK,
    "precision": precision.BENCHMARK,
    "against-gradient": against_gradient.BENCHMARK,
    "single-location": single_location.BENCHMARK,
    **examples.BENCHMARKS,
}
