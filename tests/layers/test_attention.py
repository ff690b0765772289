import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import planted
import pytest
from hypothesis import given

import attnlearn as al
from attnlearn.layers import attention
from attnlearn.layers.inputs import Inputs

# Sums of a few dozen terms of order one: rounding of some 1e-15.
ROUNDING = 1e-13


@given(planted.SEEDS, planted.SHAPES, planted.MASKS)
def test_forward_and_maps_equal_the_definition_by_loops(seed, shape, mask):
    layer = planted.layer(seed, shape, mask)
    X = planted.tokens(seed, layer.width)
    outputs, maps = layer(X), layer.maps(X)
    for one, output, weights in zip(X, outputs, maps, strict=True):
        np.testing.assert_allclose(output, oracles.attention(layer, one), atol=ROUNDING, rtol=ROUNDING)
        np.testing.assert_allclose(weights, oracles.attention_maps(layer, one), atol=ROUNDING)


def test_a_batch_may_have_any_leading_shape():
    layer = planted.layer(0)
    X = planted.tokens(0, batch=6)
    assert layer(X[0]).shape == (5, 3)
    np.testing.assert_array_equal(layer(X.reshape(2, 3, 5, 4)), layer(X).reshape(2, 3, 5, 3))
    assert layer(X[:0]).shape == (0, 5, 3)
    assert layer.maps(X[:0].reshape(2, 0, 5, 4)).shape == (2, 0, 2, 5, 5)


def test_chunks_give_what_one_pass_gives(monkeypatch):
    layer = planted.layer(0)
    X = planted.tokens(0, batch=13)
    whole = layer(X), layer.maps(X)
    monkeypatch.setattr(attention, "CHUNK_SCALARS", 5 * 2 * 5 * 2 * 9)  # five sequences fit, so chunks of four
    np.testing.assert_allclose(layer(X), whole[0], atol=ROUNDING)
    np.testing.assert_allclose(layer.maps(X), whole[1], atol=ROUNDING)


def test_batch_sizes_compile_only_powers_of_two():
    layer = planted.layer(0, (1, 3, 2))
    compiled = []

    def function(part):
        compiled.append(len(part))
        return jnp.asarray(part.X)

    for batch in range(1, 40):
        X = np.zeros((batch, 2, 3))
        assert attention._in_chunks(function, Inputs(X), layer.heads).shape == X.shape
    assert set(compiled) == {1, 2, 4, 8, 16, 32, 64}


def test_causal_rows_do_not_depend_on_later_tokens():
    layer = planted.layer(0, mask=al.Causal())
    X = planted.tokens(0)
    extreme = X.copy()
    extreme[:, 3:] = 1e8
    np.testing.assert_array_equal(layer(extreme)[:, :3], layer(X)[:, :3])
    np.testing.assert_array_equal(layer.maps(X), np.tril(layer.maps(X)))


def test_saturated_attention_stays_finite():
    layer = planted.layer(0)
    maps = layer.maps(1e9 * planted.tokens(0))
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=ROUNDING)
    assert set(np.unique(maps)) == {0.0, 1.0}


@pytest.mark.parametrize("x64", [False, True])
def test_users_get_float64_whatever_their_setting(x64):
    layer = planted.layer(0)
    X = planted.tokens(0)
    with jax.enable_x64(x64):
        outputs = layer(X)
        assert isinstance(outputs, np.ndarray)
        assert outputs.dtype == layer.maps(X).dtype == np.float64
        np.testing.assert_allclose(outputs[0], oracles.attention(layer, X[0]), atol=ROUNDING)
        assert jax.config.jax_enable_x64 == x64


