"""The empirical Bernstein bound: by its formula, and as often right as it says."""

import math

import numpy as np
import planted
import pytest

from attnlearn.certify.holdout import expected_mean_square, holdout
from attnlearn.data.examples import Examples


def examples(sequences, error, seed=0, mask=False):
    key, layer = np.random.default_rng(seed), planted.layer(0)
    X = key.standard_normal((sequences, 5, 4))
    present = np.arange(5) < key.integers(2, 6, sequences)[:, None] if mask else None
    Y = layer(X, present)
    return layer, Examples(X, Y + error * key.standard_normal(Y.shape), present)


@pytest.mark.slow
def test_the_bound_is_that_of_maurer_and_pontil():
    layer, given = examples(300, 0.5, mask=True)
    found, losses, squares, count = holdout(layer, given, delta=0.1, limit=0.2), [], 0.0, 0
    for x, y, there in zip(given.X, given.Y, given.mask, strict=True):
        error = layer(x[there]) - y[there]
        losses.append(min(0.2, np.sum(error**2) / np.sum(y[there] ** 2)))
        squares, count = squares + np.sum(error**2), count + error.size
    spread, log = np.var(losses, ddof=1), math.log(20)
    bound = np.mean(losses) + math.sqrt(2 * spread * log / 300) + 7 * 0.2 * log / (3 * 299)
    assert found.bound == pytest.approx(bound, rel=1e-12)
    assert found.mean == pytest.approx(np.mean(losses), rel=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(spread / 300), rel=1e-12)
    assert (found.sequences, found.scalars) == (300, count)
    assert found.mean_square == pytest.approx(squares / count, rel=1e-12)
    assert found.mean_square == pytest.approx(0.25, abs=6 * found.mean_square_error)


@pytest.mark.slow
def test_the_bound_is_wrong_no_oftener_than_it_says():
    """With delta = 0.3 over 60 sets of 40 sequences at most 35 % of the bounds lie below the expectation.

    False alarms: the bound is far from tight, so that none is expected below. Mutant: a bound without its variance and
    range terms is the mean, which lies below in half of the sets.
    """
    layer, many = examples(4000, 0.8)
    expectation = holdout(layer, many).mean
    bounds = [holdout(layer, many[start : start + 40], delta=0.3).bound for start in range(0, 2400, 40)]
    assert np.mean(np.array(bounds) < expectation) < 0.35


def test_a_layer_that_is_right_and_one_that_is_wrong():
    layer, given = examples(50, 0.0)
    right = holdout(layer, given)
    assert right.mean < 1e-28 and right.largest < 1e-14  # the square of rounding
    assert right.bound == pytest.approx(7 * math.log(40) / (3 * 49))
    wrong = holdout(planted.layer(1), given)
    assert wrong.bound == 1.0 and wrong.mean <= 1.0
    zero = Examples(given.X, 0 * given.Y)
    assert holdout(layer, zero).mean == 1.0


def test_the_expected_error_counts_the_unknowns():
    assert expected_mean_square(0.5, 30, 120) == 0.25 * 1.25


def test_refuses_figures_out_of_range():
    layer, given = examples(50, 0.0)
    with pytest.raises(ValueError, match="at least two held-out sequences, got 1"):
        holdout(layer, given[:1])
    with pytest.raises(ValueError, match="delta must lie between 0 and 1"):
        holdout(layer, given, delta=1.0)
    with pytest.raises(ValueError, match="limit be positive"):
        holdout(layer, given, limit=0.0)
