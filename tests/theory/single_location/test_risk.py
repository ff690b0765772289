"""The closed-form risk against quadrature and simulation of its definition; its gradient against derivatives."""

import math

import jax
import numpy as np
import pytest
from location_twins import (
    agrees,
    golden,
    gradient_by_quadrature,
    of_vectors,
    random_pairs,
    risk_by_quadrature,
    sequences,
    setting,
    vector_gradient,
)
from scipy import special

from attnlearn.theory.single_location import OrderParameters, gradient, overlaps, risk, sphere_starts, zeta

GAMMA, D, L = math.sqrt(0.5), 400, 10
TASKS = [(0.3, 20, 2), (math.sqrt(0.5), 400, 10), (1.0, 80, 50), (0.6, 200, 7)]
DOORS = pytest.mark.parametrize("formula", [risk, gradient])
VALID = [0.3, 0.4, 0.1, -0.2, 0.15]
MANY = np.tile(VALID, (80, 1))  # 80 states is the shape that is compiled


@pytest.fixture
def states(key):
    """Of vectors in few dimensions, where all five overlaps are large, and in many, where none is."""
    return np.concatenate([of_vectors(*random_pairs(key, 20, width)) for width in (3, 4, 6, 100)])


@pytest.fixture
def lam(key):
    return key.uniform(0.05, 2, 80)


@pytest.mark.parametrize("task", TASKS)
def test_risk_is_that_of_the_definition(states, lam, task):
    twin = [risk_by_quadrature(state, slope, *task) for state, slope in zip(states, lam, strict=True)]
    assert np.abs(risk(states, lam, *task) / twin - 1).max() <= 1e-12


@pytest.mark.parametrize("name", ["oracle_risk", "risk s", "risk_random", "risk_without_constant"])
def test_risk_is_that_of_the_reference(name):
    for entry in golden(name):
        states = np.tile(entry["inputs"]["overlaps"], (80, 1))
        found = risk(states, *setting(entry["inputs"]), full=not name.endswith("constant"))
        assert agrees(found[0], entry), entry["id"]


def test_risk_is_the_mean_square_error_of_the_layer_on_sequences(key):
    """|z| < 5.2 for each of four states: false alarm 8e-7 in all. Mutant: without (L-1) ζ(0, λ), z > 13."""
    lam, gamma, d, n_tokens, epsilon, n = 0.4, 0.7, 6, 4, 0.3, 30_000
    X, y = sequences(key, n, d, n_tokens, gamma, epsilon)
    for k, v in zip(*random_pairs(key, 4, d), strict=True):
        errors = ((special.erf(lam * (X @ k)) * (X @ v)).sum(axis=1) - y) ** 2 - epsilon**2
        exact = risk(of_vectors(k, v), lam, gamma, d, n_tokens)
        assert abs(errors.mean() - exact) < 5.2 * errors.std() / math.sqrt(n)


def test_risk_of_the_oracle_is_its_formula():
    for lam in (0.01, 0.1, 1.0):
        h, q = math.sqrt(D / 2), math.sqrt(1 + 2 * lam**2 * GAMMA**2)
        own = 1 - 2 * special.erf(lam * h / q) + zeta(lam * h, lam * GAMMA)
        assert risk([1, 1, 0, 0, 0], lam, GAMMA, D, L) == pytest.approx(
            GAMMA**2 * own + (L - 1) * zeta(0.0, lam), rel=1e-13
        )


def test_risk_does_not_change_when_both_vectors_turn_round(states, lam):
    for signs, task in zip(([-1, -1, -1, -1, 1],) * 4, TASKS, strict=True):
        assert risk(states * signs, lam, *task) == pytest.approx(risk(states, lam, *task), rel=1e-13)
        assert gradient(states * signs, lam, *task) == pytest.approx(signs * gradient(states, lam, *task), rel=1e-12)


def test_risk_does_not_change_when_all_vectors_are_rotated(key):
    rotation = np.linalg.qr(key.standard_normal((6, 6)))[0]
    k, v = random_pairs(key, 80, 6)
    turned = overlaps(k @ rotation, v @ rotation, *rotation[:2])
    assert np.abs(turned - of_vectors(k, v)).max() < 1e-14
    assert risk(turned, 0.3, GAMMA, D, L) == pytest.approx(risk(of_vectors(k, v), 0.3, GAMMA, D, L), rel=1e-12)


def test_leaving_out_the_constant_takes_off_what_depends_on_no_vector(states, lam):
    gap = risk(states, lam, GAMMA, D, L) - risk(states, lam, GAMMA, D, L, full=False)
    constant = [(L - 1) * zeta(0.0, slope) for slope in lam]
    assert np.abs(gap - constant).max() < 1e-15 * 1e3  # rounding of risks of size 1e3


automatic = jax.jit(jax.vmap(jax.grad(risk), (0, 0, None, None, None)))


def scaled(difference, gradients):
    """The largest entry of a difference of gradients over max(1, |gradient|)."""
    return np.max(np.abs(difference) / np.maximum(1, np.linalg.norm(gradients, axis=-1))[..., None])


@pytest.mark.parametrize("task", TASKS)
def test_gradient_is_that_of_the_definition_and_automatic(states, lam, task):
    found = gradient(states, lam, *task)
    twin = [gradient_by_quadrature(state, slope, *task) for state, slope in zip(states, lam, strict=True)]
    assert scaled(found - twin, found) <= 1e-11
    with jax.enable_x64(True):
        by_jax = np.asarray(automatic(states, lam, *task))
    assert scaled(found - by_jax, found) <= 1e-11


