"""Counts, losses and criteria against their definitions."""

import math

import ml_dtypes
import numpy as np
import pytest

import attnlearn as al
from attnlearn.learners.least_squares import evidence
from attnlearn.learners.least_squares.frame import Model


def model(**changes):
    return Model(**({"slots": al.Slots(), "query_bias": True, "offset": True} | changes))


@pytest.mark.parametrize(
    "settings, heads, width, wanted",
    [
        ({"offset": False}, 2, (8, 8, 8), 2 * (64 + 64)),
        ({}, 2, (9, 8, 5), 2 * (72 + 40) + 5),
        ({"head_dim": 2}, 3, (9, 8, 5), 3 * (2 * (9 + 8 - 2) + 2 * (8 + 5 - 2)) + 5),
        ({"head_dim": 6}, 1, (9, 8, 5), 6 * (9 + 8 - 6) + 40 + 5),  # an OV circuit has no rank above 5
        ({"head_dim": 100}, 1, (9, 8, 1), 72 + 8 + 1),
    ],
)
def test_unknowns_are_the_dimensions_of_the_circuits(settings, heads, width, wanted):
    assert evidence.unknowns(model(**settings), heads, width) == wanted


def test_maps_of_a_rank_have_as_many_dimensions_as_their_tangents(key):
    U, V = key.standard_normal((9, 2)), key.standard_normal((8, 2))
    tangents = [np.outer(row, V[:, r]).ravel() for r in range(2) for row in np.eye(9)]
    tangents += [np.outer(U[:, r], row).ravel() for r in range(2) for row in np.eye(8)]
    thin = model(head_dim=2, offset=False)
    assert evidence.unknowns(thin, 1, (9, 8, 1)) == np.linalg.matrix_rank(tangents) + 8


@pytest.mark.parametrize(
    "dtype, loss", [(np.float64, 1e-14), (np.float32, (8 * 2.0**-23) ** 2), (ml_dtypes.bfloat16, (8 * 2.0**-7) ** 2)]
)
def test_the_loss_that_rounding_leaves_follows_the_precision(dtype, loss):
    assert evidence.floor_loss(np.dtype(dtype)) == pytest.approx(loss)


def test_a_right_fit_stays_below_the_loss_of_the_noise(key):
    """Gaussian noise at N - p degrees of freedom; 4 standard deviations or 5 %: false alarms 1e-6 in 100 draws.

    Mutant: without 1 - p/N it accepts the residual of a model with half as many unknowns again.
    """
    noise, observed, p, square = 0.3, 20_000, 4_000, 2.0
    limit = evidence.noise_loss(noise, (observed, p), square)
    losses = noise**2 * key.chisquare(observed - p, 100) / observed / square
    assert losses.max() < limit < 1.06 * losses.mean()
    assert limit < noise**2 / square


def test_the_criterion_weighs_fit_against_unknowns():
    counts = 1000, 50
    assert evidence.criterion(0.1, counts, 1e-14) == pytest.approx(1000 * math.log(0.1) + 50 * math.log(1000))
    assert evidence.criterion(0.1, counts, 1e-14) < evidence.criterion(0.1, (1000, 60), 1e-14)
    exact = [evidence.criterion(loss, counts, 1e-14) for loss in (0.0, 1e-20, 1e-14)]
    assert len(set(exact)) == 1  # below rounding, smaller is not better


def test_likelihood_ratios_are_those_of_gaussian_noise_of_fitted_level():
    losses = np.array([0.01, 0.04, 1e-30, 1e-20])
    found = evidence.log_likelihood_ratios(losses, 100, 1e-14)
    np.testing.assert_allclose(found, [50 * math.log(1e12), 50 * math.log(4e12), 0.0, 0.0], rtol=1e-12)
