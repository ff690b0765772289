"""States and vectors belong to each other; starts are those of vectors in law."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from location_twins import golden, gram, of_vectors, random_pairs, unit
from scipy import stats

from attnlearn.theory.single_location import (
    OrderParameters,
    basins,
    embed,
    manifold_starts,
    overlaps,
    sphere_starts,
)

LEVEL = 1e-6


def without(x, y):
    """`x` minus its part along the unit vector `y`."""
    return x - (x * y).sum(axis=-1, keepdims=True) * y


def manifold_vectors(key, n, d):
    """Starts of the authors' code on the manifold, as vectors: three Gram-Schmidt steps."""
    k_star, v_star = np.eye(d)[:2]
    k = unit(without(key.standard_normal((n, d)), v_star))
    u = unit(without(k, k_star))
    return k, unit(without(without(key.standard_normal((n, d)), k_star), u))


@pytest.mark.parametrize("width", [4, 6, 9])
def test_vectors_of_a_state_have_its_overlaps(key, width):
    states = of_vectors(*random_pairs(key, 30, 5))
    k, v = embed(states, width)
    assert k.shape == v.shape == (30, width)
    assert np.abs(of_vectors(k, v) - states).max() < 1e-15
    for x in (k, v):
        assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-15


def test_vectors_of_extreme_states_are_unit():
    states = [[1, 1, 0, 0, 0], [0, 0, 1, -1, 0], [0.6, 0.6, 0.8, -0.8, 0], [0, 0, 0, 0, 1], [0.6, 0.8, 0.6, 0.8, 1]]
    k, v = embed(states)
    assert np.abs(np.linalg.norm([k, v], axis=-1) - 1).max() < 1e-15
    assert np.abs(of_vectors(k, v) - states).max() < 1e-15


@given(st.integers(0, 10**6), st.sampled_from([4, 7]))
def test_overlaps_do_not_change_under_rotations(seed, d):
    key = np.random.default_rng(seed)
    rotation = np.linalg.qr(key.standard_normal((d, d)))[0]
    (k, v), (k_star, v_star) = random_pairs(key, 3, d), rotation[:2]
    found = overlaps(k, v, k_star, v_star)
    assert np.abs(found - of_vectors(k @ rotation.T, v @ rotation.T)).max() < 1e-14
    assert np.linalg.eigvalsh(gram(found))[:, 0].min() > -1e-14


def test_the_order_of_a_state_is_kappa_nu_theta_eta_rho(key):
    k, v, k_star, v_star = (unit(vector) for vector in key.standard_normal((4, 7)))
    wanted = OrderParameters(kappa=k @ k_star, nu=v @ v_star, theta=v @ k_star, eta=k @ v_star, rho=k @ v)
    assert np.array_equal(overlaps(k, v, k_star, v_star), wanted.array())
    states = key.standard_normal((2, 3, 5))
    assert np.array_equal(OrderParameters.of(states).array(), states)
    assert np.array_equal(OrderParameters.of(states).eta, states[..., 3])


@pytest.mark.parametrize("d", [4, 5, 12])
@pytest.mark.parametrize("starts, vectors", [(sphere_starts, random_pairs), (manifold_starts, manifold_vectors)])
def test_starts_are_those_of_vectors_in_law(starts, vectors, d):
    """Two-sample Kolmogorov-Smirnov on five overlaps and the determinant of the Gram matrix, 1e-6 in all.

    Mutants at d = 4 and 5: chi of d - 2 for d - 3 (p < 1e-68), v drawn without its third number (p < 1e-82).
    """
    n, key = 20_000, np.random.default_rng(0)
    drawn, twin = starts(1, n, d), of_vectors(*vectors(key, n, d))
    assert drawn.shape == (n, 5)
    for one, other in zip(
        [*drawn.T, np.linalg.det(gram(drawn))], [*np.round(twin, 15).T, np.linalg.det(gram(twin))], strict=True
    ):
        assert stats.ks_2samp(one, other).pvalue > LEVEL / 6


def test_starts_on_the_manifold_are_exactly_there_and_seeds_differ():
    found = manifold_starts(0, 30, 400)
    assert np.array_equal(found[:, 2:], np.zeros((30, 3)))
    for starts in (manifold_starts, sphere_starts):
        assert np.array_equal(starts(3, 5, 8), starts(3, 5, 8))
        assert not np.array_equal(starts(3, 5, 8), starts(4, 5, 8))


def test_reference_starts_are_states():
    for entry in golden("initial_overlaps"):
        found = np.array(entry["value"])
        assert found.shape == (30, 5)
        assert np.abs(of_vectors(*embed(found)) - found).max() < 1e-15


def test_basins_are_told_apart():
    states = [[0.98, 1, 0, 0, 0], [-0.3, -0.95, 0, 0.1, 0], [0, 0, 0.6, -1, 0], [0.1, 0.6, 0.1, -0.7, 0]]
    assert basins(states).tolist() == ["oracle", "oracle", "swapped", "undecided"]
    assert basins([[0, 0.85, 0, 0.9, 0.765], [0, 0.9, 0, -0.85, -0.765]]).tolist() == ["swapped", "oracle"]
    assert basins([states, states]).shape == (2, 4)


def test_wrong_states_and_widths_are_refused():
    for door in (embed, basins):
        with pytest.raises(ValueError, match="no unit vectors k, v have the overlaps"):
            door([0.9, 0.9, 0.9, 0, 0])
        with pytest.raises(ValueError, match="overlaps must be finite, got NaN"):
            door([math.nan, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="whole number from 4 on, got d = 3"):
        embed([0, 0, 0, 0, 0], 3)
    for starts in (sphere_starts, manifold_starts):
        with pytest.raises(ValueError, match="whole number from 4 on, got d = 3"):
            starts(0, 5, 3)


def test_vectors_that_are_not_unit_or_of_other_widths_are_refused():
    k, v = np.eye(4)[:2]
    with pytest.raises(ValueError, match="k must have length 1, got 2: divide it by its norm"):
        overlaps(2 * k, v, k, v)
    with pytest.raises(ValueError, match="v must have length 1, got nan"):
        overlaps(k, v * np.nan, k, v)
    with pytest.raises(ValueError, match=r"must have one width, got shapes \(4,\), \(5,\)"):
        overlaps(k, np.eye(5)[1], k, v)
