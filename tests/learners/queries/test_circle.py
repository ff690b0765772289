"""Every head flips once on a half circle, whatever its circuits."""

import black_boxes
import numpy as np
import planted
import pytest
from black_boxes import WIDTH, affine_of, box_of

import attnlearn as al
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.circle import LENGTH, learn_jumps
from attnlearn.learners.queries.probing import Box

LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)
# Answers are divided by steps of a tenth of the distance between flips, at worst a thousand times the rounding.
ACCURACY = 1e-9


def as_drawn(qk, ov, query_bias):
    pass


def ignoring_the_query(qk, ov, query_bias):
    qk[1:] = 0


def close(qk, ov, query_bias):
    qk[1] = (1 + 1e-3) * qk[0] + 1e-3 * qk[2]
    query_bias[1] = query_bias[0]


@pytest.mark.parametrize("edit", [as_drawn, ignoring_the_query, close])
@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_jumps_are_the_ov_circuits_up_to_sign(key, edit, mask):
    layer = black_boxes.edited(planted.random_black_box_layer(100, WIDTH, 3, 4, mask=mask), edit)
    jumps, precision = learn_jumps(box_of(layer), affine_of(layer), key)
    assert len(jumps) == 3 and precision < ACCURACY
    apart = np.array([[min(np.abs(j - w).max(), np.abs(j + w).max()) for w in layer.ov] for j in jumps])
    assert sorted(apart.argmin(axis=1)) == [0, 1, 2]
    assert apart.min(axis=1).max() < ACCURACY


def test_mirror_images_make_one_jump_of_their_difference(key):
    def mirrored(qk, ov, query_bias):
        qk[1], query_bias[1] = -qk[0], -query_bias[0]

    layer = black_boxes.edited(LAYER, mirrored)
    jumps, _ = learn_jumps(box_of(layer), affine_of(layer), key)
    assert len(jumps) == 2
    difference = layer.ov[0] - layer.ov[1]
    assert min(np.abs(j - s * difference).max() for j in jumps for s in (1, -1)) < ACCURACY


def test_uniform_heads_make_none(key):
    def uniform(qk, ov, query_bias):
        qk[:] = query_bias[:] = 0

    layer = black_boxes.edited(LAYER, uniform)
    assert learn_jumps(box_of(layer), affine_of(layer), key)[0].shape == (0, WIDTH, WIDTH)


def test_says_so_when_an_answer_breaks_everywhere(key):
    """Weights that oscillate with the angle of a token, as no softmax of bilinear scores does."""

    def rippled(scores):
        return black_boxes.softmax(LENGTH * np.sin(40 * np.arctan(scores / LENGTH)))

    box = Box(al.QueryOracle(black_boxes.weighting(LAYER, rippled), WIDTH))
    with pytest.raises(Stop, match="breaks in .* places: more than heads explain") as caught:
        learn_jumps(box, affine_of(LAYER), key)
    assert caught.value.status is Status.HEADS_UNRESOLVED
