"""Owen's T and ζ against quadrature of their definitions, with their derivatives."""

import math

import jax
import numpy as np
import pytest
from location_twins import agrees, golden, zeta_by_quadrature
from scipy import special

from attnlearn.theory.single_location import owens_t, zeta

POINTS = np.array([(t, g) for t in (-3.0, -0.7, 1e-3, 0.0, 0.07, 1.3, 8.0) for g in (0.1, 0.2, 0.9, 1.41, 2.0)])
TWINS = np.array([zeta_by_quadrature(t, g) for t, g in POINTS]).T


@pytest.fixture(scope="module")
def joint():
    """ζ and its derivatives at every point: all at once, and one argument after the other."""

    def both(t, g):
        apart = [jax.value_and_grad(zeta, argument)(t, g) for argument in (0, 1)]
        return jax.value_and_grad(zeta, (0, 1))(t, g), apart

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(both))(*POINTS.T))


def test_owens_t_is_that_of_scipy(key):
    x, a = key.uniform(-9, 9, 2000), key.uniform(0, 1, 2000)
    x[0], a[1], a[2] = 0, 1, 0
    assert np.abs(owens_t(x, a) - special.owens_t(x, a)).max() <= 1e-15


def test_derivatives_of_owens_t_are_those_of_its_integral():
    x, a = POINTS[:, 0], np.minimum(POINTS[:, 1], 1)
    by_x = -np.exp(-(x**2) / 2) * special.erf(a * x / math.sqrt(2)) / math.sqrt(8 * math.pi)
    by_a = np.exp(-(x**2) * (1 + a**2) / 2) / (2 * math.pi * (1 + a**2))
    with jax.enable_x64(True):
        found = np.array(jax.jit(jax.vmap(jax.grad(owens_t, (0, 1))))(x, a))
    assert np.abs(found - [by_x, by_a]).max() <= 1e-15


def test_zeta_and_its_derivatives_are_those_of_the_definition(joint):
    """At 35 points in float64, and at four in 40 digits."""
    value, by_one = joint[0]
    assert np.abs(zeta(*POINTS.T) - TWINS[0]).max() <= 1e-14
    assert np.abs(np.array([value, *by_one]) - TWINS).max() <= 1e-14
    for found, name in zip((value, *by_one), ("zeta(", "zeta_t", "zeta_g"), strict=True):
        for entry in golden(name):
            at = POINTS.tolist().index(list(entry["inputs"].values()))
            assert agrees(found[at], entry), entry["id"]


def test_zeta_has_its_limits():
    t, g = POINTS.T
    assert np.abs(zeta(t, 0 * g) - special.erf(t) ** 2).max() <= 1e-15
    assert np.array_equal(zeta(-t, g), zeta(t, g))
    assert np.abs(zeta(0 * t + 200, g) - 1).max() <= 1e-15


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-9])
def test_small_values_of_zeta_keep_their_digits(small):
    """To first order 4/π (t² + g²); the next order is smaller by the square of the arguments."""
    for t, g in ((0.0, small), (small, small), (small, 0.0)):
        assert zeta(t, g) == pytest.approx(4 / math.pi * (t**2 + g**2), rel=1e-14 + 4 * small**2)


def test_value_and_both_derivatives_taken_at_once_are_those_taken_apart(joint):
    """At (1.3, .2) a rule with swapped arguments gives .56533 for .85446 and misses every derivative in g."""
    (value, (by_t, by_g)), ((value_t, apart_t), (value_g, apart_g)) = joint
    for one, other in ((value, value_t), (value, value_g), (by_t, apart_t), (by_g, apart_g)):
        assert np.abs(one - other).max() <= 2e-16
    assert value == pytest.approx(zeta(*POINTS.T), abs=2e-16)


def test_answers_are_float64_whatever_the_setting_of_jax():
    assert not jax.config.jax_enable_x64
    for answer in (zeta(1.3, 0.2), owens_t(np.float32(0.5), 0.25)):
        assert np.asarray(answer).dtype == np.float64
    assert agrees(zeta(1.3, 0.2), golden("zeta(1.3,.2)")[0])


@pytest.mark.parametrize("a", [-0.1, 1.5, np.nan])
def test_an_a_beyond_the_nodes_is_refused(a):
    with pytest.raises(ValueError, match=r"computed for 0 <= a <= 1, got .*scipy.special.owens_t takes any a"):
        owens_t(1.0, a)
