"""Planted problems of the specification for the tests of this folder, and twins by loops that several files need."""

from functools import cache
from typing import Any

import numpy as np

import attnlearn as al
from attnlearn.data.distributions import Planted
from attnlearn.data.examples import Examples
from attnlearn.learners.sculpting import LeastSquares, Sculpting
from attnlearn.learners.sculpting.certificates import Edges
from attnlearn.learners.sculpting.ov_sum import Refinement
from attnlearn.learners.sculpting.passes import Certificates, Passes
from attnlearn.learners.sculpting.tokens import DISTRIBUTIONS

CUBE, GAUSSIAN = DISTRIBUTIONS["cube"], DISTRIBUTIONS["gaussian"]
ONE_HEAD = 1, 6, 6, 6.0, 1000, 0  # m, d, k, R, N, seed: learned in a third of a second with QUICK
QUICK = Refinement(shares=(0.02,), rows=6000)
FAST_POLISH = LeastSquares(rows=1500, restarts=2)


@cache
def drawn(*problem) -> Examples:
    """The examples of a planted problem, made once."""
    return Planted(*problem).draw()


def truth(examples: Examples) -> al.AttentionLayer:
    assert examples.truth is not None
    return examples.truth


def qk(examples: Examples) -> np.ndarray:
    """The true attention matrices."""
    return np.asarray(truth(examples).qk)


def ov_sum(examples: Examples) -> np.ndarray:
    """The true sum of the OV circuits."""
    return np.asarray(truth(examples).ov).sum(axis=0)


def learned(examples: Examples, seed: int = 0, **options: Any) -> Any:
    """What the learner finds with few rounds of phase (iii)."""
    given: dict[str, Any] = {"refinement": QUICK} | options
    return Sculpting(**given).learn(examples, np.random.default_rng(seed))


def figures(result: Any, name: str) -> Any:
    """The figures of one phase."""
    (phase,) = (phase for phase in result.phases if phase.name == name)
    return phase.figures


def faithful(examples: Examples, **options: Any) -> Any:
    return learned(examples, polish=None, **options)


def passes(examples: Examples, chunk: int | None = None, executor=None) -> Passes:
    return Passes(examples, CUBE, chunk, executor)


def certificates(made: Passes, W: np.ndarray, error: float, most: int) -> Certificates:
    """The edges of least slack with this sum of the OV circuits, all directions alike."""
    return made.certificates(np.linalg.pinv(W), np.eye(len(W)), error, most)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def error(result: Any, examples: Examples) -> float:
    """The worst relative error of an attention matrix, after the best permutation of heads."""
    return al.distance(result.layer, truth(examples)).qk


def random_edges(key: np.random.Generator, d: int, n: int, residual: float = 1e-3) -> Edges:
    """Rows on edges between random corners."""
    query, u, v = (2.0 * key.integers(0, 2, (n, d)) - 1 for _ in range(3))
    v[np.arange(n), key.integers(0, d, n)] *= -1
    v = np.where((u == v).all(axis=1, keepdims=True), -u, v)
    share = key.uniform(0.1, 0.9, n)
    z = v + share[:, None] * (u - v)
    reach = np.linalg.norm(u - v, axis=1)
    return Edges(query, z, u, v, share, np.full(n, residual), reach, np.log(share / (1 - share)))
