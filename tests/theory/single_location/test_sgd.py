"""Reduced steps of stochastic gradient descent against steps of whole vectors on fresh batches, in law."""

import math

import jax
import numpy as np
import pytest
from location_twins import direct_sgd, direct_step, golden, gram, reduced_sgd, risk_by_quadrature, sequences, unit
from scipy import special, stats

from attnlearn.theory.single_location import embed, inverse_time, risk, sgd, sphere_starts

START = np.array([0.1, 0.1, 0.0, 0.0, -0.5])
GAMMA, L, BATCH, EPSILON, LAM, ALPHA = 0.7, 6, 5, 1.0, 1.5, 0.3
REPLICAS, LEVEL = 20_000, 1e-6
MUTANTS = ["noise not projected", "no Gam outside the frame", "d - 4 twice"]


STARTS = sphere_starts(0, REPLICAS, 8)


def direct(seed, d):
    """Two steps from the definition, whole batches in d dimensions."""
    return direct_sgd(seed, embed(START, d), REPLICAS, 2, ALPHA, LAM, GAMMA, d, L, BATCH, EPSILON)


def smallest_p(one, other):
    """The smallest of five p values, Kolmogorov-Smirnov with two samples."""
    return min(stats.ks_2samp(a, b).pvalue for a, b in zip(one.T, other.T, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("d", [6, 8])
def test_reduced_steps_are_those_of_whole_vectors_in_law(d):
    """Two long steps, so that the second starts off every symmetry; five overlaps, false alarm 1e-6 (Bonferroni).

    At d = 6 it sees the four mutants of the test below: of 10 seeds the largest p are 2e-17, 0, 4e-11 and 4e-26.
    """
    starts = np.broadcast_to(START, (REPLICAS, 5))
    found = sgd(starts, LAM, GAMMA, d, L, ALPHA, 2, 2, batch_size=BATCH, epsilon=EPSILON, seed=1)
    assert smallest_p(direct(0, d), found.overlaps[:, -1]) > LEVEL / 5


@pytest.mark.slow
def test_four_mutants_are_seen_and_the_twin_without_one_is_not():
    """The reduced step in NumPy, right and wrong in one line each, at the setting of the test above."""
    k, v = (x[:4] for x in embed(START))
    vectors = direct(0, 6)
    for mutant, epsilon in ((None, EPSILON), *((mutant, EPSILON) for mutant in MUTANTS), (None, 0.0)):
        reduced = reduced_sgd(1, (k, v), REPLICAS, 2, mutant, ALPHA, LAM, GAMMA, 6, L, BATCH, epsilon)
        right = mutant is None and epsilon == EPSILON
        assert (smallest_p(vectors, reduced) > LEVEL / 5) == right, (mutant, epsilon)


def test_the_twin_steps_along_the_gradient_of_the_loss_of_its_batch():
    """A step of 1e-6 of the batch loss, by central differences over both vectors."""
    d, lam = 6, 0.7
    k, v = (unit(x) for x in np.random.default_rng(5).standard_normal((2, d)))

    def loss(k, v):
        X, y = sequences(np.random.default_rng(0), BATCH, d, L, GAMMA, EPSILON)
        return np.mean(((special.erf(lam * (X @ k)) * (X @ v)).sum(axis=1) - y) ** 2)

    moves = 1e-5 * np.eye(d)
    slopes = (
        np.array([loss(k + move, v) - loss(k - move, v) for move in moves]) / 2e-5,
        np.array([loss(k, v + move) - loss(k, v - move) for move in moves]) / 2e-5,
    )
    after = direct_step(np.random.default_rng(0), k[None], v[None], 1e-6, lam, GAMMA, d, L, BATCH, EPSILON)
    for x, slope, new in zip((k, v), slopes, after, strict=True):
        assert np.abs((x - new[0]) / 1e-6 - (slope - (slope @ x) * x)).max() < 1e-4 * np.linalg.norm(slope)


def run(seed=3, starts=STARTS, **options):
    """Four long steps of 20 000 runs, two by two: the shape that is compiled."""
    return sgd(starts, LAM, GAMMA, 8, L, ALPHA, 4, 2, batch_size=BATCH, epsilon=EPSILON, seed=seed, **options)


@pytest.mark.slow
def test_states_stay_overlaps_of_unit_vectors_and_float64():
    assert not jax.config.jax_enable_x64
    found = run()
    assert found.overlaps.shape == (REPLICAS, 2, 5) and found.steps.tolist() == [2, 4]
    assert found.overlaps.dtype == found.risk.dtype == found.lam.dtype == np.float64
    assert np.linalg.eigvalsh(gram(found.overlaps))[..., 0].min() > -1e-13
    assert np.abs(found.overlaps).max() <= 1 + 1e-15


@pytest.mark.slow
def test_logs_hold_the_exact_risk_at_the_slope_of_the_step():
    found = run(schedule=inverse_time(0.1))
    assert np.abs(found.lam - LAM / (1 + 0.1 * np.array([1, 3]))).max() <= 1e-15
    wanted = risk_by_quadrature(found.overlaps[:50, 1], found.lam[0, 1], GAMMA, 8, L)
    assert found.risk[:50, 1] == pytest.approx(wanted, rel=1e-12)
    assert found.warnings == () and found.risk_before_step is None


@pytest.mark.slow
def test_a_seed_gives_the_same_run_and_every_run_has_draws_of_its_own():
    """From one start no two of 20 000 runs have the same overlap after two steps; with shared draws all have."""
    one = np.broadcast_to(START, (REPLICAS, 5))
    flat, again, other = run(0, one), run(0, one.reshape(100, 200, 5)), run(1, one)
    assert again.overlaps.shape == (100, 200, 2, 5) and again.risk.shape == again.lam.shape == (100, 200, 2)
    assert np.array_equal(flat.overlaps, again.overlaps.reshape(flat.overlaps.shape))
    assert len(np.unique([flat.overlaps[:, 0, 0], other.overlaps[:, 0, 0]])) == 2 * REPLICAS


@pytest.mark.slow
def test_the_mean_excess_is_that_of_the_reference():
    """Means of 30 runs, as there: within 5 standard errors of the difference of two, false alarm 6e-7 a mean."""
    task = math.sqrt(0.5), 80, 10
    starts = sphere_starts(0, 30, 80)
    found = sgd(starts, 2.0, *task, 1e-3, 10_000, 1000, inverse_time(1e-4), seed=0)
    logs = {0: (risk(starts, 2.0, *task), 2.0)} | {
        step: (found.risk[:, step // 1000 - 1], float(found.lam[0, step // 1000 - 1])) for step in (2000, 10_000)
    }
    for step, (risks, lam) in logs.items():
        (entry,) = (one for one in golden("sgd_mean_excess") if one["inputs"]["step"] == step)
        error = 5 * math.sqrt(2 / 30) * risks.std(ddof=1)
        assert risks.mean() == pytest.approx(entry["value"]["mean_excess"], abs=error)
        oracle = entry["value"]["oracle_direction_same_lambda"]
        assert risk([1, 1, 0, 0, 0], lam, *task) == pytest.approx(oracle, rel=1e-10)


def test_wrong_numbers_are_refused():
    cases = [
        ({"d": 5}, "whole number from 6 on, got d = 5"),
        ({"lam": 0.0}, "lam must be finite and above 0"),
        ({"gamma": math.nan}, "gamma must be finite and above 0"),
        ({"n_tokens": 1}, "2 tokens or more, a whole number, got n_tokens = 1"),
        ({"step_size": -0.1}, "step_size must be finite and above 0"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 on, got 0"),
        ({"epsilon": -0.1}, "epsilon must be finite and at least 0"),
        ({"epsilon": math.nan}, "epsilon must be finite and at least 0"),
        ({"n_steps": 7}, "n_steps must be a multiple of log_every"),
        ({"overlaps": [1, 1, 0.2, 0, 0]}, "no unit vectors k, v have the overlaps"),
        ({"schedule": lambda step: -1.0}, "the schedule must give finite factors above 0, got .*-1.0.* at step 0"),
    ]
    right = {"overlaps": START, "lam": 0.1, "gamma": 1.0, "d": 8, "n_tokens": 2, "step_size": 0.1}
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            sgd(**({"n_steps": 2, "log_every": 2} | right | wrong))