def test_gradient_is_the_slope_of_the_risk(states, lam):
    """Central differences of 1e-5 round at 1e-16 R / 1e-5 and leave out 2e-11 of a third derivative."""
    inside, gentle = 0.9 * states, lam / 4
    sides = [
        np.stack([risk(inside + sign * move, gentle, GAMMA, D, L) for move in 1e-5 * np.eye(5)], axis=1)
        for sign in (-1, 1)
    ]
    found, wanted = (sides[1] - sides[0]) / 2e-5, gradient(inside, gentle, GAMMA, D, L)
    assert scaled(found - wanted, wanted) <= 1e-8


def test_gradient_is_that_of_the_reference():
    (entry,) = golden("gradient")
    assert agrees(gradient(np.tile(entry["inputs"]["overlaps"], (80, 1)), *setting(entry["inputs"]))[0], entry)


def test_gradients_of_the_vectors_are_made_of_the_five(key):
    k, v = random_pairs(key, 80, 6)
    by = gradient(of_vectors(k, v), 0.4, GAMMA, D, L)
    kappa, nu, theta, eta, rho = (column[:, None] for column in by.T)
    k_star, v_star = np.eye(6)[:2]
    found = kappa * k_star + eta * v_star + rho * v, nu * v_star + theta * k_star + rho * k
    for one, other in zip(found, vector_gradient(k, v, 0.4, GAMMA, D, L), strict=True):
        assert scaled(one - other, other) <= 1e-12


@DOORS
def test_slopes_broadcast_against_runs(formula, states, lam):
    found = formula(states.reshape(8, 10, 5), lam[:8, None], GAMMA, D, L)
    flat = formula(states, np.repeat(lam[:8], 10), GAMMA, D, L)
    assert np.array_equal(found, flat.reshape(8, 10, *flat.shape[1:]))
    assert formula(VALID, lam, GAMMA, D, L).shape == formula(MANY, 0.1, GAMMA, D, L).shape == flat.shape


def test_one_state_gives_one_number():
    assert risk(VALID, 0.1, GAMMA, D, L).shape == ()
    assert risk(VALID, 0.1, GAMMA, D, L) == pytest.approx(float(risk(MANY, 0.1, GAMMA, D, L)[0]), rel=1e-14)


@DOORS
def test_answers_are_float64_whatever_the_setting_of_jax(formula):
    assert not jax.config.jax_enable_x64
    answer = formula(MANY.astype(np.float32), 0.1, GAMMA, D, L)
    assert isinstance(answer, np.ndarray | np.float64) and answer.dtype == np.float64


@DOORS
def test_wrong_numbers_are_refused(formula):
    for lam in (0.0, -0.1, math.nan, math.inf, [0.1, 0.0]):
        with pytest.raises(ValueError, match="lam must be finite and above 0"):
            formula(VALID, lam, GAMMA, D, L)
    for gamma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="gamma must be finite and above 0"):
            formula(VALID, 0.1, gamma, D, L)
    for d in (3, 4.5):
        with pytest.raises(ValueError, match=f"whole number from 4 on, got d = {d}"):
            formula(VALID, 0.1, GAMMA, d, L)
    for n_tokens in (1, 2.5):
        with pytest.raises(ValueError, match=f"2 tokens or more, a whole number, got n_tokens = {n_tokens}"):
            formula(VALID, 0.1, GAMMA, D, n_tokens)


@DOORS
def test_overlaps_that_no_unit_vectors_have_are_refused(formula):
    for state in ([1, 1, 0, 0, 0.1], [1.001, 0, 0, 0, 0], [0.8, 0, 0.8, 0, -0.5], [VALID, [0, 0, 0, 0, 1.5]]):
        with pytest.raises(ValueError, match="no unit vectors k, v have the overlaps"):
            formula(state, 0.1, GAMMA, D, L)
    with pytest.raises(ValueError, match="overlaps must be finite, got NaN"):
        formula([math.nan, 0, 0, 0, 0], 0.1, GAMMA, D, L)
    for state in (0.3, [0.3, 0.4]):
        with pytest.raises(ValueError, match=r"wanted overlaps \(..., 5\) in the order"):
            formula(state, 0.1, GAMMA, D, L)
    at_the_edge = np.tile([1, 1, 0, 0, 1e-13], (80, 1))  # of vectors, after rounding
    assert np.isfinite(formula(at_the_edge, 0.1, GAMMA, D, L)).all()


def test_no_state_at_all_is_refused():
    with pytest.raises(ValueError, match=r"there is no state in overlaps of shape \(0, 5\): give one or more"):
        risk(np.zeros((0, 5)), 0.1, 0.7, 400, 10)


def test_order_parameters_are_read_by_name_also_for_five_runs():
    states = sphere_starts(0, 5, 80)
    np.testing.assert_array_equal(risk(OrderParameters.of(states), 0.1, 0.7, 80, 10), risk(states, 0.1, 0.7, 80, 10))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"lam": "0.1"}, "lam must be real numbers, got '0.1'"),
        ({"overlaps": np.zeros((1, 5)) + 1j}, "overlaps must be real numbers"),
        (
            {"lam": np.full(3, 0.1)},
            r"lam of shape \(3,\) does not broadcast against the leading axes of overlaps \(2, 5\)",
        ),
        ({"d": 400.5}, "the width of a token must be a whole number from 4 on, got d = 400.5"),
        ({"n_tokens": True}, "a whole number, got n_tokens = True"),
    ],
)
def test_what_is_no_number_of_the_right_kind_is_refused(wrong, message):
    right = {"overlaps": np.zeros((2, 5)), "lam": 0.1, "gamma": 0.7, "d": 400, "n_tokens": 10}
    with pytest.raises(ValueError, match=message):
        risk(**(right | wrong))
