import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from hypothesis import given, strategies

import attnlearn as al
from attnlearn.layers import attention, constant_direction, gauge_dimension, random_gauge
from attnlearn.layers.inputs import Inputs

ROUNDING = 1e-12  # gauge steps of order one, divided by |a|^2 of a Gaussian direction


def same(a, b, atol=ROUNDING):
    for name in ("qk", "ov", "query_bias", "offset"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol, rtol=0)


@pytest.mark.slow
@given(planted.SEEDS, planted.SHAPES, planted.MASKS, strategies.booleans())
def test_canonical_is_one_for_all_gauges_keeps_the_function_and_is_idempotent(seed, shape, mask, with_constant):
    layer = planted.layer(seed, shape, mask)
    key = np.random.default_rng(seed)
    if with_constant:
        X, direction = planted.tokens_with_constant(seed, layer.width)
    else:
        X, direction = planted.tokens(seed, layer.width), None
    given_tokens = X if with_constant else None
    other = random_gauge(layer, key, direction)
    form = al.canonical(layer, given_tokens)
    scale = 1.0 if direction is None else max(1.0, direction @ direction, 1 / (direction @ direction)) ** 2
    same(al.canonical(other, given_tokens), form, ROUNDING * scale)
    same(al.canonical(form, given_tokens), form, ROUNDING * scale)
    assert form.heads == layer.heads
    np.testing.assert_allclose(other(X), layer(X), atol=1e-11 * scale)
    np.testing.assert_allclose(form(X), layer(X), atol=1e-11 * scale)


def test_equal_heads_merge_and_zero_heads_vanish():
    layer = planted.layer(0)
    doubled = al.AttentionLayer(
        np.concatenate([layer.qk, layer.qk * (1 + 1e-10), layer.qk[:1] + 1]),
        np.concatenate([0.25 * layer.ov, 0.75 * layer.ov, np.zeros((1, 4, 3))]),
        np.concatenate([layer.query_bias, layer.query_bias, layer.query_bias[:1]]),
        layer.offset,
    )
    same(al.canonical(doubled), al.canonical(layer), 1e-9)


def test_heads_that_differ_only_in_the_query_bias_stay_apart():
    layer = planted.layer(0, (1, 4, 3))
    pair = al.AttentionLayer(
        np.repeat(layer.qk, 2, axis=0),
        np.repeat(layer.ov, 2, axis=0),
        np.concatenate([layer.query_bias, [[0, 0, 0, 1]]]),
    )
    assert al.canonical(pair).heads == 2


def test_heads_that_cancel_leave_an_empty_layer():
    layer = planted.layer(0, (1, 4, 3))
    form = al.canonical(al.AttentionLayer(np.repeat(layer.qk, 2, 0), np.concatenate([layer.ov, -layer.ov])))
    assert form.heads == 0
    assert form(planted.tokens(0)).shape == (3, 5, 3)


def test_on_constant_tokens_a_head_that_writes_a_constant_vanishes():
    X, direction = planted.tokens_with_constant(0)
    layer = planted.layer(0)
    ov = layer.ov.copy()
    ov[1] = np.outer(direction, [1.0, 2.0, 3.0])
    form = al.canonical(al.AttentionLayer(layer.qk, ov), X)
    assert form.heads == 1
    np.testing.assert_allclose(form(X), al.AttentionLayer(layer.qk, ov)(X), atol=ROUNDING)


def test_on_constant_tokens_uniform_heads_merge():
    X, direction = planted.tokens_with_constant(0)
    layer = planted.layer(0)
    qk = np.array([np.outer(row, direction) for row in ([1.0, 2, 3, 4], [4.0, 0, 1, 1])])
    form = al.canonical(al.AttentionLayer(qk, layer.ov), X)
    assert form.heads == 1
    assert not form.qk.any()


def test_heads_of_equal_size_have_one_order(key):
    layer = planted.layer(0, (3, 5, 5))
    equal = al.AttentionLayer(layer.qk, np.linalg.qr(layer.ov)[0])
    shuffled = al.AttentionLayer(equal.qk[[2, 0, 1]], equal.ov[[2, 0, 1]])
    assert al.canonical(shuffled) == al.canonical(equal)


