"""Atoms from derivatives, for boxes that bound their tokens."""

import black_boxes
import numpy as np
import planted
import pytest
from black_boxes import affine_of, box_of

from attnlearn._status import Status, Stop
from attnlearn.learners.queries.soft_atoms import learn_soft_atoms

HEADS = 4
LAYER = planted.random_black_box_layer(101, 32, HEADS, 8)


def error(step):
    """Worst relative error of an atom, heads matched by the nearest."""
    found = learn_soft_atoms(box_of(LAYER), affine_of(LAYER), np.random.default_rng(0), step)
    true = found.v0 @ LAYER.ov
    apart = np.linalg.norm(found.atoms[:, None] - true, axis=-1) / np.linalg.norm(true, axis=-1)
    assert sorted(apart.argmin(axis=1)) == list(range(HEADS))
    return apart.min(axis=1).max()


def test_errors_fall_with_the_square_of_the_step():
    """The central difference of a smooth function errs by the step squared: a tenth of the step, a hundredth."""
    assert 100 / 1.5 < error(0.1) / error(0.01) < 100 * 1.5


def test_its_cost_is_a_formula(key):
    box = box_of(LAYER)
    learn_soft_atoms(box, affine_of(LAYER), key)
    assert box.calls == 24 + 32 * HEADS + 13 == 165


def test_another_line_is_tried_where_a_head_hardly_changes_along_the_first(key):
    layer = planted.random_black_box_layer(100, 32, HEADS, 8)
    box = box_of(layer)
    found = learn_soft_atoms(box, affine_of(layer), key)
    assert found.points == 2 * 13 and box.calls == 24 + 32 * HEADS + 2 * 13
    assert found.sum_residual < 1e-6  # the step of 1e-4 squared, times the conditioning of the atoms


def test_its_questions_stay_short(key):
    asked = []

    def remembering(X):
        asked.append(np.abs(X).max())
        return black_boxes.answers(LAYER)(X)

    box = box_of(LAYER)
    box.oracle._fn = remembering
    learn_soft_atoms(box, affine_of(LAYER), key)
    # Along the line x goes 3 times 2 standard deviations out; five more cover the largest of all Gaussians.
    assert max(asked) < 3 * 2 * 5


def test_says_so_when_the_atoms_miss_the_sum_rule(key):
    def uniform(qk, ov, query_bias):
        qk[1] = query_bias[1] = 0

    layer = black_boxes.edited(LAYER, uniform)
    with pytest.raises(Stop, match="soft atoms miss the sum rule") as caught:
        learn_soft_atoms(box_of(layer), affine_of(layer), key)
    assert caught.value.status is Status.HEADS_UNRESOLVED
