"""The two-token identity against its definition."""

import numpy as np
import oracles
import planted
import pytest
from black_boxes import affine_of, box_of

import attnlearn as al
from attnlearn.learners.queries.probing import logit, moved, orthogonal_rows

ROUNDING = 1e-12  # 1e-16 times sums of some hundred terms of order one


@pytest.mark.parametrize("mask", [None, al.Causal()])
@pytest.mark.parametrize("copies", [1, 2, 8])
def test_what_a_token_moves_is_what_the_definition_says(key, mask, copies):
    layer = planted.layer(1, (3, 5, 4), mask)
    x, v = key.standard_normal((2, 6, 5))
    got = moved(box_of(layer), affine_of(layer), x, v, copies)
    for one, step, answer in zip(x, v, got, strict=True):
        last = oracles.attention(layer, np.array([one + step] + copies * [one]))[-1]
        np.testing.assert_allclose(answer, last - affine_of(layer).of(one[None])[0], atol=ROUNDING)
        logits = [
            (np.append(one, 1) @ np.vstack([q, b]) @ step) for q, b in zip(layer.qk, layer.query_bias, strict=True)
        ]
        weights = [1 / (1 + copies * np.exp(-s)) for s in logits]
        formula = sum(p * (step @ w) for p, w in zip(weights, layer.ov, strict=True))
        np.testing.assert_allclose(answer, formula, atol=ROUNDING)


@pytest.mark.parametrize("mask", [None, al.Causal()])
def test_a_token_and_its_mirror_image_together_move_their_whole_value(key, mask):
    layer = planted.layer(2, (3, 5, 4), mask)
    x, v = key.standard_normal((2, 6, 5))
    both = [moved(box_of(layer), affine_of(layer), x, sign * v) for sign in (1, -1)]
    np.testing.assert_allclose(both[0] - both[1], v @ layer.ov.sum(axis=0), atol=ROUNDING)


def test_rows_are_orthogonal_with_entries_of_unit_variance(key):
    rows = orthogonal_rows(key, 4, 9)
    np.testing.assert_allclose(rows @ rows.T, 9 * np.eye(4), atol=ROUNDING)


def test_the_logit_undoes_the_sigmoid_and_is_finite_at_both_ends():
    s = np.linspace(-20, 20, 9)
    # p near 1 is known to 1e-16, and the logit has the slope 1 / (p (1 - p)) there: e**20 = 5e8.
    np.testing.assert_allclose(logit(1 / (1 + np.exp(-s))), s, atol=1e-7)
    assert np.isfinite(logit(np.array([-1.0, 0.0, 1.0, 2.0]))).all()