def test_a_constant_direction_is_found_only_where_there_is_one():
    X, direction = planted.tokens_with_constant(0, batch=4)
    np.testing.assert_allclose(constant_direction(X, 4), direction, atol=1e-12)
    np.testing.assert_allclose(constant_direction(np.eye(4), 4), np.ones(4))
    assert constant_direction(planted.tokens(0), 4) is None
    assert constant_direction(None, 4) is None
    with pytest.raises(ValueError, match=r"X has shape \(3, 5, 4\), wanted \(\.\.\., 5\)"):
        constant_direction(planted.tokens(0), 5)


def test_tokens_that_do_not_span_the_space_are_refused():
    with pytest.raises(ValueError, match="the 3 tokens of X span 3 of 4 dimensions; all are wanted: give more tokens"):
        al.canonical(planted.layer(0), planted.tokens(0, k=3, batch=1))


def test_other_normalisers_are_refused():
    slots = al.Slots(normaliser=lambda scores, visible: jnp.where(visible, scores, 0.0))
    layer = al.AttentionLayer(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), slots=slots)
    for function in (al.canonical, gauge_dimension, lambda layer: random_gauge(layer, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="the symmetries of the normaliser function are not known"):
            function(layer)


@eqx.filter_jit
def jacobian(parameters, slots, X):
    arguments = ("qk", "ov", "query_bias", "offset")
    return jax.jacfwd(lambda p: attention.answers(*(p[name] for name in arguments), slots, Inputs(X)))(parameters)


def tokens_of_kind(kind, d):
    if kind == "one-hot":
        return np.eye(d)[np.random.default_rng(1).integers(d, size=(60, 4))]
    return planted.tokens_with_constant(1, d, 4, 60)[0] if kind == "constant" else planted.tokens(1, d, 4, 60)


@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 4, 2)])
@pytest.mark.parametrize("kind", ["generic", "constant", "one-hot"])
@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_nullity_of_the_jacobian_is_the_gauge_dimension(shape, kind, mask):
    layer = planted.layer(1, shape, mask)
    m, d, d_out = shape
    X = tokens_of_kind(kind, d)
    with jax.enable_x64(True):
        parts = jacobian({name: getattr(layer, name) for name in ("qk", "ov", "query_bias", "offset")}, layer.slots, X)
    columns = {name: np.asarray(part).reshape(X.shape[0] * X.shape[1] * d_out, -1) for name, part in parts.items()}
    for query_bias, offset in itertools.product([False, True], repeat=2):
        free = ["qk", "ov"] + ["query_bias"] * query_bias + ["offset"] * offset
        singular = np.linalg.svd(np.concatenate([columns[name] for name in free], axis=1), compute_uv=False)
        nullity = (singular < 1e-11 * singular[0]).sum()
        assert nullity == (singular < 1e-5 * singular[0]).sum()  # a clear gap: six decades without a singular value
        assert nullity == gauge_dimension(layer, X, query_bias=query_bias, offset=offset)
        if kind != "generic":
            assert nullity == m * d + (m - 1) * d_out + query_bias * m * d + offset * d_out


OTHERS = [al.Sigmoid(), al.ReLU(), al.Linear(), al.Erf()]


def with_normaliser(layer, normaliser):
    return al.AttentionLayer(layer.qk, layer.ov, layer.query_bias, layer.offset, al.Slots(normaliser, layer.slots.mask))


