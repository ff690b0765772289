"""The ball of Newton and Kantorovich: its bound on the curvature dominates, and the truth lies in it."""

import numpy as np
import planted
import pytest
from fits import displaced

import attnlearn as al
from attnlearn.certify import jacobian as jacobian_module
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.curvature import lipschitz
from attnlearn.certify.jacobian import Jacobian
from attnlearn.certify.residual import newton_kantorovich
from attnlearn.data.examples import Examples
from attnlearn.layers.inputs import Inputs
from attnlearn.layers.slots import Erf, Linear, ReLU, Sigmoid, Slots, Softmax


def with_slots(layer, slots):
    return al.AttentionLayer(layer.qk, layer.ov, layer.query_bias, layer.offset, slots)


def inputs(rows="all"):
    present = np.ones((3, 5), bool)
    present[1, 3:] = False
    return Inputs(planted.tokens(3), present, rows)


CASES = [
    (Slots(Softmax()), "all", ("qk", "ov", "query_bias", "offset")),
    (Slots(Softmax(), al.Causal()), "mean", ("qk", "ov")),
    (Slots(Softmax()), "last", ("qk", "query_bias")),
    (Slots(Sigmoid()), "all", ("qk", "ov", "query_bias", "offset")),
    (Slots(Linear()), "mean", ("qk", "ov", "query_bias", "offset")),
    (Slots(Erf()), "last", ("qk", "ov", "query_bias", "offset")),
    (Slots(Erf(mean=False)), "all", ("qk", "ov", "query_bias", "offset")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "slots, rows, free", CASES, ids=lambda case: getattr(case, "normaliser", case).__class__.__name__
)
def test_the_bound_dominates_differences_of_the_jacobian(slots, rows, free, key):
    """Random directions and, by power iteration, nearly the worst; small steps see the derivative itself."""
    layer, unknowns, radius = with_slots(planted.layer(0), slots), Unknowns(free), 0.5
    at = Jacobian(layer, inputs(rows), unknowns)
    K, seen = lipschitz(at, radius), []
    for length in (1e-3, 0.1, radius):
        direction = key.standard_normal(at.parameters)
        for _ in range(4):
            direction *= length / np.linalg.norm(direction)
            moved = Jacobian(displaced(layer, at.coordinates, direction), inputs(rows), unknowns)
            _, values, rows_of = np.linalg.svd(moved.dense() - at.dense(), full_matrices=False)
            seen.append(values[0] / length)
            direction = rows_of[0]
    assert 0 < max(seen) <= K
    assert lipschitz(at, 2 * radius) >= K


def test_outputs_linear_in_the_unknowns_have_no_curvature():
    assert lipschitz(Jacobian(planted.layer(0), inputs(), Unknowns(("ov", "offset"))), 1.0) == 0.0


@pytest.mark.parametrize("distance", [0.0, 1e-10, 1e-7, 1e-5])
@pytest.mark.parametrize("constant", [False, True])
def test_the_truth_lies_in_the_ball(distance, constant, key):
    """With a constant coordinate the distance is measured with no change along the hidden directions."""
    X = planted.tokens(1, batch=20)
    if constant:
        X[..., 0] = 1.0
    truth = planted.layer(0)
    examples = Examples(X, truth(X))
    jacobian = Jacobian(truth, X)
    spectrum = jacobian_module.Spectrum(jacobian.dense())
    direction = spectrum.right @ key.standard_normal(spectrum.rank)
    layer = displaced(truth, jacobian.coordinates, distance * direction / np.linalg.norm(direction))
    ball = newton_kantorovich(layer, examples)
    assert ball.refused == "" and ball.h <= 0.5 and ball.nullity == spectrum.nullity
    # the complements of the null spaces at the two layers are the same: the gauge of softmax acts by translations
    assert distance <= ball.radius <= 2 * ball.step
    assert ball.radius <= 3 * distance + 1e-10  # rounding times a condition of 1e2
    assert ball.alone_within > 1e3 * ball.radius or distance == 1e-5


def test_errors_of_the_labels_widen_the_ball(key):
    """The labels are those of the truth to within 1e-6, so the truth lies in the ball around a fit to them."""
    X, truth = planted.tokens(1, batch=20), planted.layer(0)
    errors = 1e-6 * key.uniform(-1, 1, truth(X).shape)
    jacobian = Jacobian(truth, X)
    step = np.linalg.lstsq(jacobian.dense(), errors.ravel(), rcond=None)[0]
    fitted = displaced(truth, jacobian.coordinates, step)
    examples = Examples(X, truth(X) + errors)
    ball = newton_kantorovich(fitted, examples, tolerance=1e-6)
    assert ball.refused == "" and np.linalg.norm(step) < ball.radius
    assert newton_kantorovich(fitted, examples).radius < 0.1 * ball.radius


@pytest.mark.slow
def test_says_which_assumption_failed(monkeypatch):
    X, truth = planted.tokens(1, batch=20), planted.layer(0)
    examples = Examples(X, truth(X))
    assert "h = " in newton_kantorovich(planted.layer(5), examples).refused
    assert newton_kantorovich(planted.layer(5), examples).radius == np.inf
    relu = with_slots(truth, Slots(ReLU()))
    assert "second derivative of ReLU" in newton_kantorovich(relu, examples).refused
    assert "curved set" in newton_kantorovich(truth, examples, unknowns=Unknowns(head_dim=4)).refused
    silent = al.AttentionLayer(truth.qk, 0 * truth.ov)
    assert "do not depend" in newton_kantorovich(silent, examples, unknowns=Unknowns(("qk",))).refused
    with pytest.raises(ValueError, match="tolerance must be at least 0"):
        newton_kantorovich(truth, examples, tolerance=-1.0)
    monkeypatch.setattr(jacobian_module, "MAX_BYTES", 0)
    assert "too large" in newton_kantorovich(truth, examples).refused
