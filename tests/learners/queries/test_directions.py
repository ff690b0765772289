"""The directions in which heads turn towards the probing token."""

import numpy as np
import planted
import pytest
from black_boxes import WIDTH, affine_of, atoms_of, box_of, directions_of
from scipy.special import expit

from attnlearn._status import Status, Stop
from attnlearn.learners.queries.directions import PILOTS, learn_directions, moderate_length

LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)


@pytest.mark.parametrize("options", [{}, {"amplitude": 1e3}, {"scale": 0.5}])
def test_directions_and_biases_are_those_of_the_layer(key, options):
    box, v0 = box_of(LAYER, **options), key.standard_normal(WIDTH)
    found = learn_directions(box, affine_of(LAYER), atoms_of(LAYER, v0), key, WIDTH)
    true = directions_of(LAYER, v0)
    # 1e-16 times cond(A) for the weights, over logits of order one.
    allowed = 1e-14 * np.linalg.cond(v0 @ LAYER.ov) * np.abs(true.theta).max()
    np.testing.assert_allclose(found.theta, true.theta, atol=allowed)
    np.testing.assert_allclose(found.bias, true.bias, atol=allowed)
    assert box.calls == found.pilots + WIDTH + 1


def test_fewer_probes_give_the_projection_on_their_span(key):
    v0, probes = key.standard_normal(WIDTH), 6
    found = learn_directions(box_of(LAYER), affine_of(LAYER), atoms_of(LAYER, v0), key, probes)
    assert np.linalg.matrix_rank(found.theta, tol=1e-10) == LAYER.heads
    # A projection is orthogonal to what it leaves out.
    left = directions_of(LAYER, v0).theta - found.theta
    np.testing.assert_allclose(np.einsum("md,md->m", left, found.theta), 0, atol=1e-10)
    assert found.pilots % min(PILOTS, probes + 1) == 0


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e5])
def test_the_length_brings_the_largest_logit_near_its_aim(size):
    pilots = np.linspace(-1, 1, 5)[:, None]
    length = moderate_length(lambda x, t: expit(size * t * x), pilots, 1.0, 2.0)
    assert 0.25 * 2 < size * length < 2 * 2


def test_says_so_when_no_length_keeps_the_weights_inside():
    with pytest.raises(Stop, match="No length .* keeps the attention weights between 0 and 1") as caught:
        moderate_length(lambda x, t: np.full(len(x), 1.5), np.zeros((3, 2)), 1.0, 2.0)
    assert caught.value.status is Status.READOUT_ILL_CONDITIONED
