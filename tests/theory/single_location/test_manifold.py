"""The two-dimensional dynamics against Jacobians, orbits and descent with small steps."""

import math

import jax
import numpy as np
import pytest
from location_twins import STEP, agrees, golden, risk_by_quadrature
from scipy import integrate

from attnlearn.theory.single_location import descend, flow, rates, risk, saddle, separatrix, zeta

GAMMA, D, L = math.sqrt(0.5), 400, 10
CRITICAL = {  # signs of the eigenvalues: saddle, minima, maxima
    (0, 0): [-1, 1],
    (1, 1): [-1, -1],
    (-1, -1): [-1, -1],
    (1, -1): [1, 1],
    (-1, 1): [1, 1],
}


def velocity(kappa, nu, lam, gamma=GAMMA, d=D):
    """Minus the gradient of the definition's risk along the two spheres, on the manifold."""
    states = np.array([[kappa, nu, 0, 0, 0]] * 2) + 1j * STEP * np.eye(2, 5)
    by_kappa, by_nu = risk_by_quadrature(states, lam, gamma, d, L).imag / STEP
    return np.array([-(1 - kappa**2) * by_kappa, -(1 - nu**2) * by_nu])


def jacobian(kappa, nu, lam, **task):
    """By central differences."""
    columns = [
        (velocity(kappa + x, nu + y, lam, **task) - velocity(kappa - x, nu - y, lam, **task)) / 2e-5
        for x, y in ((1e-5, 0), (0, 1e-5))
    ]
    return np.stack(columns, axis=1)


def orbit(kappa, nu, lam, time):
    """The end of the flow of the definition's gradient."""
    return integrate.solve_ivp(lambda _, y: velocity(*y, lam), (0, time), (kappa, nu), rtol=1e-8, atol=1e-10).y[:, -1]


@pytest.mark.parametrize("lam, d", [(0.1, 400), (0.9, 400), (1.0, 400), (0.1, 80)])
def test_saddle_and_rates_are_those_of_the_jacobian(lam, d):
    """Central differences leave out 1e-10 times a third derivative, of size beta^3 <= 1000 times the first."""
    values, vectors = np.linalg.eig(jacobian(0, 0, lam, d=d))
    found = saddle(lam, GAMMA, d)
    assert found.eigenvalues == pytest.approx(np.sort(values)[::-1], rel=1e-6)
    unstable = vectors[:, np.argmax(values)]
    assert found.unstable == pytest.approx(unstable * np.sign(unstable[1]), abs=1e-6)
    optimum = -np.diag(jacobian(1, 1, lam, d=d))
    assert rates(lam, GAMMA, d) == pytest.approx(optimum, rel=1e-6, abs=1e-9)


def test_saddle_and_rates_are_those_of_the_reference():
    for entry in golden("saddle_eigenvalues"):
        found = saddle(entry["inputs"]["lam"], GAMMA, entry["inputs"]["d"])
        assert agrees(found.eigenvalues, entry)
        assert math.hypot(*found.unstable) == pytest.approx(1, rel=1e-15) and min(found.unstable) > 0
    for entry in golden("rates_at_optimum"):
        found = rates(entry["inputs"]["lam"], GAMMA, entry["inputs"]["d"])
        for name, value in entry["value"].items():
            assert agrees(getattr(found, name), entry, value)


def test_the_flow_has_its_four_kinds_of_critical_points_and_no_others():
    for (kappa, nu), signs in CRITICAL.items():
        assert np.abs(velocity(kappa, nu, 0.1)).max() <= 1e-14 and np.abs(velocity(kappa, nu, 0.9)).max() <= 1e-14
        assert sorted(np.sign(np.linalg.eigvals(jacobian(kappa, nu, 0.1)).real)) == signs
    grid = np.linspace(-0.99, 0.99, 34)  # without 0
    assert all(np.linalg.norm(velocity(x, y, 0.1)) > 1e-3 for x in grid for y in grid)


@pytest.mark.slow
def test_the_stable_curve_is_that_of_the_reference_and_parts_the_basins():
    (entry,) = golden("stable_curve")
    on = float(separatrix(0.3, 0.1, GAMMA, D))
    assert agrees(on, entry)
    for shift, side in ((1e-4, 1), (-1e-4, -1)):
        assert orbit(0.3, on + shift, 0.1, 60) == pytest.approx([side, side], abs=0.2)
    on = float(separatrix(-0.8, 0.1, GAMMA, D))
    assert [orbit(-0.8, on + shift, 0.1, 60)[1] for shift in (-1e-3, 1e-3)] == pytest.approx([-1, 1], abs=0.1)


def test_the_stable_curve_leaves_the_saddle_along_its_stable_direction():
    kappa = np.array([[-1e-5, 0.0], [1e-5, 0.999]])
    found = separatrix(kappa, 0.3, GAMMA, D)
    assert found.shape == (2, 2) and found[0, 1] == 0 and -1 <= found[1, 1] < -0.9
    values, vectors = np.linalg.eig(jacobian(0, 0, 0.3))
    slope = np.divide(*vectors[::-1, np.argmin(values)])
    assert found[:, 0] == pytest.approx(slope * kappa[:, 0], rel=1e-4)


