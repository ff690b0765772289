"""J and its transpose against differences, JAX's own derivative and each other."""

import jax
import numpy as np
import pytest

from attnlearn._types import float64
from attnlearn.layers.attention import AttentionLayer, answers, random_layer
from attnlearn.layers.factored import Factored
from attnlearn.layers.inputs import Inputs
from attnlearn.layers.products import Circuits, linearise
from attnlearn.layers.slots import Causal, Erf, Sigmoid, Slots, Window

HEADS, WIDTH, WIDTH_OUT, RANK, TOKENS = 3, 8, 5, 4, 5
SLOTS = [Slots(), Slots(mask=Causal())]


def a_layer(key, slots=SLOTS[0], rank=RANK):
    plain = random_layer(key, HEADS, WIDTH, WIDTH_OUT, rank)
    biases = key.standard_normal((HEADS, WIDTH)), key.standard_normal(WIDTH_OUT)
    return AttentionLayer(plain.qk, plain.ov, *biases, slots=slots)


def random_like(tree, key):
    return jax.tree.map(lambda array: key.standard_normal(array.shape), tree)


def inner(a, b):
    return sum(np.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def norm(a):
    return np.sqrt(inner(a, a))


def both(layer):
    return [layer, Factored.of(layer)]


@pytest.mark.slow
@pytest.mark.parametrize("slots", SLOTS)
def test_the_derivative_is_that_of_the_outputs(key, slots):
    layer, step = a_layer(key, slots), 1e-5
    X = key.standard_normal((7, TOKENS, WIDTH))
    for at in both(layer):
        jacobian = linearise(at, slots, X, chunk=3)
        tangent = random_like(jacobian.zero, key)

        def moved(length, at=at, tangent=tangent):
            if isinstance(at, AttentionLayer):
                old = Circuits(at.qk, at.ov, at.query_bias, at.offset)
                return AttentionLayer(*jax.tree.map(lambda a, b: a + length * b, old, tangent), slots=slots)(X)
            return jax.tree.map(lambda old, new: old + length * new, at, tangent).layer(slots)(X)

        difference = (moved(step) - moved(-step)) / (2 * step)
        change = np.asarray(jacobian.apply(tangent))
        # Central differences: step^2 times a third derivative, and rounding over step.
        assert np.abs(change - difference).max() < 1e-7 * max(1, np.abs(change).max())
        np.testing.assert_allclose(jacobian.outputs(), layer(X), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("slots", SLOTS)
def test_circuits_have_the_jacobian_that_jax_finds(key, slots):
    layer = a_layer(key, slots, rank=None)
    X = key.standard_normal((2, TOKENS, WIDTH))
    jacobian = linearise(layer, slots, X)
    tangent = random_like(jacobian.zero, key)
    assert isinstance(tangent, Circuits)

    @float64
    def expected():
        at = layer.qk, layer.ov, layer.query_bias, layer.offset
        full = jax.jacfwd(lambda parameters: answers(*parameters, slots, Inputs(X)))(at)
        return sum(np.tensordot(part, change, change.ndim) for part, change in zip(full, tangent, strict=True))

    wanted = expected()
    assert np.abs(np.asarray(jacobian.apply(tangent)) - wanted).max() < 1e-12 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("slots", SLOTS)
def test_the_transpose_is_adjoint(key, slots):
    layer = a_layer(key, slots)
    X = key.standard_normal((7, TOKENS, WIDTH))
    for at in both(layer):
        jacobian = linearise(at, slots, X, chunk=3)
        tangent = random_like(jacobian.zero, key)
        rows = key.standard_normal((7, TOKENS, WIDTH_OUT))
        change, back = np.asarray(jacobian.apply(tangent)), jacobian.transpose(rows)
        assert type(back) is type(tangent)
        assert abs(np.vdot(change, rows) - inner(tangent, back)) < 1e-12 * norm(change) * norm(rows)


@pytest.mark.slow
def test_chunks_change_nothing_but_rounding(key):
    layer = a_layer(key)
    X, rows = key.standard_normal((7, TOKENS, WIDTH)), key.standard_normal((7, TOKENS, WIDTH_OUT))
    for at in both(layer):
        one, many = linearise(at, layer.slots, X, chunk=100), linearise(at, layer.slots, X, chunk=2)
        tangent = random_like(one.zero, key)
        np.testing.assert_allclose(one.apply(tangent), many.apply(tangent), atol=1e-12)
        for a, b in zip(jax.tree.leaves(one.transpose(rows)), jax.tree.leaves(many.transpose(rows)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.slow
def test_single_precision_products_agree_to_single_precision(key):
    layer = a_layer(key)
    jacobian = linearise(layer, layer.slots, key.standard_normal((4, TOKENS, WIDTH)))
    single, tangent = jacobian.astype(np.float32), random_like(jacobian.zero, key)
    exact = np.asarray(jacobian.apply(tangent))
    rounded = np.asarray(single.apply(jax.tree.map(lambda array: array.astype(np.float32), tangent)))
    assert rounded.dtype == np.float32
    assert np.abs(rounded - exact).max() < 1e-5 * np.abs(exact).max()  # 6e-8, some hundred times in a sum


def test_a_constant_on_every_score_of_a_row_changes_nothing(key):
    layer = a_layer(key)
    X = key.standard_normal((4, TOKENS, WIDTH))
    X[:, :, 0] = 1.0  # a direction that is constant over the tokens: keys along it cannot be seen
    jacobian = linearise(layer, layer.slots, X)
    unseen = np.zeros((HEADS, WIDTH, WIDTH))
    unseen[:, :, 0] = key.standard_normal((HEADS, WIDTH))
    change = jacobian.apply(jacobian.zero._replace(qk=unseen))
    assert np.abs(np.asarray(change)).max() < 1e-13


# Padding at the end, in front, in the middle, and none.
PRESENT = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]], bool)


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["all", "last", "mean"])
@pytest.mark.parametrize("slots", [Slots(mask=Causal()), Slots(Sigmoid()), Slots(Erf(), Window(2))])
def test_padding_rows_and_other_normalisers_have_the_jacobian_that_jax_finds(key, slots, rows):
    layer = a_layer(key, slots, rank=None)
    inputs = Inputs(key.standard_normal((4, TOKENS, WIDTH)), PRESENT, rows)
    jacobian = linearise(layer, slots, inputs, chunk=3)  # the last chunk is padded
    tangent = random_like(jacobian.zero, key)

    @float64
    def expected():
        at = Circuits(layer.qk, layer.ov, layer.query_bias, layer.offset)
        return map(np.asarray, jax.jvp(lambda parameters: answers(*parameters, slots, inputs), (at,), (tangent,)))

    outputs, wanted = expected()
    np.testing.assert_allclose(np.asarray(jacobian.outputs()), outputs, atol=1e-12)
    change = np.asarray(jacobian.apply(tangent))
    assert np.abs(change - wanted).max() < 1e-12 * np.abs(wanted).max()
    rows_back = key.standard_normal(change.shape)
    back = jacobian.transpose(rows_back)
    assert abs(np.vdot(change, rows_back) - inner(tangent, back)) < 1e-12 * norm(change) * norm(rows_back)
