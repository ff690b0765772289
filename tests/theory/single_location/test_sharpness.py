"""The Hessian on the spheres against differences of the definition's gradient and against the reference."""

import math

import numpy as np
import pytest
from location_twins import agrees, golden, of_vectors, random_pairs, tangent_hessian

from attnlearn.theory.single_location import embed, sharpness, swapped_point

GAMMA, D, L = math.sqrt(0.5), 400, 10
ORACLE = np.array([1.0, 1.0, 0.0, 0.0, 0.0])


def spectrum(states, lam, *task):
    """The eigenvalues at up to 30 states: always with the 30 that are compiled once."""
    states = np.atleast_2d(states)
    return sharpness(np.resize(states, (30, 5)), lam, *task)[: len(states)]


@pytest.mark.parametrize("lam, task", [(0.1, (GAMMA, D, L)), (0.9, (0.4, 50, 3)), (0.3, (1.0, 12, 20))])
def test_eigenvalues_are_those_of_the_definition(key, lam, task):
    """Differences of 1e-5 leave out 1e-10 of a fifth derivative; the restriction matters: no state is critical."""
    states = of_vectors(*random_pairs(key, 6, 6))
    for state, found in zip(states, spectrum(states, lam, *task), strict=True):
        twin = tangent_hessian(*embed(state), lam, *task)
        assert found.shape == (10,) and np.abs(found - twin).max() <= 1e-7 * np.abs(twin).max()


def test_eigenvalues_at_critical_points_are_those_of_the_reference():
    (entry,) = golden("tangent_hessian_largest")
    for number, lam in enumerate(entry["inputs"]["lam"]):
        swapped = swapped_point(lam, GAMMA, D, L).overlaps
        at_oracle, at_swapped = spectrum([ORACLE, swapped], lam, GAMMA, D, L)
        assert agrees(at_oracle[-1], entry, entry["value"]["oracle"][number])
        assert agrees(at_swapped[-1], entry, entry["value"]["swapped"][number])
        assert at_swapped[0] >= -1e-9  # a local minimum, flat where w turns
    (entry,) = golden("tangent_hessian_at_oracle_smallest")
    assert agrees(spectrum(ORACLE, 0.9, GAMMA, D, L)[0, 0], entry)


def test_six_dimensions_hold_every_distinct_eigenvalue(key):
    """At nine dimensions, only the pair that belongs to directions outside the state repeats."""
    state = of_vectors(*random_pairs(key, 1, 6))[0]
    wide = tangent_hessian(*embed(state, 9), 0.3, GAMMA, D, L)
    found = spectrum(state, 0.3, GAMMA, D, L)[0]
    for value in wide:
        assert np.abs(found - value).min() <= 1e-7 * np.abs(found).max()


def test_slopes_broadcast_against_states():
    lam = np.linspace(0.1, 0.9, 30)
    mixed = sharpness(ORACLE, lam, GAMMA, D, L)
    assert mixed.shape == (30, 10) and mixed.dtype == np.float64 and (np.diff(mixed) >= 0).all()
    assert mixed[4] == pytest.approx(spectrum(ORACLE, float(lam[4]), GAMMA, D, L)[0], rel=1e-12, abs=1e-12)
    grid = sharpness(np.broadcast_to(ORACLE, (5, 6, 5)), lam.reshape(5, 6), GAMMA, D, L)
    assert np.array_equal(grid.reshape(30, 10), mixed)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="no unit vectors k, v have the overlaps"):
        sharpness([1, 1, 0.3, 0, 0], 0.1, GAMMA, D, L)
    with pytest.raises(ValueError, match="lam must be finite and above 0"):
        sharpness(ORACLE, 0.0, GAMMA, D, L)
    with pytest.raises(ValueError, match="gamma must be finite and above 0"):
        sharpness(ORACLE, 0.1, math.inf, D, L)
    with pytest.raises(ValueError, match="got d = 2"):
        sharpness(ORACLE, 0.1, GAMMA, 2, L)
    with pytest.raises(ValueError, match="got n_tokens = 0"):
        sharpness(ORACLE, 0.1, GAMMA, D, 0)
