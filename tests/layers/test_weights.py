import jax
import jax.numpy as jnp
import numpy as np
import oracles
import planted
import pytest
import safetensors.numpy
from hypothesis import given, strategies

import attnlearn as al
from attnlearn.layers.slots import AbstractNormaliser
from attnlearn.layers.weights import Projections

ROUNDING = 1e-12  # products of two Gaussian matrices of width 6: entries of some tens, sums of a few dozen


class Halved(AbstractNormaliser):
    """Rows do not sum to one."""

    def __call__(self, scores, visible):
        return jnp.where(visible, scores, 0.0) / 2


def ordinary(seed, heads=4, kv_heads=2, d=6, head_dim=3):
    key = np.random.default_rng(seed)
    shapes = [(heads, d, head_dim), (kv_heads, d, head_dim), (kv_heads, d, head_dim), (heads, head_dim, d)]
    biases = [(heads, head_dim), (kv_heads, head_dim), (kv_heads, head_dim), (d,)]
    return Projections(*(key.standard_normal(shape) for shape in shapes + biases))


@given(planted.SEEDS, strategies.sampled_from([1, 2, 4]), planted.MASKS, strategies.sampled_from([None, 0.3]))
def test_from_qkvo_equals_the_reference_with_shared_keys_and_all_biases(seed, kv_heads, mask, scale):
    given_weights = ordinary(seed, kv_heads=kv_heads)
    slots = al.Slots(mask=mask)
    layer = al.AttentionLayer.from_qkvo(*given_weights, scale=scale, slots=slots)
    X = planted.tokens(seed, d=6)
    expected = [oracles.attention_from_projections(given_weights, slots, one, scale) for one in X]
    np.testing.assert_allclose(layer(X), expected, atol=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_from_qkvo_equals_jax_dot_product_attention(kv_heads, mask):
    W_Q, W_K, W_V, W_O, *_ = ordinary(0, kv_heads=kv_heads)
    layer = al.AttentionLayer.from_qkvo(W_Q, W_K, W_V, W_O, slots=al.Slots(mask=mask))
    X = planted.tokens(0, d=6)
    with jax.enable_x64(True):
        q, k, v = (jnp.einsum("btd,mdh->btmh", X, W) for W in (W_Q, W_K, W_V))
        with jax.numpy_rank_promotion("allow"):  # inside JAX's own function
            mixed = jax.nn.dot_product_attention(q, k, v, is_causal=mask is not None)
        expected = np.asarray(jnp.einsum("btmh,mhe->bte", mixed, W_O))
    np.testing.assert_allclose(layer(X), expected, atol=1e-5)  # JAX takes the softmax in float32, logits of some tens


@given(planted.SEEDS, planted.SHAPES, strategies.sampled_from([None, 2]))
def test_export_and_import_give_the_same_layer(seed, shape, rank):
    layer = planted.layer(seed, shape, head_dim=rank)
    exported = layer.to_qkvo()
    assert exported.W_Q.shape[2] == (rank or shape[1])
    again = al.AttentionLayer.from_qkvo(*exported)
    assert al.distance(again, layer).worst < ROUNDING


def test_export_pads_to_the_head_dim_asked_for():
    layer = planted.layer(0, (2, 5, 5), head_dim=2)
    exported = layer.to_qkvo(head_dim=4)
    assert exported.W_Q.shape == exported.W_K.shape == exported.W_V.shape == (2, 5, 4)
    assert exported.W_O.shape == (2, 4, 5)
    assert al.distance(al.AttentionLayer.from_qkvo(*exported), layer).worst < ROUNDING
    wide = layer.to_qkvo(head_dim=9)
    assert al.distance(al.AttentionLayer.from_qkvo(*wide), layer).worst < ROUNDING


def test_export_is_balanced():
    exported = planted.layer(0, (2, 5, 5), head_dim=2).to_qkvo()
    for query, bias, key in zip(exported.W_Q, exported.b_Q, exported.W_K, strict=True):
        np.testing.assert_allclose(query.T @ query + np.outer(bias, bias), key.T @ key, atol=ROUNDING)


def test_export_refuses_a_smaller_rank_and_says_the_way_out():
    layer = planted.layer(0, (2, 5, 5), head_dim=3)
    with pytest.raises(ValueError, match=r"head 0 has rank 3, more than head_dim=2: take head_dim=3"):
        layer.to_qkvo(head_dim=2)


def test_export_counts_a_query_bias_outside_the_keys_as_one_more_rank():
    low = planted.layer(0, (2, 5, 5), head_dim=3)
    layer = al.AttentionLayer(low.qk, low.ov, np.random.default_rng(1).standard_normal((2, 5)))
    with pytest.raises(ValueError, match=r"QK circuit with its query bias of head 0 has rank 4.* take head_dim=4"):
        layer.to_qkvo(head_dim=3)
    assert al.distance(al.AttentionLayer.from_qkvo(*layer.to_qkvo(4)), layer).worst < ROUNDING


def test_rotating_the_inside_of_a_head_changes_nothing(key):
    given_weights = ordinary(0, kv_heads=4)
    inner, value = key.standard_normal((2, 4, 3, 3))
    turned = Projections(
        given_weights.W_Q @ inner,
        given_weights.W_K @ np.linalg.inv(inner).swapaxes(1, 2),
        given_weights.W_V @ value,
        np.linalg.inv(value) @ given_weights.W_O,
        np.einsum("mh,mhg->mg", given_weights.b_Q, inner),
        b_V=np.einsum("mh,mhg->mg", given_weights.b_V, value),
        b_O=given_weights.b_O,
    )
    a, b = al.AttentionLayer.from_qkvo(*turned), al.AttentionLayer.from_qkvo(*given_weights)
    conditioning = np.linalg.cond(inner).max() * np.linalg.cond(value).max()
    assert al.distance(a, b).worst < 1e-14 * conditioning


def test_shared_keys_equal_their_copies_and_key_biases_are_invisible():
    grouped = ordinary(0, heads=4, kv_heads=2)
    copies = [np.repeat(array, 2, axis=0) for array in grouped[1:3]]
    biases = np.repeat(grouped.b_K, 2, axis=0) + 5, np.repeat(grouped.b_V, 2, axis=0)
    spread = Projections(grouped.W_Q, *copies, grouped.W_O, grouped.b_Q, *biases, grouped.b_O)
    assert al.AttentionLayer.from_qkvo(*grouped) == al.AttentionLayer.from_qkvo(*spread)


def test_biases_that_another_normaliser_would_see_are_refused_by_name():
    slots = al.Slots(normaliser=Halved())
    full = ordinary(0)
    with pytest.raises(ValueError, match="b_K and b_V cannot be absorbed with the normaliser Halved"):
        al.AttentionLayer.from_qkvo(*full, slots=slots)
    bare = full._replace(b_K=None, b_V=None)
    assert al.AttentionLayer.from_qkvo(*bare, slots=slots).slots == slots


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_Q": np.zeros((6, 3))}, r"W_Q has shape \(6, 3\), wanted \(heads, d, head_dim\)"),
        ({"W_K": np.zeros((2, 6, 4))}, r"W_K has shape \(2, 6, 4\), wanted \(kv_heads, 6, 3\)"),
        ({"W_V": np.zeros((4, 6, 3))}, r"W_V has shape \(4, 6, 3\), wanted \(2, 6, value_dim\)"),
        ({"W_O": np.zeros((2, 3, 6))}, r"W_O has shape \(2, 3, 6\), wanted \(4, 3, d_out\)"),
        ({"b_K": np.zeros((4, 3))}, r"b_K has shape \(4, 3\), wanted \(2, 3\)"),
        ({"W_K": np.zeros((3, 6, 3)), "W_V": np.zeros((3, 6, 3))}, "4 query heads cannot share 3 key and value heads"),
    ],
)
def test_ordinary_weights_of_wrong_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        al.AttentionLayer.from_qkvo(*ordinary(0)._replace(**change))


