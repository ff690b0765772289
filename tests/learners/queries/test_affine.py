"""The first stage finds offset, sum of the OV circuits and mask, and turns away what is no attention layer."""

import black_boxes
import numpy as np
import planted
import pytest
from black_boxes import WIDTH, answers, box_of

import attnlearn as al
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.affine import REPEATS, learn_affine
from attnlearn.learners.queries.probing import Box

LAYER = planted.random_black_box_layer(100, WIDTH, 3, 4)
QUESTIONS = WIDTH + 1 + 8


def stopped(fn, key, **oracle):
    with pytest.raises(Stop) as caught:
        learn_affine(Box(al.QueryOracle(fn, WIDTH, **oracle)), key)
    return caught.value


@pytest.mark.parametrize("mask", [None, al.Causal()])
@pytest.mark.parametrize("options", [{}, {"scale": 0.1}, {"amplitude": 1e3}])
def test_offset_sum_and_mask_are_found(key, mask, options):
    layer = planted.random_black_box_layer(100, WIDTH, 3, 4, width_out=10, mask=mask)
    box = box_of(layer, **options)
    affine = learn_affine(box, key)
    # 1e-16 times d for the solve; with scale 0.1 answers of order c are divided by tokens of 0.4.
    np.testing.assert_allclose(affine.offset, layer.offset, atol=1e-14)
    np.testing.assert_allclose(affine.ov_sum, layer.ov.sum(axis=0), atol=1e-13)
    assert affine.causal == (mask is not None)
    assert box.calls == QUESTIONS


def test_noise_is_averaged_out_of_the_offset(key):
    noise = 1e-3
    rng = np.random.default_rng(1)
    true = answers(LAYER)
    oracle = al.QueryOracle(lambda X: true(X) + noise * rng.standard_normal(X.shape), WIDTH, noise=noise)
    affine = learn_affine(Box(oracle), key)
    # 16 entries of standard deviation noise / sqrt(256): six of them are passed once in 1e7 runs.
    assert np.abs(affine.offset - LAYER.offset).max() < 6 * noise / np.sqrt(REPEATS)
    assert oracle.ledger.calls == QUESTIONS - 1 + REPEATS


def test_heads_that_cancel_are_no_constant_box(key):
    def cancel(qk, ov, query_bias):
        ov[1], ov[2] = -ov[0], 0

    layer = black_boxes.edited(LAYER, cancel)
    affine = learn_affine(box_of(layer), key)
    assert np.abs(affine.ov_sum).max() < 1e-13


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_says_so_when_the_box_is_constant(key, value):
    stop = stopped(lambda X: np.full_like(X, value), key)
    assert stop.status is Status.OV_DEGENERATE
    assert "stayed within" in stop.evidence and "of a constant" in stop.evidence


positions = np.random.default_rng(4).standard_normal((3, WIDTH))
linear = np.random.default_rng(6).standard_normal((WIDTH, WIDTH))
STRANGERS = {
    "network": (black_boxes.network(), "not affine in the token.*feed-forward"),
    "attention and network": (lambda X: answers(LAYER)(X) + black_boxes.network()(X), "not affine in the token"),
    "layer norm before": (lambda X: answers(LAYER)(black_boxes.layer_norm(X)), "normalisation"),
    "layer norm after": (lambda X: black_boxes.layer_norm(X + answers(LAYER)(X)), "normalisation"),
    "sigmoid attention": (black_boxes.weighting(LAYER, lambda s: 1 / (1 + np.exp(-s))), "not affine in the token"),
    "sum pooling": (black_boxes.weighting(LAYER, np.ones_like), "weights of a row do not sum to one"),
    "positions": (lambda X: answers(LAYER)(X + positions[: X.shape[1]]), "trade places.*positions matter"),
    "linear": (lambda X: X @ linear, "maps each token by itself"),
    "capped scores": (
        black_boxes.weighting(LAYER, lambda s: black_boxes.softmax(2 * np.tanh(s / 2))),
        "not bilinear in the tokens",
    ),
    "residual": (lambda X: X + answers(LAYER)(X), "extra identity.*residual connection.*Subtract the tokens"),
    "part of a residual": (lambda X: X @ linear + answers(LAYER)(X), "does not come from attention"),
    "rounding": (lambda X: answers(LAYER)(X).astype(np.float32), "declare dtype='float32'"),
}


@pytest.mark.parametrize("fn, evidence", STRANGERS.values(), ids=STRANGERS)
def test_says_why_a_box_is_no_attention_layer(key, fn, evidence):
    stop = stopped(fn, key)
    assert stop.status is Status.NOT_ATTENTION
    with pytest.raises(Stop, match=evidence):
        raise stop


def test_a_network_is_not_taken_for_rounding(key):
    assert "dtype" not in stopped(black_boxes.network(), key).evidence


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_a_box_that_contradicts_itself_is_named_before_it_is_judged(key, size):
    rng = np.random.default_rng(1)
    stop = stopped(lambda X: answers(LAYER)(X) + size * rng.standard_normal(X.shape), key)
    assert stop.status is Status.ORACLE_INCONSISTENT
    assert "The same 3 tokens" in stop.evidence
