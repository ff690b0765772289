"""The baseline learns easy layers, keeps to its budget and keeps its best student."""

import math

import jax
import numpy as np
import pytest

from attnlearn._progress import listening
from attnlearn._status import Status
from attnlearn.data.queries import QueryOracle
from attnlearn.layers import AttentionLayer, Causal, Factored, Slots, distance, random_layer
from attnlearn.learners.gradient import GradientDescent, outputs

TINY = GradientDescent(heads=1, head_dim=2, steps=40, batch=8, tokens=4, held_out=8)


def easy_layer(slots=Slots()):
    key = np.random.default_rng(0)
    layer = random_layer(0, heads=1, width=4, head_dim=4)
    return AttentionLayer(layer.qk, layer.ov, key.standard_normal((1, 4)) / 2, key.standard_normal(4), slots)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [Slots(), Slots(mask=Causal())])
def test_outputs_of_factors_are_those_of_their_circuits(key, slots):
    layer = AttentionLayer(*(key.standard_normal(s) for s in [(2, 5, 5), (2, 5, 3), (2, 5), (3,)]), slots=slots)
    X = key.standard_normal((2, 4, 5))
    with jax.enable_x64(True):
        np.testing.assert_allclose(outputs(Factored.of(layer), slots, X), layer(X), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_learns_an_easy_layer():
    """One head of width 4: every head found to 2 %; the seed is fixed, so the test is certain."""
    layer = easy_layer()
    learner = GradientDescent(heads=1, head_dim=4, learning_rates=(1e-2, 3e-2), steps=1500, batch=16, tokens=6)
    learned = learner.learn(QueryOracle(layer, 4), np.random.default_rng(0))
    assert learned.status is Status.LEARNED
    errors = distance(learned.layer, layer)
    assert max(errors.qk, errors.ov, errors.offset) < 2e-2
    assert learned.arrays["held_out_error"].shape == (20, 2)
    assert learned.arrays["held_out_error"].min() < 1e-2
    assert [phase.name for phase in learned.phases] == ["rate 0.01", "rate 0.03"]
    assert "Relative error" in learned.evidence
    assert learned.cost.compile_seconds > 0 and learned.cost.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("max_tokens, calls", [(None, 8 + 40 * 8), (203, 50)])
def test_asks_what_its_formula_says(key, max_tokens, calls):
    oracle = QueryOracle(easy_layer(), 4)
    learned = GradientDescent(
        heads=1, head_dim=2, steps=40, batch=8, tokens=4, held_out=8, max_tokens=max_tokens
    ).learn(oracle, key)
    assert learned.cost.calls == oracle.ledger.calls == calls
    assert learned.cost.tokens == oracle.ledger.tokens == 4 * calls
    assert learned.cost.scalars == oracle.ledger.scalars == 16 * calls


@pytest.mark.slow
def test_the_end_of_the_budget_keeps_the_best_student(key):
    learned = TINY.learn(QueryOracle(easy_layer(), 4, max_queries=200), key)
    assert learned.status is Status.BUDGET_EXHAUSTED
    assert learned.layer is not None and "200 of 200" in learned.evidence
    assert learned.cost.calls == 200
    nothing = TINY.learn(QueryOracle(easy_layer(), 4, max_queries=4), key)
    assert nothing.status is Status.BUDGET_EXHAUSTED and nothing.layer is None


@pytest.mark.slow
def test_an_interrupt_keeps_the_best_student(key):
    def interrupt(stage, done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with listening(interrupt):
        learned = TINY.learn(QueryOracle(easy_layer(), 4), key)
    assert learned.status is Status.INTERRUPTED and learned.layer is not None
    assert len(learned.arrays["held_out_error"]) == 10


@pytest.mark.slow
def test_the_best_student_is_kept_not_the_last(key):
    """A rate of 1e3 diverges: its students are worse than any of the small rate, and may be NaN."""
    learner = GradientDescent(
        heads=1, head_dim=2, learning_rates=(1e3, 1e-2), steps=40, batch=8, tokens=4, held_out=8, max_tokens=400
    )
    learned = learner.learn(QueryOracle(easy_layer(), 4), key)
    errors = learned.arrays["held_out_error"]
    assert f"{np.nanmin(errors):.3g}" in learned.evidence and "rate 0.01" in learned.evidence
    assert learned.layer is not None and np.isfinite(learned.layer.qk).all()
    assert errors[-1, 1] < errors[0, 1] < math.inf


@pytest.mark.slow
def test_the_same_key_gives_the_same_layer_whatever_the_setting():
    slots = Slots(mask=Causal())
    learner = GradientDescent(
        heads=1, head_dim=2, steps=20, batch=4, tokens=3, max_tokens=60, dtype="float64", slots=slots
    )
    first = learner.learn(QueryOracle(easy_layer(), 4), np.random.default_rng(0)).layer
    with jax.enable_x64(True):
        second = learner.learn(QueryOracle(easy_layer(), 4), np.random.default_rng(0)).layer
    assert first.qk.dtype == np.float64 and first.slots == slots
    np.testing.assert_array_equal(first.qk, second.qk)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"heads": 0}, "heads must be at least 1"),
        ({"learning_rates": ()}, "learning_rates must be positive"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"dtype": "bfloat16"}, "dtype must be 'float32' or 'float64'"),
        ({"max_tokens": 30}, "max_tokens must hold two sequences of 20 tokens"),
    ],
)
def test_refuses_wrong_options(fields, message):
    with pytest.raises(ValueError, match=message):
        GradientDescent(**({"heads": 1, "head_dim": 2} | fields))
