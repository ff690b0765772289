"""What two tokens cannot show and a repeated token can."""

import black_boxes
import numpy as np
import oracles
import planted
import pytest
from black_boxes import WIDTH, affine_of, box_of

import attnlearn as al
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.mirrors import resolve

LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)


def reflected_pair(key, d=10):
    r"""$\{(\Theta, W)\}$ and $\{(-\Theta, -W), (0, 2W)\}$."""
    qk, ov = key.standard_normal((d, d)) / 3, key.standard_normal((d, d))
    one = al.AttentionLayer(qk[None], ov[None])
    other = al.AttentionLayer(np.stack([-qk, 0 * qk]), np.stack([-ov, 2 * ov]))
    return one, other


def apart(layers, X):
    answers = [oracles.attention(layer, X) for layer in layers]
    return np.abs(answers[0] - answers[1]).max()


def test_a_reflection_cannot_be_seen_with_two_tokens(key):
    pair = reflected_pair(key)
    # Sums of some hundred terms of order one; 2.7e-15 is usual.
    assert max(apart(pair, key.standard_normal((2, 10))) for _ in range(5)) < 1e-13


def test_a_reflection_is_seen_with_three_tokens_and_with_a_repeated_one(key):
    pair = reflected_pair(key)
    x, y = key.standard_normal((2, 10))
    assert apart(pair, key.standard_normal((3, 10))) > 1e-3
    assert apart(pair, np.array([x, y, y])) > 1e-3


@pytest.mark.parametrize("copies", [1, 2, 8])
def test_repeated_tokens_show_mirror_parts_as_the_formula_says(key, copies):
    """Heads (Theta, J + Z), (-Theta, Z) and a uniform one, against the definition."""
    d = 5
    qk, query_bias = key.standard_normal((2, d, d)), key.standard_normal((2, d))
    jumps, parts, uniform = key.standard_normal((2, d, 4)), key.standard_normal((2, d, 4)), key.standard_normal((d, 4))
    layer = al.AttentionLayer(
        np.concatenate([qk, -qk, np.zeros((1, d, d))]),
        np.concatenate([jumps + parts, parts, uniform[None]]),
        np.concatenate([query_bias, -query_bias, np.zeros((1, d))]),
    )
    x, v = key.standard_normal((2, d))
    total = layer.ov.sum(axis=0)
    moved = oracles.attention(layer, np.array([x + v] + copies * [x]))[-1] - x @ total
    rest = total - jumps.sum(axis=0)
    np.testing.assert_allclose(rest, uniform + 2 * parts.sum(axis=0), atol=1e-13)

    def sigmoid(s):
        return 1 / (1 + np.exp(-s))

    expected = v @ rest / (copies + 1)
    for theta, bias, jump, part in zip(qk, query_bias, jumps, parts, strict=True):
        s = x @ theta @ v + bias @ v
        h = sigmoid(s - np.log(copies)) + sigmoid(-s - np.log(copies)) - 2 / (copies + 1)
        expected = expected + sigmoid(s - np.log(copies)) * (v @ jump) + h * (v @ part)
    np.testing.assert_allclose(moved, expected, atol=1e-12)  # rounding of some hundred terms
    if copies == 1:
        assert abs(h) < 1e-15  # one copy shows nothing of the mirror images


def as_drawn(qk, ov, query_bias):
    pass


def uniform(qk, ov, query_bias):
    qk[1] = query_bias[1] = 0


def mirrored(qk, ov, query_bias):
    qk[1], query_bias[1] = -qk[0], -query_bias[0]


def mirrored_beside_uniform(qk, ov, query_bias):
    mirrored(qk, ov, query_bias)
    qk[2] = query_bias[2] = 0


def jumps_of(layer):
    """One jump for each pair of mirror images, none for uniform heads; signs at random."""
    key, left = np.random.default_rng(0), list(range(layer.heads))
    jumps = []
    while left:
        i = left.pop(0)
        if not layer.qk[i].any():
            continue
        twin = [j for j in left if np.array_equal(layer.qk[j], -layer.qk[i])]
        left = [j for j in left if j not in twin]
        jumps.append(key.choice([-1.0, 1.0]) * (layer.ov[i] - layer.ov[twin].sum(axis=0)))
    return np.array(jumps)


@pytest.mark.parametrize(
    "edit, pairs, has_uniform",
    [(as_drawn, 0, False), (uniform, 0, True), (mirrored, 1, False), (mirrored_beside_uniform, 1, True)],
)
@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_pairs_and_uniform_heads_come_out_with_their_own_circuits(key, edit, pairs, has_uniform, mask):
    layer = black_boxes.edited(planted.random_black_box_layer(100, WIDTH, 3, 4, mask=mask), edit)
    found = resolve(box_of(layer), affine_of(layer), jumps_of(layer), 1e-15, key)
    assert (found.figures["mirrored"], found.figures["uniform"]) == (pairs, has_uniform)
    apart = np.abs(found.ov[:, None] - layer.ov).max(axis=(2, 3))
    assert sorted(apart.argmin(axis=1)) == [0, 1, 2]
    # Each token's mirror parts are solved from a few answers with h of about 0.1, then divided by an orthogonal basis.
    assert apart.min(axis=1).max() < 1e-11
    assert found.ranks == (4, 4, 4)


def test_without_jumps_all_is_one_uniform_head(key):
    found = resolve(box_of(LAYER), affine_of(LAYER), np.zeros((0, WIDTH, WIDTH)), 0.0, key)
    np.testing.assert_array_equal(found.ov, affine_of(LAYER).ov_sum[None])
    assert found.figures["uniform"]


def test_says_so_when_there_are_more_jumps_than_outputs(key):
    jumps = key.standard_normal((5, 6, 4))
    layer = planted.layer(0, (5, 6, 4))
    with pytest.raises(Stop, match="5 heads share 4 output numbers") as caught:
        resolve(box_of(layer), affine_of(layer), jumps, 1e-15, key)
    assert caught.value.status is Status.READOUT_ILL_CONDITIONED
