"""Layers as black boxes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import oracles as twins
import pytest

from attnlearn import AttentionLayer, Causal, Slots, oracles
from attnlearn.layers.slots import AbstractNormaliser

ROUNDING = 1e-13  # two float64 evaluations of one formula of six tokens of width 5


def layer_with(key, slots):
    shapes = (2, 5, 5), (2, 5, 3), (2, 5), (3,)
    return AttentionLayer(*(key.normal(size=shape) / 2 for shape in shapes), slots=slots)


@pytest.mark.parametrize("mask", [None, Causal()])
def test_a_layer_answers_by_its_definition(mask, key):
    layer, X = layer_with(key, Slots(mask=mask)), key.normal(size=(4, 6, 5))
    oracle = oracles.from_layer(layer, max_queries=9)
    expected = np.array([twins.attention(layer, x) for x in X])
    np.testing.assert_allclose(oracle.ask(X), expected, rtol=0, atol=ROUNDING)
    assert oracle.truth is layer and oracle.remaining == 5 and oracle.width_out == 3


def test_a_layer_in_float32_computes_in_float32(key):
    layer, X = layer_with(key, Slots()), key.normal(size=(4, 6, 5)).astype(np.float32)
    error = np.abs(oracles.from_layer(layer, dtype="float32").ask(X) - oracles.from_layer(layer).ask(X)).max()
    assert 1e-9 < error < 1e-5  # rounding of float32 is 6e-8, of float64 1e-16


def test_hard_attention_does_not_overflow(key):
    layer = layer_with(key, Slots())
    X = key.normal(size=(2, 2, 5)) * 1e9
    assert np.isfinite(oracles.from_layer(layer).ask(X)).all()


class Squares(AbstractNormaliser):
    """Weights proportional to the squares of the scores."""

    def __call__(self, scores, visible):
        squares = jnp.where(visible, scores**2, 0.0)
        return squares / squares.sum(-1, keepdims=True)


def test_a_layer_with_another_normaliser_answers_for_itself(key):
    layer, X = layer_with(key, Slots(normaliser=Squares())), key.normal(size=(2, 3, 5))
    np.testing.assert_array_equal(oracles.from_layer(layer).ask(X), layer(X))


def test_equal_slots_are_recognised():
    assert Slots() == Slots(mask=None) and Slots() != Slots(normaliser=Squares())
    assert eqx.tree_equal(Slots(mask=Causal()), Slots(mask=Causal()))


def test_refuses_a_precision_that_is_not_offered(key):
    with pytest.raises(ValueError, match="dtype must be 'float64' or 'float32', got 'float16'"):
        oracles.from_layer(layer_with(key, Slots()), dtype="float16")
