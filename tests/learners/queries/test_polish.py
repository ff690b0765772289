"""The polish from rough starts to the accuracy that the answers allow."""

import numpy as np
import planted
import pytest

from attnlearn._progress import listening
from attnlearn.layers.attention import AttentionLayer, random_layer
from attnlearn.layers.factored import Factored
from attnlearn.layers.matching import distance
from attnlearn.layers.slots import Causal, Slots
from attnlearn.learners.queries import polish as polish_module
from attnlearn.learners.queries.design import design
from attnlearn.learners.queries.polish import PolishOptions, polish

WIDTH, HEADS, RANK, TOKENS = 16, 3, 4, 8
SEQUENCES = 48  # 6,144 answers for 700 unknowns


def a_layer(mask=None, biases=True):
    if biases:
        return planted.layer(0, (HEADS, WIDTH, WIDTH), mask, RANK)
    plain = random_layer(0, HEADS, WIDTH, head_dim=RANK)
    return AttentionLayer(plain.qk, plain.ov, slots=Slots(mask=mask))


def rough(layer, key, size):
    """Every circuit with a relative error of `size` in all directions; the polish cuts it back to the ranks."""

    def off(array):
        error = key.standard_normal(array.shape)
        return array + size * np.linalg.norm(array) / np.linalg.norm(error) * error

    return AttentionLayer(off(layer.qk), off(layer.ov), off(layer.query_bias), off(layer.offset), slots=layer.slots)


def worst(layer, truth):
    return distance(layer, truth).worst


@pytest.mark.slow
@pytest.mark.parametrize("mask", [None, Causal()])
@pytest.mark.parametrize("biases", [True, False])
def test_exact_answers_end_at_rounding(key, mask, biases):
    truth = a_layer(mask, biases)
    X = design(truth, SEQUENCES, TOKENS, key)
    result = polish(rough(truth, key, 1e-2), [(X, truth(X))], RANK)
    found = distance(result.layer, truth)
    assert max(found.qk, found.ov) < 1e-12  # 1e-16 times the condition of the problem, some hundreds
    assert np.abs(result.layer.offset - truth.offset).max() < 1e-12
    assert np.abs(result.layer.query_bias - truth.query_bias).max() < 1e-12
    assert result.rms_after < 1e-10 * result.rms_before
    assert np.linalg.matrix_rank(result.layer.ov[0], tol=1e-10) == RANK


@pytest.mark.slow
def test_answers_in_single_precision_give_a_layer_to_one_part_in_a_million(key):
    truth = a_layer()
    factors, X = Factored.of(truth), design(truth, SEQUENCES, TOKENS, key)
    single = [np.asarray(getattr(factors, name), np.float32) for name in ("queries", "keys", "values", "outputs")]
    queries, keys, values, outputs = single
    tokens = X.astype(np.float32)[:, None]
    scores = (tokens @ queries[:, :-1] + queries[:, -1:]) @ np.swapaxes(tokens @ keys, -1, -2)
    maps = np.exp(scores - scores.max(axis=-1, keepdims=True))
    maps = maps / maps.sum(axis=-1, keepdims=True)
    Y = np.sum(maps @ (tokens @ values) @ outputs, axis=1) + factors.offset.astype(np.float32)
    assert Y.dtype == np.float32
    assert worst(polish(rough(truth, key, 1e-3), [(X, Y)], RANK).layer, truth) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1e-6, 1e-4])
def test_errors_are_proportional_to_the_noise(key, noise):
    truth = a_layer()
    X = design(truth, SEQUENCES, TOKENS, key)
    Y = truth(X) + noise * key.standard_normal((SEQUENCES, TOKENS, WIDTH))
    result = polish(rough(truth, key, 1e-2), [(X, Y)], RANK)
    assert 0.1 * noise < worst(result.layer, truth) < 3 * noise
    assert 0.8 * noise < result.rms_after < noise  # a ninth of the freedom of the answers is spent on the unknowns


