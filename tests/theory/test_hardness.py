"""Bounds of what cancelling heads leave, against enumeration, quadrature and simulation."""

import itertools
import math

import numpy as np
import pytest
from cancelling import corners, hidden, outputs
from scipy import integrate, stats

from attnlearn.data.cancelling_heads import CancellingHeads, ParityHeads
from attnlearn.data.distributions import cube, gaussian
from attnlearn.theory import (
    examples_to_see,
    examples_to_tell_apart,
    generic_size,
    hidden_decay,
    hidden_size,
    queries_to_find,
)


def spread_and_reach(planted, X):
    """L (n, k) and D (n, k) of every row, with the mean of the values as v."""
    theta, W = planted.ingredients()
    scores, values = X @ theta @ X.swapaxes(1, 2), X @ W
    reach = np.linalg.norm(values - values.mean(axis=1, keepdims=True), axis=-1).max(axis=1, keepdims=True)
    return np.ptp(scores, axis=-1), np.broadcast_to(reach, scores.shape[:2])


def integrand(y, n, distance):
    return math.exp(
        math.lgamma(n + 1) - n * math.log(2) - sum(math.log((y - j) ** 2 + distance**2) for j in range(n + 1)) / 2
    )


@pytest.mark.parametrize("m, distance", [(2, 0.3), (2, 0.7), (2, 3.0), (3, 1.0), (5, 0.6), (9, 2.0)])
def test_bound_is_its_formula_by_quadrature(m, distance):
    n, angle = m - 1, math.pi * (m - 1) / m
    pieces = [-math.inf, *range(n + 1), math.inf]
    integral = sum(
        integrate.quad(integrand, *ends, args=(n, distance), epsabs=0, epsrel=1e-10)[0]
        for ends in itertools.pairwise(pieces)
    )
    expected = 2.5 * min(1.0, integral / (math.pi * math.cos(angle / 2)))
    assert math.isclose(hidden_size(m, 0.5, angle / distance / 0.5, 2.5), expected, rel_tol=1e-8)


@pytest.mark.parametrize("m", [2, 3, 4, 6])
def test_no_row_of_any_corner_is_longer_than_the_bound(m):
    for X in (corners(2, 2), corners(2, 3)):
        for seed, norm in itertools.product(range(3), (0.5, 4.0)):
            planted = CancellingHeads(m, X.shape[2], norm, seed)
            bound = hidden_size(m, planted.step, *spread_and_reach(planted, X))
            assert (np.linalg.norm(hidden(planted, X), axis=-1) <= bound + 1e-14).all()  # rounding of size-1 outputs


@pytest.mark.parametrize("tokens, lowest", [(cube, 0.0), (gaussian, 0.0), (cube, 1.5)])
def test_the_bound_holds_for_random_tokens_and_is_no_more_than_ten_times_too_large(tokens, lowest):
    X = tokens(np.random.default_rng(0), 512, 4, 4)
    for m in (2, 4, 7):
        planted = CancellingHeads(m, 4, 4.0, 0, lowest=lowest)
        bound = hidden_size(m, planted.step, *spread_and_reach(planted, X))
        worst = np.max(np.linalg.norm(hidden(planted, X), axis=-1) / (bound + 1e-14))
        assert 0.05 < worst <= 1


def test_bound_is_never_above_the_reach_and_vanishes_without_spread():
    assert hidden_size(4, 1.0, 1e6, 3.0) == 3.0
    assert hidden_size(4, 1.0, 0.0, 3.0) < 1e-30
    assert np.all(np.diff(hidden_size(4, 1.0, np.linspace(0, 3, 50), 1.0)) > 0)


@pytest.mark.parametrize("spread", [1.0, 5.0, 20.0])
def test_bound_decays_at_the_stated_rate(spread):
    """What is left beside the rate is a power of m: 1.5 / m or so of the factor, and less than 3 / m."""
    sizes = [float(hidden_size(m, spread / (m - 1), 1.0, 1.0)) for m in (40, 80, 120)]
    rates = [(b / a) ** (1 / 40) for a, b in itertools.pairwise(sizes)]
    for rate, m in zip(rates, (60, 100), strict=True):
        assert hidden_decay(spread) < rate < hidden_decay(spread) * (1 + 3 / m)


def test_rate_has_the_stated_limits():
    assert math.isclose(hidden_decay(1e-3), 1e-3 / (2 * math.pi * math.e), rel_tol=1e-6)
    assert math.isclose(-math.log(hidden_decay(1e4)), math.pi**2 / 1e4, rel_tol=1e-2)


@pytest.mark.parametrize("strength", [1e-3, 0.1])
def test_generic_parts_move_no_row_further_than_their_bound(strength):
    for X in (corners(2, 2), cube(np.random.default_rng(0), 200, 4, 4)):
        d = X.shape[2]
        plain, generic = (CancellingHeads(4, d, 3.0, 0, generic=gamma) for gamma in (0.0, strength))
        moved = np.linalg.norm(hidden(generic, X) - hidden(plain, X), axis=-1)
        ov_norm = np.linalg.norm(plain.ingredients()[1], 2)
        for x, rows in zip(X, moved, strict=True):
            diameter = max(np.linalg.norm(p - q) for p in x for q in x)
            assert (rows <= generic_size(strength, math.sqrt(d), float(diameter), float(ov_norm)) + 1e-14).all()