def test_the_flow_is_that_of_the_reference_and_of_the_definition():
    (entry,) = golden("flow")
    start = [entry["inputs"]["kappa"], entry["inputs"]["nu"], 0, 0, 0]
    found = flow(start, 0.1, GAMMA, D, [0.0, 10.0, entry["inputs"]["time"]])
    assert found.overlaps.shape == (3, 5) and not found.overlaps[:, 2:].any()
    assert np.array_equal(found.overlaps[0], start) and agrees(found.overlaps[-1, :2], entry)
    assert found.overlaps[1, :2] == pytest.approx(orbit(*start[:2], 0.1, 10), abs=1e-7)
    assert found.steps.tolist() == [0, 10, 40] and found.lam.tolist() == [0.1] * 3


def test_the_risk_of_a_flow_is_that_of_its_states_and_falls():
    times = np.linspace(0, 30, 5)
    starts = np.zeros((2, 3, 5))
    starts[..., :2] = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 3, 2))
    lam = np.array([[0.1], [0.4]])
    found = flow(starts, lam, GAMMA, D, times)
    assert found.overlaps.shape == (2, 3, 5, 5) and found.risk.shape == found.lam.shape == (2, 3, 5)
    assert (np.diff(found.risk) <= 1e-12).all() and found.overlaps.dtype == np.float64
    for (i, j), slope in zip(np.ndindex(2, 3), np.repeat(lam, 3), strict=True):
        bare = [float(risk(state, slope, GAMMA, D, L, full=False)) for state in found.overlaps[i, j]]
        assert found.risk[i, j] == pytest.approx(bare, abs=1e-13)


@pytest.mark.slow
def test_descent_comes_to_the_flow_in_the_first_order_of_its_step():
    """The slope of log error over log step lies between .95 and 1.05, and each error is that of the reference."""
    (entry,) = golden("pgd_minus_flow_kappa")
    start = np.zeros((30, 5))
    start[:, :2] = entry["inputs"]["kappa"], entry["inputs"]["nu"]
    end = flow(start[0], 0.1, GAMMA, D, [40.0]).overlaps[0, 0]
    alphas = entry["inputs"]["alpha"]
    lengths = [round(40 / alpha) for alpha in alphas]
    ends = [descend(start, 0.1, GAMMA, D, L, a, n, n).overlaps[0, 0, 0] for a, n in zip(alphas, lengths, strict=True)]
    errors = np.abs(np.array(ends) - end)
    assert agrees(errors, entry)
    assert 0.95 < np.polyfit(np.log(alphas), np.log(errors), 1)[0] < 1.05


def test_the_setting_of_jax_is_left_as_it_was():
    flow([0.04, 0.03, 0, 0, 0], 0.1, GAMMA, D, [0.0, 1.0, 2.0])
    assert not jax.config.jax_enable_x64 and float(zeta(0.0, 0.1)) == pytest.approx(0.012483540641115764, rel=1e-13)


def test_states_off_the_manifold_and_wrong_times_are_refused():
    with pytest.raises(ValueError, match="on the manifold theta = eta = rho = 0 only, got entries up to 0.1"):
        flow([0.3, 0.4, 0.1, 0, 0], 0.1, GAMMA, D, [1.0])
    for times in ([2.0, 1.0], [-1.0, 1.0], [], 1.0, [1.0, math.nan], [1.0, 1.0]):
        with pytest.raises(ValueError, match="times must be a list of finite, increasing numbers from 0 on"):
            flow([0.3, 0.4, 0, 0, 0], 0.1, GAMMA, D, times)
    with pytest.raises(ValueError, match="no unit vectors k, v have the overlaps"):
        flow([1.3, 0.4, 0, 0, 0], 0.1, GAMMA, D, [1.0])


@pytest.mark.parametrize("closed_form", [saddle, rates, lambda *task: separatrix(0.3, *task)])
def test_wrong_numbers_are_refused(closed_form):
    with pytest.raises(ValueError, match="lam must be finite and above 0"):
        closed_form(0.0, GAMMA, D)
    with pytest.raises(ValueError, match="lam must be one number, got an array"):
        closed_form([0.1, 0.2], GAMMA, D)
    with pytest.raises(ValueError, match="gamma must be finite and above 0"):
        closed_form(0.1, -1.0, D)
    with pytest.raises(ValueError, match="whole number from 4 on, got d = 3"):
        closed_form(0.1, GAMMA, 3)


def test_a_stable_curve_outside_the_square_is_refused():
    for kappa in (1.0, -1.5, math.nan):
        with pytest.raises(ValueError, match="kappa must lie between -1 and 1"):
            separatrix(kappa, 0.1, GAMMA, D)


def test_a_flow_of_no_time_stays_where_it_is():
    found = flow([[0.1, 0.2, 0, 0, 0]], 0.1, GAMMA, D, [0.0])
    np.testing.assert_allclose(found.overlaps[0, 0, :2], [0.1, 0.2], rtol=1e-15)


@pytest.mark.parametrize("lam", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kappa", [0.35, 0.5, 0.95])
def test_the_stable_curve_at_one_place_is_that_at_many(lam, kappa):
    """Also where it has long come to -1."""
    together = separatrix([1e-3, 0.1, kappa], lam, GAMMA, D)[-1]
    assert float(separatrix(kappa, lam, GAMMA, D)) == pytest.approx(together, rel=1e-9)
    assert separatrix(-kappa, lam, GAMMA, D) == pytest.approx(-together, rel=1e-9)


@pytest.mark.parametrize("times", [[math.nan], [math.inf], [0.0, math.inf]])
def test_times_that_never_end_are_refused(times):
    with pytest.raises(ValueError, match="times must be a list of finite, increasing numbers"):
        flow([[0.1, 0.2, 0, 0, 0]], 0.1, GAMMA, D, times)
