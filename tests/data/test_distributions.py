"""Tokens of a known law, and planted problems that are the same everywhere."""

import itertools

import numpy as np
import pytest
from oracles import attention
from scipy import stats

import attnlearn as al
from attnlearn.data.distributions import Planted, cube, cube_examples, gaussian, gaussian_examples, labelled


def recipe(m, d, k, R, N, seed, o=None, noise=0.0):
    """The recipe of the specification, as it stands there, with the outputs by loops."""
    rng = np.random.default_rng(seed)
    o = o or d
    qk = rng.normal(size=(m, d, d))
    qk *= R / np.linalg.norm(qk, axis=(1, 2), keepdims=True)
    ov = rng.normal(size=(m, d, o)) / np.sqrt(d)
    X = 2.0 * np.random.default_rng(1000 + seed).integers(0, 2, size=(N, k, d)) - 1.0
    Y = np.array([attention(al.AttentionLayer(qk, ov), x) for x in X])
    if noise > 0:
        Y += noise * Y.std() * np.random.default_rng(5).normal(size=Y.shape)
    return qk, ov, X, Y


@pytest.mark.parametrize(
    "problem", [(2, 3, 4, 4.0, 20, 0), (1, 3, 4, 6.0, 20, 7, 5), (3, 3, 4, 2.0, 20, 1, None, 0.01)]
)
def test_planted_problem_is_the_recipe_of_the_specification(problem):
    planted = Planted(*problem)
    qk, ov, X, Y = recipe(*problem)
    examples = planted.draw()
    assert np.array_equal(planted.layer().qk, qk) and np.array_equal(planted.layer().ov, ov)
    assert np.array_equal(examples.X, X)
    assert np.abs(examples.Y - Y).max() < 1e-13 * np.abs(Y).max() * max(1, planted.norm) * planted.width  # rounding
    assert examples.truth is not None and np.array_equal(examples.truth.qk, qk)


def test_first_numbers_of_a_planted_problem_stay_as_they_are():
    """NumPy keeps the streams of its generators; written down here once, so that a change would be seen."""
    layer = Planted(2, 8, 4, 4.0, 1, 0).layer()
    examples = Planted(2, 8, 4, 4.0, 1, 0).draw()
    assert np.allclose([layer.qk[0, 0, 0], layer.ov[1, 7, 7]], [0.06874877180743154, 0.3014921130947692], rtol=1e-12)
    assert examples.X[0, 0].tolist() == [-1, 1, 1, 1, 1, -1, -1, -1]


def test_planted_problem_of_other_tokens_has_the_same_layer():
    planted = Planted(1, 3, 2, 4.0, 5, 0)
    examples = planted.draw(gaussian)
    assert np.array_equal(examples.X, np.random.default_rng(1000).standard_normal((5, 2, 3)))
    assert examples.truth is not None and np.array_equal(examples.truth.qk, planted.layer().qk)


def test_correlated_heads_are_mixed_with_the_first_and_scaled_again():
    m, d, R, rho = 3, 4, 5.0, 0.9
    layer, plain = (Planted(m, d, 2, R, 1, 7, correlation=one).layer() for one in (rho, 0.0))
    rng = np.random.default_rng(7)
    thetas = [R * G / np.sqrt((G**2).sum()) for G in rng.normal(size=(m, d, d))]
    mixed = [thetas[0], *(rho * thetas[0] + np.sqrt(1 - rho**2) * theta for theta in thetas[1:])]
    qk = [R * theta / np.sqrt((theta**2).sum()) for theta in mixed]
    assert np.abs(layer.qk - qk).max() < 1e-14 * R  # rounding
    assert np.array_equal(layer.ov, plain.ov) and np.array_equal(layer.ov, rng.normal(size=(m, d, d)) / np.sqrt(d))
    for i in range(1, m):
        cosine = np.sum(thetas[0] * thetas[i]) / R**2
        share = np.sqrt(1 - rho**2)
        wanted = (rho + share * cosine) / np.sqrt(1 + 2 * rho * share * cosine)  # rho for orthogonal draws
        assert abs(np.sum(layer.qk[0] * layer.qk[i]) / R**2 - wanted) < 1e-14


def test_without_correlation_the_recipe_is_as_it_was():
    problem = (3, 3, 4, 2.0, 20, 1)
    examples = Planted(*problem, correlation=0.0).draw()
    qk, ov, X, _ = recipe(*problem)
    assert examples.truth is not None
    assert np.array_equal(examples.truth.qk, qk) and np.array_equal(examples.truth.ov, ov)
    assert np.array_equal(examples.X, X) and np.array_equal(examples.Y, Planted(*problem).draw().Y)