@pytest.mark.slow
def test_inside_a_transformation_the_layer_is_pure_jax():
    layer = planted.layer(0)
    X = planted.tokens(0)
    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(lambda X: layer(X))(X), layer(X), atol=ROUNDING)
        np.testing.assert_allclose(eqx.filter_jit(lambda f, X: f.maps(X))(layer, X), layer.maps(X), atol=ROUNDING)
        slope = jax.jvp(layer, (X,), (np.ones_like(X),))[1]
    step = 1e-6
    difference = (layer(X + step) - layer(X - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, atol=1e-8)  # central differences: step**2 and 1e-16 / step


class Tensor:
    """What a torch tensor that needs a gradient lets one do: NumPy may read it only after `detach` and `cpu`."""

    def __init__(self, values):
        self.values = values

    def detach(self):
        return self

    def cpu(self):
        return self.values

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_float32_lists_and_tensors_are_read():
    layer = planted.layer(0)
    X = planted.tokens(0).astype(np.float32)
    expected = layer(X.astype(np.float64))
    np.testing.assert_array_equal(layer(X), expected)
    np.testing.assert_array_equal(layer(X.tolist()), expected)
    np.testing.assert_array_equal(layer(jnp.asarray(X)), expected)
    np.testing.assert_array_equal(layer(Tensor(X)), expected)
    copy = al.AttentionLayer(layer.qk.tolist(), layer.ov.tolist())
    np.testing.assert_array_equal(copy.qk, layer.qk)
    assert not copy.query_bias.any()
    assert not copy.offset.any()


def test_anybodys_callable_is_a_normaliser():
    def linear(scores, visible):
        return jnp.where(visible, scores / scores.shape[-1], 0.0)

    layer = planted.layer(0)
    other = al.AttentionLayer(layer.qk, layer.ov, slots=al.Slots(normaliser=linear))
    X = planted.tokens(0)
    scores = np.einsum("btd,mde,bje->bmtj", X, layer.qk, X)
    np.testing.assert_allclose(other.maps(X), scores / 5, atol=ROUNDING)


def test_a_layer_without_heads_answers_its_offset():
    layer = al.AttentionLayer(np.zeros((0, 4, 4)), np.zeros((0, 4, 3)), offset=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(layer(planted.tokens(0)), np.tile([1.0, 2.0, 3.0], (3, 5, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk": np.zeros((2, 4, 3))}, r"qk has shape \(2, 4, 3\), wanted \(heads, d, d\)"),
        ({"ov": np.zeros((3, 4, 5))}, r"ov has shape \(3, 4, 5\), wanted \(2, 4, d_out\)"),
        ({"ov": 1.0}, r"ov has shape \(\), wanted \(2, 4, d_out\)"),
        ({"query_bias": np.zeros(4)}, r"query_bias has shape \(4,\), wanted \(2, 4\)"),
        ({"offset": np.zeros(4)}, r"offset has shape \(4,\), wanted \(5,\)"),
        ({"qk": np.full((2, 4, 4), np.nan)}, "qk holds NaN or infinite entries"),
        ({"offset": [0, 0, 0, 0, np.inf]}, "offset holds NaN or infinite entries"),
        ({"qk": "circuit"}, "qk must be an array of real numbers, got str"),
        ({"qk": 1j * np.ones((2, 4, 4))}, "qk must be an array of real numbers, got ndarray"),
        ({"qk": [[1.0], [1.0, 2.0]]}, "qk must be an array of real numbers, got list"),
    ],
)
def test_wrong_circuits_are_refused_at_the_door(change, message):
    arrays = {"qk": np.zeros((2, 4, 4)), "ov": np.zeros((2, 4, 5))} | change
    with pytest.raises(ValueError, match=message):
        al.AttentionLayer(**arrays)


@pytest.mark.parametrize("shape", [(4,), (5, 3), (0, 4), ()])
def test_tokens_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"X has shape .*, wanted \(\.\.\., k, 4\)"):
        planted.layer(0)(np.zeros(shape))


def test_tokens_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="X holds NaN or infinite entries"):
        planted.layer(0).maps(np.full((2, 4), np.nan))


@pytest.mark.parametrize("head_dim", [None, 2])
def test_random_layer_has_logits_and_values_of_the_stated_size(head_dim):
    layer = al.random_layer(0, heads=3, width=8, width_out=5, head_dim=head_dim, logit_std=2.5)
    np.testing.assert_allclose(np.linalg.norm(layer.qk, axis=(1, 2)), 2.5)
    np.testing.assert_allclose(np.linalg.norm(layer.ov, axis=(1, 2)), np.sqrt(5))
    assert np.linalg.matrix_rank(layer.qk).tolist() == [head_dim or 8] * 3
    assert not layer.query_bias.any()
    assert (layer.heads, layer.width, layer.width_out) == (3, 8, 5)


def test_random_layer_is_determined_by_its_seed():
    assert al.random_layer(3) == al.random_layer(3)
    assert not np.array_equal(al.random_layer(3).qk, al.random_layer(4).qk)


def test_random_layer_refuses_empty_sizes():
    with pytest.raises(ValueError, match="sizes must be at least 1, got heads=0"):
        al.random_layer(0, heads=0)
