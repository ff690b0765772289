"""Phase (ii), the general pattern: bounds of the weights against their definition, and slabs against the truth."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from attnlearn.learners.sculpting import patterns
from attnlearn.learners.sculpting.patterns import closed_bounds, program_bounds
from tests.learners.sculpting import small


def bounds_by_corners(z, tokens, delta):
    """Least and greatest weights over all corners of the program's polytope: n - 1 of its inequalities are tight."""
    n = len(tokens)
    G = np.r_[tokens.T, -tokens.T, -np.eye(n)]
    h = np.r_[z + delta, delta - z, np.zeros(n)]
    ends = np.full((2, n), [[2.0], [-1.0]])
    for tight in itertools.combinations(range(len(G)), n - 1):
        A = np.r_[np.ones((1, n)), G[list(tight)]]
        if abs(np.linalg.det(A)) < 1e-9:
            continue
        p = np.linalg.solve(A, np.r_[1.0, h[list(tight)]])
        if np.all(G @ p <= h + 1e-9):
            ends = np.array([np.minimum(ends[0], p), np.maximum(ends[1], p)])
    return ends


def different(key, n, d):
    """So many different corners."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=d)))[key.permutation(2**d)[:n]]


@pytest.mark.parametrize("n, d", [(3, 4), (4, 2), (4, 3)])  # four corners of a square: affinely dependent
def test_programs_give_the_tightest_bounds(key, n, d):
    for _ in range(4):
        tokens, p = different(key, n, d), key.dirichlet(np.ones(n))
        found = program_bounds(p @ tokens, tokens, 0.05)
        low, high = bounds_by_corners(p @ tokens, tokens, 0.05)
        assert found.feasible
        assert np.abs(found.low - low).max() < 1e-6 and np.abs(found.high - high).max() < 1e-6  # HiGHS: 1e-7
        assert np.all(found.low <= p + 1e-6) and np.all(p <= found.high + 1e-6)


def test_an_effective_token_that_no_pattern_explains_is_rejected(key):
    tokens = different(key, 3, 4)
    far = 2 * tokens[0]
    assert not program_bounds(far, tokens, 0.05).feasible
    closed, independent = closed_bounds(far[None], tokens[None], 0.05)
    assert independent.all() and not closed.feasible.any()


def test_closed_bounds_contain_those_of_the_programs(key):
    tokens = np.stack([different(key, 3, 4) for _ in range(20)])
    p = key.dirichlet(np.ones(3), 20)
    Z = np.einsum("rv,rvd->rd", p, tokens) + key.uniform(-0.02, 0.02, (20, 4))
    closed, independent = closed_bounds(Z, tokens, 0.02)
    assert independent.all() and closed.feasible.all()
    assert np.all(closed.low <= p) and np.all(p <= closed.high)
    for row in range(20):
        tightest = program_bounds(Z[row], tokens[row], 0.02)
        assert np.all(closed.low[row] <= tightest.low + 1e-6) and np.all(tightest.high <= closed.high[row] + 1e-6)
    exact, _ = closed_bounds(np.einsum("rv,rvd->rd", p, tokens), tokens, 1e-9)
    assert np.abs(exact.low - p).max() < 1e-8 and np.abs(exact.high - p).max() < 1e-8


def test_affinely_dependent_values_have_no_closed_bounds():
    square = np.array(list(itertools.product([-1.0, 1.0], repeat=2)))
    _, independent = closed_bounds(np.zeros((1, 2)), square[None], 0.1)
    assert not independent.any()
    face = np.c_[square, np.ones(4)]  # four corners of a face, in three dimensions
    assert not closed_bounds(np.zeros((1, 3)), face[None], 0.1)[1].any()


@pytest.mark.parametrize("problem, dependent", [((1, 6, 4, 3.0, 40, 0), False), ((1, 3, 5, 2.0, 12, 0), True)])
def test_slabs_of_one_head_contain_the_truth(problem, dependent):
    """Exact sum; five tokens of width 3 are affinely dependent and go through the programs."""
    examples = small.drawn(*problem)
    Z = np.asarray(examples.Y) @ np.linalg.pinv(small.ov_sum(examples))
    found = patterns.patterns(Z, np.asarray(examples.X), 1e-7)
    truth = np.einsum("nq,qp,np->n", found.query, small.qk(examples)[0], found.u - found.v)
    assert len(found.u) > 50
    assert np.all(found.low - 1e-6 <= truth) and np.all(truth <= found.high + 1e-6)  # HiGHS: 1e-7
    assert np.all(found.high - found.low < patterns.WIDTH)
    if not dependent:  # nothing is lost: every pair of values of every row whose weights are above the tolerance
        assert np.median(found.high - found.low) < 1e-4


def test_a_program_that_fails_says_so(monkeypatch):
    monkeypatch.setattr(patterns, "linprog", lambda *_, **__: SimpleNamespace(status=4, message="numbers", fun=0.0))
    with pytest.raises(RuntimeError, match="HiGHS ended with status 4: numbers"):
        program_bounds(np.zeros(2), np.eye(2), 0.1)
