import jax
import numpy as np
import planted
import pytest
from hypothesis import given, strategies

import attnlearn as al


@given(planted.SEEDS, planted.SHAPES, strategies.sampled_from([None, 2]))
def test_factors_multiply_to_the_layer(seed, shape, rank):
    layer = planted.layer(seed, shape, head_dim=rank)
    factored = al.Factored.of(layer)
    assert factored.queries.shape == (shape[0], shape[1] + 1, rank or shape[1])
    assert al.distance(factored.layer(), layer).worst < 1e-13  # an SVD of width 5 and its product


def test_circuits_are_rebuilt_under_jit():
    layer = planted.layer(0)
    factored = al.Factored.of(layer)
    with jax.enable_x64(True):
        qk, ov, query_bias, offset = jax.jit(lambda factored: factored.circuits())(factored)
    rebuilt = al.AttentionLayer(qk, ov, query_bias, offset)
    assert al.distance(rebuilt, layer).worst < 1e-13


def test_heads_of_lower_rank_are_padded():
    low, full = planted.layer(0, (1, 5, 5), head_dim=2), planted.layer(1, (1, 5, 5))
    layer = al.AttentionLayer(np.concatenate([low.qk, full.qk]), np.concatenate([low.ov, full.ov]))
    factored = al.Factored.of(layer)
    assert factored.keys.shape == (2, 5, 5)
    assert not factored.keys[0, :, 2:].any()
    assert al.distance(factored.layer(), layer).worst < 1e-13


def test_truncation_loses_the_singular_values_left_out():
    layer = planted.layer(0, (2, 5, 5))
    cut = al.Factored.of(layer, rank=3).layer()
    lost = np.linalg.svd(layer.ov, compute_uv=False)[:, 3:]
    np.testing.assert_allclose(np.linalg.norm(cut.ov - layer.ov, axis=(1, 2)), np.linalg.norm(lost, axis=1))


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="rank=0, wanted at least 1"):
        al.Factored.of(planted.layer(0), rank=0)


def test_slots_are_handed_on():
    slots = al.Slots(mask=al.Causal())
    assert al.Factored.of(planted.layer(0)).layer(slots).slots == slots
