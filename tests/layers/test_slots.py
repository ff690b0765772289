import math

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import planted
import pytest

import attnlearn as al
from attnlearn.layers import Symmetry
from attnlearn.layers.slots import SAVED, from_plain, to_plain

NORMALISERS = [al.Softmax(), al.Sigmoid(), al.ReLU(), al.Linear(), al.Erf(), al.Erf(mean=False)]
VISIBLE = np.tril(np.ones((3, 4), bool))


def of_slots(slots, seed=0):
    layer = planted.layer(seed)
    return al.AttentionLayer(layer.qk, layer.ov, layer.query_bias, layer.offset, slots)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_weights_are_those_of_the_definition_and_no_masked_score_matters(normaliser, key):
    scores = key.standard_normal((3, 4))
    wanted = np.zeros((3, 4))
    for row in range(3):
        wanted[row, VISIBLE[row]] = oracles.row_of_weights(normaliser, list(scores[row, VISIBLE[row]]))
    with jax.enable_x64(True):
        for extreme in (-1e308, 1e308, np.inf, -np.inf, np.nan):
            hidden = jnp.asarray(np.where(VISIBLE, scores, extreme))
            np.testing.assert_allclose(
                normaliser(hidden, jnp.asarray(VISIBLE)), wanted, rtol=1e-14
            )  # rounding of one exponential
            slope = jax.grad(lambda s: jnp.sum(normaliser(s, jnp.asarray(VISIBLE)) ** 2))(hidden)
            assert np.isfinite(slope).all()
            assert not np.asarray(slope)[~VISIBLE].any()


def test_masks_are_those_of_the_definition():
    for mask in (None, al.Causal(), al.Window(1), al.Window(3), al.Window(9)):
        wanted = [[oracles.sees(mask, query, token) for token in range(5)] for query in range(5)]
        np.testing.assert_array_equal(al.Slots(mask=mask).visible(5), wanted)


def test_a_window_of_no_token_is_refused():
    with pytest.raises(ValueError, match="at least 1 token wide, got 0"):
        al.Window(0)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("mask", [None, al.Causal(), al.Window(3)])
def test_a_saved_layer_has_its_slots_again(normaliser, mask, tmp_path):
    layer = of_slots(al.Slots(normaliser, mask))
    layer.save(tmp_path / "layer.safetensors")
    assert al.AttentionLayer.load(tmp_path / "layer.safetensors") == layer


def test_every_value_that_can_be_saved_comes_back_from_plain_words():
    for value in SAVED.values():
        made = value(3) if value is al.Window else value()
        slots = al.Slots(mask=made) if value in (al.Causal, al.Window) else al.Slots(made)
        assert from_plain(to_plain(slots)) == slots


def test_a_callable_of_ones_own_works_and_is_not_saved(tmp_path):
    def cubes(scores, visible):
        return jnp.where(visible, scores**3, 0.0)

    layer = of_slots(al.Slots(cubes, al.Causal()))
    X = planted.tokens(0)
    scores = np.einsum("ntd,mde,nje->nmtj", X, layer.qk, X) + np.einsum("md,njd->nmj", layer.query_bias, X)[:, :, None]
    np.testing.assert_allclose(layer.maps(X), np.tril(scores**3), atol=1e-13)
    assert layer.slots.symmetry is None and not layer.slots.simplex
    with pytest.raises(ValueError, match="'function' cannot be saved"):
        layer.save(tmp_path / "layer.safetensors")


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_each_symmetry_is_one_of_the_weights(normaliser, key):
    scores = jnp.asarray(key.standard_normal((2, 4)), jnp.float32)
    visible = jnp.ones((2, 4), bool)
    changed = {
        Symmetry.SHIFT: lambda: (normaliser(scores + 1.5, visible), normaliser(scores, visible)),
        Symmetry.SIGN: lambda: (normaliser(-scores, visible), -normaliser(scores, visible)),
        Symmetry.SCALE: lambda: (normaliser(3 * scores, visible), 3 * normaliser(scores, visible)),
        Symmetry.MIXING: lambda: (normaliser(scores + scores[::-1], visible), 2 * normaliser(scores, visible).mean(0)),
    }
    if normaliser.symmetry is Symmetry.MIXING:
        left, right = changed[Symmetry.MIXING]()
        np.testing.assert_allclose(left, np.tile(right, (2, 1)), rtol=1e-5)
    for symmetry in (Symmetry.SHIFT, Symmetry.SIGN, Symmetry.SCALE):
        left, right = changed[symmetry]()
        odd_and_scaled = normaliser.symmetry is Symmetry.MIXING and symmetry is not Symmetry.SHIFT
        assert np.allclose(left, right, rtol=1e-5) == (normaliser.symmetry is symmetry or odd_and_scaled)
    assert normaliser.simplex == (normaliser.symmetry is Symmetry.SHIFT)


def test_sigmoid_of_equal_scores_is_the_mean_in_the_limit_of_many_tokens():
    """1 / (1 + v) against 1 / v."""
    weights = al.Sigmoid()(jnp.zeros((1, 999)), jnp.ones((1, 999), bool))
    assert math.isclose(float(weights[0, 0]), 1 / 1000, rel_tol=1e-5)
