"""Eliminated coefficients against least squares by QR, where the features are nearly dependent."""

import jax.numpy as jnp
import numpy as np
import pytest

from attnlearn._types import float64
from attnlearn.learners.least_squares.elimination import Normal, eliminate, finish, normal, solver
from attnlearn.learners.least_squares.passes import Sums

SIZE, COLUMNS, OUT = 400, 32, 5
ROWS = float(SIZE)
RIDGE = 1e-13


class Dense(Sums):
    """The two sums that elimination asks for, of features that are given."""

    def __init__(self, phi, labels):
        self.phi, self.labels = jnp.asarray(phi), jnp.asarray(labels)

    def normal(self):
        return self.phi.T @ self.phi, self.phi.T @ self.labels

    def refine(self, W):
        residual = self.labels - self.phi @ W
        return self.phi.T @ residual, jnp.sum(residual**2)


def a_problem(key, condition=1e8, noise=0.0):
    """Features whose second moment has this condition, and labels of known coefficients."""
    left = np.linalg.qr(key.standard_normal((SIZE, COLUMNS)))[0] * np.sqrt(ROWS)
    right = np.linalg.qr(key.standard_normal((COLUMNS, COLUMNS)))[0]
    phi = (left * np.geomspace(1, condition**-0.5, COLUMNS)) @ right.T
    W = key.standard_normal((COLUMNS, OUT))
    return phi, W, phi @ W + noise * key.standard_normal((SIZE, OUT))


@pytest.mark.slow
@float64
def test_refinement_lowers_the_gradient_that_rounding_leaves(key):
    phi, _, labels = a_problem(key)
    sums = Dense(phi, labels)
    equations = normal(sums, ROWS)

    def slope(W):
        return np.linalg.norm(sums.refine(W)[0] / ROWS - RIDGE * W)

    plain = solver(equations, RIDGE)(equations.cross)
    assert slope(eliminate(sums, equations, RIDGE, ROWS).W) < slope(plain) / 3  # seen: 2.5e-15 to 1.8e-16


@float64
def test_the_last_correction_takes_away_the_bias_of_the_ridge(key):
    phi, W, labels = a_problem(key)
    sums = Dense(phi, labels)
    equations = normal(sums, ROWS)

    def error(found):
        return np.linalg.norm(found.W - W) / np.linalg.norm(W)

    # The ridge over the smallest eigenvalue is 1e-5; one correction squares what is left of it.
    biased, finished = eliminate(sums, equations, RIDGE, ROWS), finish(sums, equations, RIDGE, ROWS)
    assert error(biased) > 1e-7
    assert error(finished) < 1e-9
    assert finished.objective == finished.residual < 1e-20 * np.mean(np.sum(labels**2, axis=1))


@float64
@pytest.mark.parametrize("ridge", [1e-3, 1e-13])
def test_the_objective_is_what_the_definition_says(key, ridge):
    phi, _, labels = a_problem(key, condition=1e2, noise=0.1)
    sums = Dense(phi, labels)
    found = eliminate(sums, normal(sums, ROWS), ridge, ROWS)
    # Least squares with the ridge as rows of its own.
    stacked = np.concatenate([phi, np.sqrt(ROWS * ridge) * np.eye(COLUMNS)])
    W = np.linalg.lstsq(stacked, np.concatenate([labels, np.zeros((COLUMNS, OUT))]), rcond=None)[0]
    residual = np.sum((labels - phi @ W) ** 2) / ROWS
    np.testing.assert_allclose(found.W, W, rtol=0, atol=1e-10)
    assert found.residual == pytest.approx(residual, rel=1e-12)
    assert found.objective == pytest.approx(residual + ridge * np.sum(W**2), rel=1e-12)


@float64
def test_features_that_are_not_finite_give_nan_and_no_exception(key):
    phi, _, labels = a_problem(key)
    sums = Dense(phi * np.inf, labels)
    assert np.isnan(eliminate(sums, normal(sums, ROWS), 1e-3, ROWS).objective)
    indefinite = Normal(jnp.diag(jnp.asarray([1.0, -1.0])), jnp.ones((2, 1)))
    assert np.isnan(solver(indefinite, 1e-3)(indefinite.cross)).all()