def test_the_best_test_errs_as_often_as_the_bound_says():
    """The likelihood ratio errs with E Φ(-D/2) on random designs of the bound's size, from above and within 2 %.

    The standard error of 400 designs is below 0.3 %: the difference from δ is that of a convex function (Jensen).
    """
    planted, delta, noise = CancellingHeads(3, 2, 4.0, 0), 0.05, 0.5
    X = corners(2, 2)
    squares = np.square(hidden(planted, X)).sum(axis=(1, 2))
    number = round(examples_to_tell_apart(math.sqrt(squares.mean()), noise, delta))
    drawn = np.random.default_rng(0).choice(squares, (400, number)).sum(axis=1)
    error = stats.norm.cdf(-np.sqrt(drawn) / noise / 2).mean()
    assert number > 50 and 0.98 * delta < error < 1.1 * delta


def test_no_statistic_sees_more_than_the_best_one():
    """All linear statistics of two tokens at d = 2 at once: signal over standard error is at most that of H itself."""
    planted, noise, errors = CancellingHeads(3, 2, 4.0, 0), 0.5, 3.0
    X = corners(2, 2)
    H = hidden(planted, X)
    number = examples_to_see(math.sqrt(np.square(H).sum(axis=(1, 2)).mean()), noise, errors)
    key = np.random.default_rng(0)
    for phi in (H, *key.standard_normal((200, *H.shape))):
        signal = (phi * H).sum(axis=(1, 2)).mean()
        scatter = (phi * outputs(planted.layer(), X)).sum(axis=(1, 2)).var() + noise**2 * np.square(phi).sum(
            axis=(1, 2)
        ).mean()
        assert abs(signal) <= errors * math.sqrt(scatter / number) * (1 + 1e-12)
    pure = noise**2 * np.square(H).sum(axis=(1, 2)).mean()
    assert math.isclose(np.square(H).sum(axis=(1, 2)).mean(), errors * math.sqrt(pure / number))


def test_a_statistic_tells_few_of_the_parities():
    """Bessel by enumeration at d = 4: of the parities, at most β²/τ² have a correlation above τ with any statistic."""
    X = corners(2, 4)
    parities = [
        np.stack([X[:, a, list(bits)].prod(axis=1) * (X[:, 0, 0] != X[:, 1, 0]) for a in range(2)], axis=1)
        for bits in itertools.combinations(range(1, 4), 1)
    ]
    key, beta = np.random.default_rng(0), ParityHeads(2, 4, 4.0, 0).size
    for phi in (sum(parities), *key.standard_normal((100, *parities[0].shape))):
        phi = phi / math.sqrt(np.square(phi).sum(axis=1).mean())
        seen = [beta * abs((phi * parity).sum(axis=1).mean()) for parity in parities]
        for tolerance in (0.01, 0.1, 0.3, 0.5):
            assert sum(value > tolerance for value in seen) <= beta**2 / tolerance**2
    assert math.isclose(queries_to_find(2, 4, beta, 0.5), (3 - 1) * 0.25 / beta**2)


def test_thresholds_grow_with_the_heads():
    queries = [queries_to_find(m, 20, 1.0, 0.1) for m in range(2, 6)]
    assert np.allclose(queries, [0.01 * (math.comb(19, 2 * m - 3) - 1) for m in range(2, 6)], rtol=1e-14)
    assert queries_to_find(2, 20, 1.0, 0.1, success=1 / 19) == 0.0
    needed = [examples_to_tell_apart(float(hidden_size(m, 2 / (m - 1), 2.0, 1.0)), 0.1) for m in range(3, 9)]
    assert np.all(np.diff(np.log(needed)) > 1)


@pytest.mark.parametrize("name", ["gap", "noise"])
def test_wrong_numbers_of_the_thresholds_are_refused(name):
    for threshold in (examples_to_tell_apart, examples_to_see):
        with pytest.raises(ValueError, match=f"{name} must be positive and finite, got 0"):
            threshold(**{"gap": 1.0, "noise": 1.0, name: 0.0})
    with pytest.raises(ValueError, match="delta must lie between 0 and 1/2, got 0.5"):
        examples_to_tell_apart(1.0, 1.0, 0.5)
    with pytest.raises(ValueError, match="errors must be positive and finite, got -3"):
        examples_to_see(1.0, 1.0, -3.0)


def test_wrong_numbers_of_the_bounds_are_refused():
    with pytest.raises(ValueError, match="heads cancel from two on, got heads=1"):
        hidden_size(1, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="step must be positive and finite, got 0"):
        hidden_size(2, 0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="spread must be at least 0 and finite"):
        hidden_size(2, 1.0, np.array([1.0, np.nan]), 1.0)
    with pytest.raises(ValueError, match="reach must be at least 0 and finite"):
        hidden_size(2, 1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="spread must be positive and finite, got 0"):
        hidden_decay(0.0)
    with pytest.raises(ValueError, match="diameter must be at least 0 and finite, got inf"):
        generic_size(0.1, 1.0, math.inf, 1.0)


def test_wrong_numbers_of_the_queries_are_refused():
    with pytest.raises(ValueError, match="heads cancel from two on, got heads=0"):
        queries_to_find(0, 4, 1.0, 0.1)
    with pytest.raises(ValueError, match=r"the width must be at least 2 \* heads - 2 = 4, got 3"):
        queries_to_find(3, 3, 1.0, 0.1)
    with pytest.raises(ValueError, match="size must be positive and finite, got 0"):
        queries_to_find(2, 4, 0.0, 0.1)
    with pytest.raises(ValueError, match="tolerance must be positive and finite, got nan"):
        queries_to_find(2, 4, 1.0, math.nan)
    with pytest.raises(ValueError, match="success must be above 0 and at most 1, got 0"):
        queries_to_find(2, 4, 1.0, 0.1, success=0.0)