@pytest.mark.slow
@pytest.mark.parametrize("normaliser", OTHERS)
@pytest.mark.parametrize("with_constant", [False, True])
def test_every_normaliser_has_one_form_for_all_gauges(normaliser, with_constant, key):
    layer = with_normaliser(planted.layer(3), normaliser)
    X, direction = planted.tokens_with_constant(3) if with_constant else (planted.tokens(3), None)
    given_tokens = X if with_constant else None
    other, form = random_gauge(layer, key, direction), al.canonical(layer, given_tokens)
    np.testing.assert_allclose(other(X), layer(X), atol=1e-12)  # mixes of condition below 10, directions of order one
    np.testing.assert_allclose(form(X), layer(X), atol=1e-12)
    same(al.canonical(other, given_tokens), form)
    same(al.canonical(form, given_tokens), form)
    assert other.heads == 4 and form.heads == 2
    assert form.query_bias.any() != with_constant


def test_the_rules_of_the_forms():
    layer = planted.layer(0)
    relu = al.canonical(with_normaliser(layer, al.ReLU()))
    sizes = np.square(relu.qk).sum(axis=(1, 2)) + np.square(relu.query_bias).sum(axis=1)
    np.testing.assert_allclose(sizes, np.square(relu.ov).sum(axis=(1, 2)))
    linear = al.canonical(with_normaliser(layer, al.Linear()))
    assert abs(np.vdot(linear.ov[0], linear.ov[1])) < ROUNDING
    assert abs(np.vdot(linear.qk[0], linear.qk[1]) + linear.query_bias[0] @ linear.query_bias[1]) < ROUNDING
    erf = al.canonical(with_normaliser(layer, al.Erf()))
    entries = np.concatenate([erf.qk, erf.query_bias[:, None]], axis=1).reshape(2, -1)
    assert (entries @ np.cos(np.arange(1, 21)) > 0).all()


@pytest.mark.parametrize("normaliser", OTHERS)
def test_heads_without_weights_vanish_where_zero_scores_have_none(normaliser):
    bare = planted.layer(0)
    layer = al.AttentionLayer(bare.qk * np.array([1.0, 0.0])[:, None, None], bare.ov, slots=al.Slots(normaliser))
    assert al.canonical(layer).heads == (2 if isinstance(normaliser, al.Sigmoid) else 1)


def test_opposite_and_parallel_heads_merge_where_the_normaliser_hides_it():
    one = planted.layer(0, (1, 4, 3))
    factors = np.array([1.0, -2.0, 3.0])[:, None, None]
    for normaliser, heads in ((al.Sigmoid(), 3), (al.ReLU(), 2), (al.Linear(), 1), (al.Erf(), 3)):
        layer = al.AttentionLayer(one.qk * factors, np.repeat(one.ov, 3, axis=0), slots=al.Slots(normaliser))
        assert al.canonical(layer).heads == heads
    pair = al.AttentionLayer(one.qk * factors[:2] / abs(factors[:2]), np.repeat(one.ov, 2, 0), slots=al.Slots(al.Erf()))
    assert al.canonical(pair).heads == 0


def test_token_types_are_refused_where_they_hide_more():
    layer = with_normaliser(planted.layer(0), al.Sigmoid())
    for function in (al.canonical, gauge_dimension):
        with pytest.raises(ValueError, match="only 4 distinct tokens; of such a layer with Sigmoid they show only one"):
            function(layer, np.eye(4))
    assert al.canonical(planted.layer(0), np.eye(4)).heads == 2


@pytest.mark.slow
@pytest.mark.parametrize("normaliser", OTHERS)
@pytest.mark.parametrize("kind", ["generic", "constant"])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 1)])
def test_nullity_is_the_gauge_dimension_for_every_normaliser(normaliser, kind, shape):
    layer, X = with_normaliser(planted.layer(1, shape), normaliser), tokens_of_kind(kind, 4)
    with jax.enable_x64(True):
        parts = jacobian({name: getattr(layer, name) for name in ("qk", "ov", "query_bias", "offset")}, layer.slots, X)
    matrix = np.concatenate([np.asarray(part).reshape(-1, part[0, 0, 0].size) for part in parts.values()], axis=1)
    singular = np.linalg.svd(matrix, compute_uv=False)
    nullity = (singular < 1e-11 * singular[0]).sum()
    assert nullity == (singular < 1e-5 * singular[0]).sum()
    assert nullity == gauge_dimension(layer, X)