@given(planted.SEEDS, planted.SHAPES, planted.MASKS)
def test_save_then_load_is_the_same_bit_by_bit(tmp_path_factory, seed, shape, mask):
    layer = planted.layer(seed, shape, mask)
    path = tmp_path_factory.mktemp("saved") / "layer.safetensors"
    layer.save(path)
    again = al.AttentionLayer.load(path)
    assert again.slots == layer.slots
    for name in ("qk", "ov", "query_bias", "offset"):
        np.testing.assert_array_equal(getattr(again, name), getattr(layer, name))


def test_a_slot_of_ones_own_is_not_saved(tmp_path):
    layer = al.AttentionLayer(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), slots=al.Slots(normaliser=Halved()))
    with pytest.raises(ValueError, match="the normaliser 'Halved' cannot be saved"):
        layer.save(tmp_path / "layer.safetensors")


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "layer.safetensors"
    planted.layer(0).save(path)
    whole = path.read_bytes()
    for damaged in (whole[:-8], whole[:20], b"", b"no tensors at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no readable safetensors file .* write it again"):
            al.AttentionLayer.load(path)
    with pytest.raises(ValueError, match="no readable safetensors file"):
        al.AttentionLayer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        al.AttentionLayer.load(tmp_path / "missing")


def test_files_that_hold_something_else_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"encoder.weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"not written by AttentionLayer.save; it holds \['encoder.weight'\]"):
        al.AttentionLayer.load(path)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ('{"gate": null}', r"unknown slots \['gate'\]"),
        ('{"mask": {"name": "Sink", "fields": {"logit": 3}}}', "unknown mask 'Sink'"),
        ('{"mask": {"kind": "Sink"}}', r"names no slots that can be read: KeyError\('name'\)"),
        ("{", "names no slots that can be read: JSONDecodeError"),
    ],
)
def test_slots_of_a_newer_version_are_refused_by_name(tmp_path, slots, message):
    path = tmp_path / "layer.safetensors"
    arrays = {name: getattr(planted.layer(0), name) for name in ("qk", "ov", "query_bias", "offset")}
    safetensors.numpy.save_file(arrays, path, {"format": "attnlearn.AttentionLayer", "slots": slots})
    with pytest.raises(ValueError, match=message):
        al.AttentionLayer.load(path)
