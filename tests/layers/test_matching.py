import numpy as np
import planted
import pytest
from hypothesis import given, strategies

import attnlearn as al
from attnlearn.layers import random_gauge


@given(planted.SEEDS, planted.SHAPES, strategies.booleans())
def test_gauge_copies_are_at_distance_zero(seed, shape, with_constant):
    layer = planted.layer(seed, shape)
    X, direction = planted.tokens_with_constant(seed, layer.width) if with_constant else (None, None)
    other = random_gauge(layer, np.random.default_rng(seed), direction)
    scale = 1.0 if direction is None else max(1.0, direction @ direction, 1 / (direction @ direction)) ** 2
    assert al.distance(other, layer, X).worst < 1e-12 * scale


@given(planted.SEEDS, planted.SHAPES, strategies.sampled_from(["qk", "ov", "query_bias", "offset"]))
def test_a_change_of_one_part_is_seen_in_that_part_alone(seed, shape, part):
    layer = planted.layer(seed, shape)
    arrays = {name: getattr(layer, name) for name in ("qk", "ov", "query_bias", "offset")}
    changed = arrays[part].copy()
    piece = changed if part == "offset" else changed[0]  # a view
    piece += 1e-6 * np.linalg.norm(piece) / np.sqrt(piece.size)
    errors = al.distance(al.AttentionLayer(**arrays | {part: changed}), layer)
    np.testing.assert_allclose(getattr(errors, part), 1e-6, rtol=1e-6)
    assert all(getattr(errors, name) == 0 for name in arrays if name != part)


def test_the_permutation_names_the_heads_as_given():
    layer = planted.layer(0, (3, 5, 5))
    order = [2, 0, 1]
    shuffled = al.AttentionLayer(layer.qk[order], layer.ov[order], layer.query_bias[order], layer.offset)
    errors = al.distance(shuffled, layer)
    assert [order[head] for head in errors.permutation] == [0, 1, 2]
    assert [one.head for one in errors.per_head] == [0, 1, 2]
    assert errors.worst == 0


def test_errors_are_relative_to_each_head_of_the_reference():
    layer = planted.layer(0)
    size = np.array([1.0, 1e-6])[:, None, None]
    small = al.AttentionLayer(layer.qk, layer.ov * size)
    wrong = al.AttentionLayer(layer.qk, small.ov * np.array([1.0, 1.5])[:, None, None])
    errors = al.distance(wrong, small)
    np.testing.assert_allclose(errors.ov, 0.5)
    np.testing.assert_allclose([one.ov for one in errors.per_head], [0, 0.5])


def test_a_zero_of_the_reference_is_measured_by_its_neighbour():
    layer = planted.layer(0)
    bare = al.AttentionLayer(layer.qk, layer.ov)
    errors = al.distance(layer, bare)
    sizes = np.linalg.norm(layer.qk, axis=(1, 2))
    np.testing.assert_allclose(errors.query_bias, (np.linalg.norm(layer.query_bias, axis=1) / sizes).max())
    np.testing.assert_allclose(errors.offset, np.linalg.norm(layer.offset) / np.linalg.norm(layer.ov))
    uniform = al.AttentionLayer(layer.qk * np.array([1.0, 0.0])[:, None, None], layer.ov)
    near = al.AttentionLayer(uniform.qk + 1e-3 * layer.qk[::-1], layer.ov)
    np.testing.assert_allclose(al.distance(near, uniform).per_head[1].qk, 1e-3)


def test_an_empty_reference_is_measured_absolutely():
    empty = al.AttentionLayer(np.zeros((1, 4, 4)), np.zeros((1, 4, 3)))
    errors = al.distance(al.AttentionLayer(empty.qk, empty.ov, offset=[0.0, 3.0, 4.0]), empty)
    assert (errors.offset, errors.qk, errors.permutation) == (5.0, 0.0, ())


def test_different_numbers_of_heads_are_infinitely_far():
    errors = al.distance(planted.layer(0, (3, 4, 3)), planted.layer(0, (2, 4, 3)))
    assert errors.worst == np.inf
    assert errors.reason == "After merging there are 3 heads against 2 of the reference."


def test_different_slots_are_infinitely_far():
    errors = al.distance(planted.layer(0, mask=al.Causal()), planted.layer(0))
    assert errors.qk == errors.offset == np.inf
    assert "The slots differ" in errors.reason


def test_different_widths_are_refused():
    with pytest.raises(ValueError, match="widths differ: 5 -> 5 against 4 -> 3"):
        al.distance(planted.layer(0, (2, 5, 5)), planted.layer(0, (2, 4, 3)))
