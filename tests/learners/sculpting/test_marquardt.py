"""Phase (vi): derivatives against differences, the projected normal equations, convergence, and the law of noise."""

import numpy as np
import pytest

from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting import marquardt as module
from attnlearn.learners.sculpting.marquardt import Start, jacobian, marquardt, normal
from attnlearn.learners.sculpting.rows import Rows, features, regression, relative_error
from tests.learners.sculpting import small


@pytest.fixture
def problem(key):
    """Rows of a small layer, a point that is not its solution, and two directions."""
    examples = small.drawn(2, 3, 4, 3.0, 60, 0)
    rows = Rows.of(np.asarray(examples.X), np.asarray(examples.Y), np.arange(0, 240, 2))
    return rows, small.qk(examples) + 0.3 * key.standard_normal((2, 3, 3)), key.standard_normal((2, 3, 3))


def test_jacobian_is_that_of_central_differences(problem):
    """Row 13: below 1e-6. At a step of 1e-5 the third derivatives leave 1e-10, rounding 1e-11."""
    rows, thetas, _ = problem
    W, step = regression(features(rows, thetas), rows.Y), 1e-5
    found = jacobian(rows, thetas, W)
    assert found.shape == (120, 3, 2, 9)
    for head, entry in np.ndindex(2, 9):
        move = np.zeros((2, 9))
        move[head, entry] = step
        ahead, back = (features(rows, thetas + sign * move.reshape(2, 3, 3)) @ W for sign in (1, -1))
        assert np.abs(found[:, :, head, entry] - (ahead - back) / (2 * step)).max() < 1e-6


def test_jacobian_along_directions_is_the_jacobian_times_them(problem):
    rows, thetas, directions = problem
    W = regression(features(rows, thetas), rows.Y)
    along, wanted = jacobian(rows, thetas, W, directions), jacobian(rows, thetas, W) @ directions.reshape(2, 9).T
    assert np.abs(along - wanted).max() < 1e-12 * np.abs(wanted).max()


@pytest.mark.parametrize("inside", [False, True])
def test_normal_equations_have_the_features_projected_out(problem, monkeypatch, inside):
    rows, thetas, directions = problem
    monkeypatch.setattr(module, "BLOCK_SCALARS", 400)  # several blocks
    at = module._point(rows, thetas)
    H, gradient = normal(rows, at, directions if inside else None)
    J = jacobian(rows, thetas, at.W, directions if inside else None).reshape(120, 3, -1)
    Q = np.linalg.qr(at.phi)[0]
    J = np.stack([column - Q @ (Q.T @ column) for column in J.swapaxes(0, 1)], axis=1).reshape(360, -1)
    assert np.abs(H - J.T @ J).max() < 1e-11 * np.abs(H).max()
    assert np.abs(gradient - J.T @ at.misfit.ravel()).max() < 1e-11 * np.abs(gradient).max()


def test_a_start_near_the_truth_leads_to_it(problem):
    rows, _, _ = problem
    thetas = small.qk(small.drawn(2, 3, 4, 3.0, 60, 0))
    found = marquardt(rows, Start(thetas + 0.05), 60)
    assert found.residual < 1e-13 and 1 < found.steps < 20
    assert small.relative(found.thetas, thetas) < 1e-10  # the residual times the condition of the Jacobian, below 1e3
    assert relative_error(rows, found.thetas, found.W) == pytest.approx(found.residual, rel=1e-6, abs=1e-15)
    assert marquardt(rows, Start(thetas + 0.05), 1).steps == 1


def test_a_run_in_the_hull_stays_there_and_gets_better(problem):
    rows, thetas, directions = problem
    found = marquardt(rows, Start(thetas, directions), 15)
    flat = directions.reshape(2, 9)
    moved = (found.thetas - thetas).reshape(2, 9)
    assert np.abs(moved - moved @ np.linalg.pinv(flat) @ flat).max() < 1e-12 * np.abs(moved).max()
    assert found.steps > 0 and found.residual < marquardt(rows, Start(thetas, directions), 0).residual
    alone = marquardt(rows, Start(thetas, np.zeros((0, 3, 3))), 15)  # one head: nothing to move
    assert alone.steps == 0 and np.array_equal(alone.thetas, thetas)


def test_columns_that_are_zero_are_damped(problem):
    """A coordinate that is 0 in every token has no derivative at all; without a floor its diagonal would be 0."""
    rows, thetas, _ = problem
    blind = Rows(np.where(np.arange(3) == 0, 0.0, rows.query), np.where(np.arange(3) == 0, 0.0, rows.X), rows.Y)
    found = marquardt(blind, Start(thetas), 5)
    assert np.isfinite(found.thetas).all() and found.steps > 0


@pytest.fixture(scope="module")
def noisy():
    """Test errors from a start near the truth, (1,6,6,6,seed 0): by rows of the fit and relative noise."""
    planted = Planted(1, 6, 6, 6.0, 2000, 0)
    examples, layer = planted.draw(), planted.layer()
    X, Y, thetas = np.asarray(examples.X), np.asarray(examples.Y), np.asarray(layer.qk)
    order = np.random.default_rng(0).permutation(12_000)
    clean = Rows.of(X, Y, order[6000:8000])
    noise = np.random.default_rng(5).normal(size=Y.shape)

    def error(count, eta):
        rows = Rows.of(X, Y + eta * Y.std() * noise, order[:count])
        found = marquardt(rows, Start(thetas * 1.01), 60)
        return relative_error(clean, found.thetas, found.W)

    return error


@pytest.mark.parametrize("count", [1500, 6000])
def test_error_of_the_last_fit_follows_the_noise_law(noisy, count):
    """Row 12: eta sqrt(p / (R o)), p = m (d^2 + d o), within [.7, 1.6]. Measured over predicted in the specification:
    8.6e-4 / 8.9e-4 at 1500 rows. p squares have a relative error of sqrt(2/p) = .17, their root of .08: .7 and 1.6 are
    3.6 and 7 of them away; the seed is fixed."""
    law = 0.01 * np.sqrt(72 / (count * 6))
    assert 0.7 < noisy(count, 0.01) / law < 1.6


def test_error_grows_in_proportion_to_the_noise(noisy):
    """Slope 1 within 5 % in the logarithm: the fit is linear in such noise."""
    slope = np.log(noisy(1500, 0.02) / noisy(1500, 0.005)) / np.log(4)
    assert slope == pytest.approx(1, abs=0.05)
