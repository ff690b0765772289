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


OTHERS = [al.Sigmoid(), al.ReLU(), al.Linear(), al.Erf()]


@pytest.mark.parametrize("normaliser", OTHERS)
@pytest.mark.parametrize("with_constant", [False, True])
def test_every_normaliser_has_gauge_copies_at_zero_and_others_not(normaliser, with_constant, key):
    bare = planted.layer(3)
    layer = al.AttentionLayer(bare.qk, bare.ov, bare.query_bias, bare.offset, al.Slots(normaliser))
    X, direction = planted.tokens_with_constant(3) if with_constant else (None, None)
    copy = random_gauge(layer, key, direction)
    assert al.distance(copy, layer, X).worst < 1e-12
    changed = copy.qk.copy()
    changed[np.argmax(np.linalg.norm(copy.ov, axis=(1, 2)))] += 1e-6 * key.standard_normal((4, 4))
    moved = al.AttentionLayer(changed, copy.ov, copy.query_bias, copy.offset, copy.slots)
    assert 1e-8 < al.distance(moved, layer, X).worst < 1e-4


def test_linear_layers_are_compared_by_the_sum_over_heads():
    bare = planted.layer(0, (2, 4, 1))
    layer = al.AttentionLayer(bare.qk, bare.ov, bare.query_bias, bare.offset, al.Slots(al.Linear()))
    # With one output, also what is antisymmetric in two values may move: no mix of heads makes this copy.
    row = np.array([1.0, 2.0, 3.0, 4.0])
    moved = np.array([np.outer(row, layer.ov[1, :, 0]), -np.outer(row, layer.ov[0, :, 0])])
    copy = al.AttentionLayer(layer.qk + moved, layer.ov, layer.query_bias, layer.offset, layer.slots)
    X = planted.tokens(0)
    np.testing.assert_allclose(copy(X), layer(X), atol=1e-12)
    errors = al.distance(copy, layer)
    assert errors.worst < 1e-14
    assert errors.per_head == errors.permutation == ()
    assert errors.reason.startswith("Heads of a linear layer are known up to any mix only")
    double = al.AttentionLayer(layer.qk, 1.5 * layer.ov, layer.query_bias, layer.offset, layer.slots)
    np.testing.assert_allclose(_parts(al.distance(double, layer)), [0.5, 0.5, 0.5, 0])


def _parts(errors):
    return errors.qk, errors.ov, errors.query_bias, errors.offset


def test_the_sign_of_an_erf_head_is_free_in_every_pair():
    bare = planted.layer(0)
    layer = al.AttentionLayer(bare.qk, bare.ov, bare.query_bias, bare.offset, al.Slots(al.Erf()))
    mark = np.cos(np.arange(1, 21)).reshape(5, 4)
    qk, bias = layer.qk.copy(), layer.query_bias.copy()
    for head in range(2):  # marks within 1e-9 of 0: the sign of the canonical form is chance
        excess = (np.vdot(qk[head], mark[:4]) + bias[head] @ mark[4] - 1e-9) / np.vdot(mark, mark)
        qk[head] -= excess * mark[:4]
        bias[head] -= excess * mark[4]
    near = al.AttentionLayer(qk, layer.ov, bias, layer.offset, layer.slots)
    other = al.AttentionLayer(qk - 1e-8 * np.sign(mark[:4]), layer.ov, bias, layer.offset, layer.slots)
    assert al.distance(other, near).worst < 1e-7