def test_one_head_has_nothing_to_be_correlated_with():
    alone, plain = (Planted(1, 3, 2, 4.0, 1, 0, correlation=one).layer() for one in (0.5, 0.0))
    assert np.allclose(alone.qk, plain.qk, rtol=1e-15, atol=0) and np.array_equal(alone.ov, plain.ov)


@pytest.mark.parametrize("correlation", [-0.1, 1.0, float("nan")])
def test_wrong_correlation_is_refused(correlation):
    with pytest.raises(ValueError, match=f"correlation must be at least 0 and below 1, got {correlation}"):
        Planted(2, 3, 2, 4.0, 1, 0, correlation=correlation)


def test_held_out_examples_are_others_and_have_no_noise():
    planted = Planted(1, 6, 6, 6.0, 50, 0, noise=0.1)
    seen, held_out = planted.draw(), planted.held_out(40)
    assert len(held_out) == 40
    assert np.array_equal(held_out.Y, planted.layer()(held_out.X))
    assert not {x.tobytes() for x in seen.X} & {x.tobytes() for x in held_out.X}
    assert np.array_equal(held_out.X, planted.held_out(40).X)


def test_label_noise_has_the_size_that_was_asked():
    """False alarm: none, the seed is fixed; 4e4 numbers make a relative error of 4e-3, the bound is five of them."""
    layer, X = al.random_layer(0, heads=2, width=4), cube(np.random.default_rng(0), 2500, 4, 4)
    clean, noisy = labelled(layer, X).Y, labelled(layer, X, 0.2, np.random.default_rng(1)).Y
    assert abs((noisy - clean).std() / (0.2 * clean.std()) - 1) < 5 / np.sqrt(2 * clean.size)


def test_cube_is_uniform_over_its_corners():
    """Chi-square over the 2^4 pairs of tokens at d = 2; false alarms 1e-7 a seed; catches entries in {0, 1}."""
    for seed in range(10):
        X = cube(np.random.default_rng(seed), 4000, 2, 2).reshape(-1, 4)
        counts = [np.all(corner == X, axis=1).sum() for corner in itertools.product([-1, 1], repeat=4)]
        assert sum(counts) == len(X)
        assert stats.chisquare(counts).pvalue > 1e-7


def test_gaussian_tokens_are_standard_normal():
    """Kolmogorov and Smirnov; false alarms 1e-7 a seed; catches uniform tokens of the same variance."""
    for seed in range(10):
        X = gaussian(np.random.default_rng(seed), 500, 2, 3)
        assert X.shape == (500, 2, 3)
        assert stats.kstest(X.ravel(), "norm").pvalue > 1e-7


@pytest.mark.parametrize("make, tokens", [(cube_examples, cube), (gaussian_examples, gaussian)])
def test_examples_are_tokens_with_the_outputs_of_the_layer(make, tokens):
    layer = al.random_layer(0, heads=2, width=3, width_out=2)
    examples = make(layer, 10, 4, np.random.default_rng(3))
    assert np.array_equal(examples.X, tokens(np.random.default_rng(3), 10, 4, 3))
    assert np.allclose(examples.Y, [attention(layer, x) for x in examples.X], rtol=0, atol=1e-13)
    assert examples.truth is layer


def test_wrong_sizes_are_refused():
    key = np.random.default_rng(0)
    for tokens in (cube, gaussian):
        with pytest.raises(ValueError, match="must be at least 1, got n=3, k=0, d=2"):
            tokens(key, 3, 0, 2)
    for name in ("heads", "width", "tokens", "examples", "width_out"):
        sizes = {"heads": 1, "width": 2, "tokens": 3, "examples": 4, "width_out": 2, name: 0}
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            Planted(**sizes, norm=1.0, seed=0)
    with pytest.raises(ValueError, match="norm must be positive and finite, got 0"):
        Planted(1, 2, 3, 0.0, 4, 0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        Planted(1, 2, 3, 1.0, 4, -1)


def test_wrong_noise_is_refused():
    layer, X = al.random_layer(0, heads=1, width=2), cube(np.random.default_rng(0), 3, 2, 2)
    for noise in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="noise is a standard deviation relative to that of the outputs"):
            labelled(layer, X, noise)
        with pytest.raises(ValueError, match="noise is a standard deviation relative to that of the outputs"):
            Planted(1, 2, 3, 1.0, 4, 0, noise=noise)
    with pytest.raises(ValueError, match="noise is drawn by chance: give a key"):
        labelled(layer, X, 0.1)
