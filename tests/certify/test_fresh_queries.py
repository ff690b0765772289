"""The certificate passes the true layer and refuses every other one."""

import math

import numpy as np
import pytest
import scipy.stats

from attnlearn._status import Status, Stop
from attnlearn.certify import FreshQueryOptions, Kind, fresh_queries
from attnlearn.data.queries import QueryOracle
from attnlearn.layers import AttentionLayer, Causal, Slots, random_layer

SMALL = FreshQueryOptions(mixture=(Kind(4, 3, 1.0), Kind(2, 1, 1.0)))


def hidden_layer(seed=0, slots=Slots()):
    layer, key = random_layer(seed, heads=3, width=8, head_dim=2), np.random.default_rng(seed)
    return AttentionLayer(layer.qk, layer.ov, key.standard_normal((3, 8)), key.standard_normal(8), slots)


def changed(layer, **arrays):
    known = {name: getattr(layer, name).copy() for name in ("qk", "ov", "query_bias", "offset")}
    return AttentionLayer(**(known | arrays), slots=layer.slots)


def statement(certificate, name):
    return next(one for one in certificate.statements if one.name.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize("slots", [Slots(), Slots(mask=Causal())])
def test_the_true_layer_passes(key, slots):
    layer = hidden_layer(slots=slots)
    oracle = QueryOracle(layer, 8)
    certificate = fresh_queries(layer, oracle, key)
    assert certificate.passed and certificate.max_error == 0
    assert all(one.holds for one in certificate.statements)
    assert oracle.ledger.by_purpose == {"certificate": 64} and FreshQueryOptions().questions == 64
    assert oracle.ledger.by_length == {1: 4, 3: 12, 12: 36, 32: 12}


def test_one_head_with_a_thousandth_more_of_its_scores_is_refused(key):
    layer = hidden_layer()
    qk = layer.qk.copy()
    qk[1] *= 1 + 1e-3
    certificate = fresh_queries(changed(layer, qk=qk), QueryOracle(layer, 8), key)
    assert not certificate.passed and 1e-6 < certificate.max_error < 1e-1
    assert not statement(certificate, "agreement: 12 tokens").holds
    assert statement(certificate, "agreement: 1 token,").holds  # no attention in one token
    assert statement(certificate, "fraction").value == 1.0


@pytest.mark.parametrize("name", ["qk", "ov", "query_bias", "offset"])
@pytest.mark.parametrize("size, passed", [(1e-4, False), (1e-9, True)])
def test_every_parameter_counts(key, name, size, passed):
    layer = hidden_layer()
    change = size * key.standard_normal(getattr(layer, name).shape)
    near = changed(layer, **{name: getattr(layer, name) + change})
    assert fresh_queries(near, QueryOracle(layer, 8), key, SMALL).passed is passed


@pytest.mark.slow
def test_two_heads_merged_in_silence_are_refused(key):
    """Heads whose scores are 1e-3 apart, put together as one: the case that no stage of a learner notices."""
    layer = hidden_layer()
    qk, bias = layer.qk[[0, 0, 2]], layer.query_bias[[0, 0, 2]]
    qk[1] += 1e-3 * layer.qk[1]
    truth = changed(layer, qk=qk, query_bias=bias)
    merged = AttentionLayer(qk[1:], np.stack([layer.ov[0] + layer.ov[1], layer.ov[2]]), bias[1:], layer.offset)
    assert not fresh_queries(merged, QueryOracle(truth, 8), key).passed


def test_a_large_offset_hides_nothing(key):
    layer = hidden_layer()
    truth = changed(layer, offset=np.full(8, 1e6))
    wrong = changed(truth, ov=1.001 * layer.ov)
    assert fresh_queries(truth, QueryOracle(truth, 8), key, SMALL).passed
    certificate = fresh_queries(wrong, QueryOracle(truth, 8), key, SMALL)
    assert not certificate.passed and certificate.max_error == pytest.approx(1e-3, rel=1e-3)


def test_heads_that_cancel_on_one_token_are_no_failure(key):
    """W and -W: a single token is answered by the offset alone, up to the rounding of a learner."""
    layer = hidden_layer()
    truth = AttentionLayer(layer.qk[:2], np.stack([layer.ov[0], -layer.ov[0]]), offset=layer.offset)
    learned = changed(truth, ov=truth.ov + 1e-12 * key.standard_normal(truth.ov.shape))
    assert fresh_queries(learned, QueryOracle(truth, 8), key).passed


def test_given_sequences_are_asked_and_counted(key):
    layer = hidden_layer()
    oracle = QueryOracle(layer, 8)
    oracle.activations = [key.standard_normal((5, 8)), key.standard_normal((7, 8))]
    certificate = fresh_queries(layer, oracle, key, SMALL)
    assert certificate.passed and oracle.ledger.by_length == {1: 2, 3: 4, 5: 1, 7: 1}
    assert statement(certificate, "agreement: given").holds


def test_a_layer_wrong_on_given_sequences_only_is_refused(key):
    layer = hidden_layer()

    def box(X):
        return layer(X) + (X.shape[1] == 5)

    oracle = QueryOracle(box, 8)
    oracle.activations = key.standard_normal((1, 5, 8))
    certificate = fresh_queries(layer, oracle, key, SMALL)
    assert not certificate.passed
    assert statement(certificate, "agreement: 3 tokens").holds and not statement(certificate, "agreement: given").holds
    assert statement(certificate, "fraction").holds
    assert "No claim" in statement(certificate, "fraction").assumption


@pytest.mark.parametrize("noise", [1e-6, 1e-3])
def test_the_declared_noise_is_allowed_for_and_no_more(key, noise):
    layer = hidden_layer()

    def box(X):
        return layer(X) + noise * key.standard_normal((*X.shape[:2], 8))

    near, far = changed(layer, offset=layer.offset + noise), changed(layer, offset=layer.offset + 20 * noise)
    assert fresh_queries(near, QueryOracle(box, 8, noise=noise), np.random.default_rng(1), SMALL).passed
    assert not fresh_queries(far, QueryOracle(box, 8, noise=noise), np.random.default_rng(1), SMALL).passed
    if noise == 1e-3:
        assert not fresh_queries(near, QueryOracle(box, 8), np.random.default_rng(1), SMALL).passed


def test_a_single_precision_box_gets_a_limit_of_its_rounding(key):
    layer = hidden_layer()

    def box(X):
        return layer(X.astype(np.float64)).astype(np.float32)

    certificate = fresh_queries(layer, QueryOracle(box, 8, dtype="float32"), key)
    assert certificate.passed and 1e-9 < certificate.max_error < 1e-6
    assert statement(certificate, "agreement: 12").limit == pytest.approx(1.2e-4)
    assert not fresh_queries(layer, QueryOracle(box, 8, dtype="float32"), key, FreshQueryOptions(rtol=1e-9)).passed


def test_a_constant_box_fails_unless_the_layer_is_constant(key):
    layer = hidden_layer()
    constant = changed(layer, ov=np.zeros_like(layer.ov))
    oracle = QueryOracle(lambda X: np.broadcast_to(layer.offset, (*X.shape[:2], 8)), 8)
    assert fresh_queries(constant, oracle, key, SMALL).max_error == 0
    no_heads = AttentionLayer(np.zeros((0, 8, 8)), np.zeros((0, 8, 8)), offset=layer.offset)
    assert fresh_queries(no_heads, oracle, key, SMALL).passed
    certificate = fresh_queries(layer, oracle, key, SMALL)
    assert not certificate.passed and certificate.max_error == math.inf


def test_the_fraction_follows_from_the_number_of_questions(key):
    layer = hidden_layer()
    certificate = fresh_queries(layer, QueryOracle(layer, 8), key)
    assert statement(certificate, "fraction").value == pytest.approx(1 - 1e-3 ** (1 / 64))
    assert round(statement(certificate, "fraction").value, 3) == 0.102


def test_the_fraction_is_missed_no_more_often_than_said():
    """A layer that errs on just the fraction passes in about delta of the trials.

    The threshold is passed with probability 1e-6. Mutant caught: the exponent 1 / (n + 4) (passes in 31 %).
    """
    n, delta, trials = 10, 0.2, 2000
    options = FreshQueryOptions(delta=delta, mixture=(Kind(n, 3, 1.0),))
    layer = random_layer(0, heads=1, width=2)
    certificate = fresh_queries(layer, QueryOracle(layer, 2), np.random.default_rng(0), options)
    fraction = statement(certificate, "fraction").value
    errs = np.random.default_rng(0).random((trials, n)) < fraction
    assert np.sum(~errs.any(axis=1)) <= scipy.stats.binom.isf(1e-6, trials, delta)


def test_the_figures_on_conditioning_name_what_is_weak(key):
    layer = hidden_layer()
    twin = changed(layer, qk=layer.qk[[0, 0, 2]], query_bias=layer.query_bias[[0, 0, 2]])
    certificate = fresh_queries(twin, QueryOracle(twin, 8), key, SMALL)
    assert certificate.passed and statement(certificate, "separation").value == 0
    assert not statement(certificate, "separation").holds
    hard = changed(layer, qk=1e6 * layer.qk)
    assert not statement(fresh_queries(hard, QueryOracle(hard, 8), key, SMALL), "visible").holds
    outputs = np.linalg.svd(layer.ov)[2][:, :2].reshape(6, 8)
    expected = np.linalg.cond(outputs)
    assert statement(certificate, "independence").value == pytest.approx(expected, rel=1e-9)


def test_the_same_key_asks_the_same_questions():
    layer, asked = hidden_layer(), []

    def box(X):
        asked.append(X.copy())
        return layer(X)

    for seed in (0, 0, 1):
        fresh_queries(layer, QueryOracle(box, 8), np.random.default_rng(seed), SMALL)
    assert all(np.array_equal(a, b) for a, b in zip(asked[:2], asked[2:4], strict=True))
    assert not np.array_equal(asked[0], asked[4])


def test_the_end_of_the_budget_passes_upward(key):
    layer = hidden_layer()
    oracle = QueryOracle(layer, 8, max_queries=50)
    with pytest.raises(Stop) as stop:
        fresh_queries(layer, oracle, key)
    assert stop.value.status is Status.BUDGET_EXHAUSTED
    assert oracle.ledger.calls == 50


def test_refuses_wrong_use(key):
    layer = hidden_layer()
    with pytest.raises(ValueError, match="width 8 and the oracle 5"):
        fresh_queries(layer, QueryOracle(layer, 5), key)
    with pytest.raises(ValueError, match="8 outputs and the oracle 3"):
        fresh_queries(layer, QueryOracle(lambda X: layer(X)[..., :3], 8), key)
    for options, message in [
        ({"scale": 0.0}, "scale must be positive"),
        ({"rtol": -1.0}, "rtol must be positive"),
        ({"delta": 1.0}, "delta must lie between"),
        ({"mixture": ()}, "mixture must hold"),
        ({"mixture": (Kind(0, 3, 1.0),)}, "mixture must hold"),
    ]:
        with pytest.raises(ValueError, match=message):
            FreshQueryOptions(**options)