@pytest.mark.slow
def test_blocks_of_different_lengths_are_used_together(key):
    truth = a_layer()
    blocks = [design(truth, n, tokens, key) for n, tokens in [(48, 8), (48, 3)]]
    result = polish(rough(truth, key, 1e-2), [(X, truth(X)) for X in blocks], RANK)
    assert worst(result.layer, truth) < 1e-12


@pytest.mark.slow
def test_heads_of_lower_rank_keep_it(key):
    parts = [Factored.of(random_layer(key, 1, WIDTH, head_dim=rank)).layer() for rank in (2, 4)]
    truth = AttentionLayer(np.concatenate([p.qk for p in parts]), np.concatenate([p.ov for p in parts]))
    X = design(truth, SEQUENCES, TOKENS, key)
    Y = truth(X) + 1e-5 * key.standard_normal((SEQUENCES, TOKENS, WIDTH))
    result = polish(rough(truth, key, 1e-3), [(X, Y)], [2, 4])
    extended = np.concatenate([result.layer.qk, result.layer.query_bias[:, None]], axis=1)
    for maps in (extended, result.layer.ov):
        assert np.linalg.matrix_rank(maps[0], tol=1e-10) == 2
        assert np.linalg.matrix_rank(maps[1], tol=1e-10) == 4
    assert worst(result.layer, truth) < 3e-5


@pytest.mark.slow
def test_full_rank_circuits_need_no_ranks(key):
    truth = random_layer(key, 2, 6)
    X = design(truth, 60, 5, key)
    assert worst(polish(rough(truth, key, 1e-2), [(X, truth(X))]).layer, truth) < 1e-12


@pytest.mark.parametrize("factor", [-10.0, np.nan])
def test_a_step_that_makes_it_worse_is_not_kept(key, monkeypatch, factor):
    truth = a_layer()
    X = design(truth, SEQUENCES, TOKENS, key)
    start = rough(truth, key, 1e-2)
    step = polish_module._step

    def astray(*arguments):
        change, used = step(*arguments)
        return type(change)(*(factor * part for part in vars(change).values())), used

    monkeypatch.setattr(polish_module, "_step", astray)
    result = polish(start, [(X, truth(X))], RANK)
    assert result.steps == 1
    assert result.rms_after == result.rms_before
    residual = result.layer(X) - truth(X)
    assert np.sqrt(np.mean(residual**2)) == pytest.approx(result.rms_before, rel=1e-9)


def test_from_the_noise_floor_one_step_is_tried_and_no_more(key):
    truth = a_layer()
    X = design(truth, SEQUENCES, TOKENS, key)
    Y = truth(X) + 1e-4 * key.standard_normal((SEQUENCES, TOKENS, WIDTH))
    result = polish(truth, [(X, Y)], RANK)
    assert result.steps == 1
    assert result.rms_after < result.rms_before


def test_a_perfect_layer_is_left_alone(key):
    layer = AttentionLayer(np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), offset=np.ones(3))
    X = key.standard_normal((4, 2, 3))
    result = polish(layer, [(X, np.ones((4, 2, 3)))])
    assert (result.steps, result.rms_before, result.rms_after) == (0, 0.0, 0.0)


def test_the_number_of_steps_and_of_conjugate_gradients_is_bounded(key):
    truth = a_layer()
    X = design(truth, SEQUENCES, TOKENS, key)
    heard = []
    with listening(lambda *report: heard.append(report)):
        options = PolishOptions(max_steps=2, max_cg=10, least_gain=1.0)
        result = polish(rough(truth, key, 1e-2), [(X, truth(X))], RANK, options)
    assert (result.steps, result.cg_iterations) == (2, 20)
    assert heard == 2 * [("polish", used, 10) for used in range(1, 11)]


def test_examples_that_do_not_fit_are_refused(key):
    layer = a_layer()
    X = key.standard_normal((2, 3, WIDTH))
    with pytest.raises(ValueError, match="at least one block"):
        polish(layer, [])
    with pytest.raises(ValueError, match=r"wanted \(n, k, 16\)"):
        polish(layer, [(X, X[:1])])
