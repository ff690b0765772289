"""Atoms by hard attention are the rows $v_0^T W_i$; heads that do not switch are named."""

import black_boxes
import numpy as np
import planted
import pytest
from black_boxes import WIDTH, affine_of, box_of

import attnlearn as al
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.atoms import GRID, SAMPLES, SCOUTS, learn_atoms
from attnlearn.learners.queries.probing import Box

LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)


@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_atoms_are_the_values_of_the_probing_token(key, mask):
    layer = planted.random_black_box_layer(100, WIDTH, 3, 4, mask=mask)
    found = learn_atoms(box_of(layer), affine_of(layer), key)
    true = found.v0 @ layer.ov
    # Coefficients 0 and 1 of forty answers that are exact to rounding.
    apart = np.abs(found.atoms[:, None] - true).max(axis=-1)
    assert sorted(apart.argmin(axis=1)) == [0, 1, 2]
    assert apart.min(axis=1).max() < 1e-12 * np.abs(true).max()
    assert found.sum_residual < 1e-12
    assert found.spectrum[2] > 1e-3 * found.spectrum[0] and found.spectrum[3] < 1e-12 * found.spectrum[0]


def test_its_cost_is_the_search_the_samples_and_the_line(key):
    box = box_of(LAYER)
    found = learn_atoms(box, affine_of(LAYER), key)
    searches = 1 + np.log(found.length / (128 * 30)) / np.log(8)
    assert searches == pytest.approx(round(searches))
    assert box.calls == round(searches) * SCOUTS + 2 * SAMPLES + found.points
    assert found.points >= GRID


def test_equal_heads_are_one_and_zero_heads_none(key):
    def merge(qk, ov, query_bias):
        qk[1], query_bias[1], ov[2] = qk[0], query_bias[0], 0

    layer = black_boxes.edited(LAYER, merge)
    found = learn_atoms(box_of(layer), affine_of(layer), key)
    np.testing.assert_allclose(found.atoms, (found.v0 @ layer.ov.sum(axis=0))[None], atol=1e-12)


def test_says_so_when_attention_never_becomes_hard(key):
    box = Box(al.QueryOracle(black_boxes.weighting(LAYER, black_boxes.slowly_hardening), WIDTH))
    with pytest.raises(Stop, match="Answers still change at .* times the token length") as caught:
        learn_atoms(box, affine_of(LAYER), key)
    assert caught.value.status is Status.CANNOT_SATURATE


def uniform(qk, ov, query_bias):
    qk[1] = query_bias[1] = 0


def ignoring_the_query(qk, ov, query_bias):
    qk[1] = 0


def mirrored(qk, ov, query_bias):
    qk[1], query_bias[1] = -qk[0], -query_bias[0]


def none_switches(qk, ov, query_bias):
    qk[:] = query_bias[:] = 0


@pytest.mark.parametrize(
    "edit, evidence",
    [
        (uniform, "The rank shows 2 heads, the jumps along a line"),
        (ignoring_the_query, "miss the sum rule"),
        (mirrored, "The rank shows 2 heads, the jumps along a line"),
        (none_switches, "No head switches between tokens"),
    ],
)
def test_says_so_when_a_head_does_not_switch_by_itself(key, edit, evidence):
    layer = black_boxes.edited(LAYER, edit)
    with pytest.raises(Stop, match=evidence) as caught:
        learn_atoms(box_of(layer), affine_of(layer), key)
    assert caught.value.status is Status.HEADS_UNRESOLVED
