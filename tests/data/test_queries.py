"""The oracle counts every question, keeps to its budget, and says what the box did wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlearn import QueryOracle
from attnlearn._status import Status, Stop
from attnlearn.data.queries import CHUNK_SEQUENCES, CHUNK_TOKENS, REMEMBERED, REPEAT_NOISE

OV = np.arange(6.0).reshape(3, 2)


def linear(X):
    return X @ OV


def stopped(oracle, X, **options):
    with pytest.raises(Stop) as caught:
        oracle.ask(X, **options)
    return caught.value


def test_answers_are_float64_of_the_shape_that_the_box_gives(key):
    X = key.normal(size=(5, 4, 3))
    oracle = QueryOracle(linear, 3)
    assert oracle.width_out is None
    answer = oracle.ask(X)
    assert answer.dtype == np.float64
    np.testing.assert_array_equal(answer, X @ OV)
    assert oracle.width_out == 2


def test_ledger_counts_sequences_tokens_scalars_lengths_and_purposes(key):
    oracle = QueryOracle(linear, 3)
    oracle.ask(key.normal(size=(5, 4, 3)))
    oracle.ask(key.normal(size=(70, 1, 3)))
    oracle.ask(key.normal(size=(2, 4, 3)), purpose="certificate")
    ledger = oracle.ledger
    assert (ledger.calls, ledger.tokens, ledger.scalars) == (77, 5 * 4 + 70 + 2 * 4, 2 * 98)
    assert ledger.by_length == {1: 70, 4: 7}
    assert ledger.by_purpose == {"learning": 75, "certificate": 2}


def test_an_earlier_ledger_does_not_change_with_later_questions(key):
    oracle = QueryOracle(linear, 3)
    before = oracle.ledger
    oracle.ask(key.normal(size=(1, 1, 3)))
    assert before.calls == 0 and before.by_length == {}


def test_the_box_sees_bounded_chunks(key):
    seen = []
    oracle = QueryOracle(lambda X: seen.append(X.shape) or linear(X), 3)
    oracle.ask(key.normal(size=(CHUNK_SEQUENCES + 1, 2, 3)))
    oracle.ask(key.normal(size=(3, CHUNK_TOKENS // 2, 3)))
    assert [shape[0] for shape in seen] == [CHUNK_SEQUENCES, 1, 2, 1]


def test_the_box_cannot_change_the_question(key):
    def spoils(X):
        answer = linear(X)
        X[:] = 0
        return answer

    X = key.normal(size=(2, 2, 3))
    before = X.copy()
    QueryOracle(spoils, 3).ask(X)
    np.testing.assert_array_equal(X, before)


def test_float32_questions_reach_the_box_in_float32(key):
    seen = []
    oracle = QueryOracle(lambda X: seen.append(X.dtype) or linear(X), 3, dtype="float32")
    assert oracle.ask(key.normal(size=(1, 2, 3))).dtype == np.float64
    assert seen == [np.float32]
    assert oracle.epsilon == 1.2e-7 and QueryOracle(linear, 3).epsilon == 2.3e-16


def test_a_jax_function_runs_in_the_setting_of_the_user(key):
    seen = []

    def fn(X):
        answer = jnp.asarray(X) @ jnp.asarray(OV)
        seen.append(answer.dtype)
        return answer

    oracle = QueryOracle(fn, 3)
    with jax.enable_x64(True):
        oracle.ask(key.normal(size=(1, 2, 3)))
        QueryOracle(fn, 3).ask(key.normal(size=(1, 2, 3)))
    assert seen == [jnp.float32, jnp.float64]


# --- the budget ------------------------------------------------------------------------------------------------


def test_budget_ends_exactly_at_its_limit(key):
    asked = []
    oracle = QueryOracle(lambda X: asked.append(len(X)) or linear(X), 3, max_queries=10)
    oracle.ask(key.normal(size=(7, 1, 3)))
    stop = stopped(oracle, key.normal(size=(5, 1, 3)))
    assert stop.status is Status.BUDGET_EXHAUSTED
    assert "10 of 10" in stop.evidence and "2 of the last 5" in stop.evidence
    assert asked == [7, 3] and oracle.ledger.calls == 10 and oracle.remaining == 0
    assert stopped(oracle, key.normal(size=(1, 1, 3))).status is Status.BUDGET_EXHAUSTED
    assert asked == [7, 3]


def test_a_budget_that_is_just_enough_is_enough(key):
    oracle = QueryOracle(linear, 3, max_queries=5)
    assert oracle.ask(key.normal(size=(5, 1, 3))).shape == (5, 1, 2)
    assert oracle.remaining == 0


def test_a_reservation_is_kept_for_its_purpose(key):
    oracle = QueryOracle(linear, 3, max_queries=10)
    oracle.reserve("certificate", 4)
    assert oracle.remaining == 6
    assert "4 kept" in stopped(oracle, key.normal(size=(8, 1, 3))).evidence
    assert oracle.ledger.calls == 6
    oracle.ask(key.normal(size=(4, 1, 3)), purpose="certificate")
    assert oracle.ledger.calls == 10


def test_a_released_reservation_can_be_asked_by_others(key):
    oracle = QueryOracle(linear, 3, max_queries=10)
    oracle.reserve("certificate", 4)
    oracle.ask(key.normal(size=(1, 1, 3)), purpose="certificate")
    assert oracle.remaining == 6
    oracle.release("certificate")
    assert oracle.remaining == 9


def test_no_more_can_be_reserved_than_is_left():
    oracle = QueryOracle(linear, 3, max_queries=10)
    oracle.reserve("certificate", 64)
    assert oracle.remaining == 0


def test_without_a_budget_nothing_ends(key):
    oracle = QueryOracle(linear, 3)
    oracle.reserve("certificate", 4)
    oracle.ask(key.normal(size=(100, 1, 3)))
    assert oracle.remaining is None


# --- what the box does wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "evidence"),
    [
        (lambda X: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda X: linear(X)[:, :1], r"shape (2, 1, 2) where (2, 4, d_out) was wanted"),
        (lambda X: 1.0, "shape ()"),
        (lambda X: linear(X)[..., :0], "shape (2, 4, 0)"),
        (lambda X: None, "shape ()"),
        (lambda X: linear(X) * np.nan, "16 of 16 numbers with NaN or inf"),
        (lambda X: linear(X) + np.array([0, np.inf]), "8 of 16"),
        (lambda X: linear(X) + 1j, "complex128 where real numbers were wanted"),
        (lambda X: [[1.0], [1.0, 2.0]], "ValueError"),
    ],
)
def test_says_so_when_the_box_fails(fn, evidence, key):
    oracle = QueryOracle(fn, 3)
    stop = stopped(oracle, key.normal(size=(2, 4, 3)))
    assert stop.status is Status.ORACLE_FAILED
    assert evidence in stop.evidence
    assert oracle.ledger.calls == 2 and oracle.ledger.scalars == 0


def test_says_so_when_the_width_of_the_answers_changes(key):
    oracle = QueryOracle(lambda X: X[..., : X.shape[1]], 3)
    oracle.ask(key.normal(size=(1, 2, 3)))
    stop = stopped(oracle, key.normal(size=(1, 1, 3)))
    assert stop.status is Status.ORACLE_FAILED and "(1, 1, 2) was wanted" in stop.evidence


def test_an_interrupt_passes_through(key):
    def interrupted(X):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        QueryOracle(interrupted, 3).ask(key.normal(size=(1, 1, 3)))


# --- repeated questions ----------------------------------------------------------------------------------------


def test_says_so_when_equal_questions_get_other_answers(key):
    oracle = QueryOracle(lambda X: linear(X) + 1e-6 * key.normal(size=(*X.shape[:2], 2)), 3)
    stop = stopped(oracle, np.zeros((2, 1, 3)))
    assert stop.status is Status.ORACLE_INCONSISTENT
    assert "apart where" in stop.evidence and "declared noise 0" in stop.evidence


def test_noise_that_was_declared_is_allowed_and_more_is_not(key):
    sizes = iter([0.0, 0.9 * REPEAT_NOISE, 1.1 * REPEAT_NOISE])
    oracle = QueryOracle(lambda X: linear(X) + 1e-3 * next(sizes), 3, noise=1e-3)
    X = np.zeros((1, 1, 3))
    oracle.ask(X)
    oracle.ask(X)
    assert stopped(oracle, X).status is Status.ORACLE_INCONSISTENT


def test_rounding_is_allowed_in_proportion_to_the_precision(key):
    X = key.uniform(-1, 1, size=(1, 2, 3))
    for dtype, epsilon in (("float64", 2.3e-16), ("float32", 1.2e-7)):
        changes = iter([0.0, 100 * epsilon, 1e4 * epsilon])  # allowed: 1e3 epsilon
        oracle = QueryOracle(lambda X, changes=changes: (X @ OV) * (1 + next(changes)), 3, dtype=dtype)
        oracle.ask(X)
        oracle.ask(X)
        assert stopped(oracle, X).status is Status.ORACLE_INCONSISTENT


def test_check_repeat_asks_the_first_of_the_longest_questions_again(key):
    seen = []
    oracle = QueryOracle(lambda X: seen.append(X.copy()) or linear(X), 3)
    oracle.check_repeat()
    assert oracle.ledger.calls == 0
    longest = key.normal(size=(2, 5, 3))
    oracle.ask(key.normal(size=(1, 2, 3)))
    oracle.ask(longest)
    oracle.check_repeat(purpose="certificate")
    np.testing.assert_array_equal(seen[-1], longest[:1])
    assert oracle.ledger.by_purpose == {"learning": 3, "certificate": 1}


def test_check_repeat_finds_dropout(key):
    oracle = QueryOracle(lambda X: (X * key.integers(2, size=X.shape)) @ OV, 3)
    oracle.ask(key.normal(size=(1, 20, 3)))
    with pytest.raises(Stop, match="contradicts itself"):
        oracle.check_repeat()


def test_memory_is_bounded_and_keeps_the_first_and_the_latest(key):
    answers = iter(np.arange(1e6))
    oracle = QueryOracle(lambda X: X + np.array([next(answers) for _ in X])[:, None, None], 1)
    X = key.normal(size=(3 * REMEMBERED, 1, 1))
    oracle.ask(X)
    assert len(oracle._answers) == REMEMBERED
    oracle.ask(X[REMEMBERED // 2 + 1][None])  # forgotten, so not compared
    assert stopped(oracle, X[:1]).status is Status.ORACLE_INCONSISTENT
    assert stopped(oracle, X[-1:]).status is Status.ORACLE_INCONSISTENT


# --- wrong use -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 2), (0, 4, 3), (2, 0, 3)])
def test_refuses_a_question_of_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"X must have shape \(batch, k, 3\)"):
        QueryOracle(linear, 3).ask(np.zeros(shape))


@pytest.mark.parametrize(("entry", "dtype"), [(np.nan, "float64"), (np.inf, "float64"), (1e300, "float32")])
def test_refuses_a_question_that_is_not_finite(entry, dtype):
    oracle = QueryOracle(linear, 3, dtype=dtype)
    with pytest.raises(ValueError, match=f"X must be finite in {dtype}"):
        oracle.ask(np.full((1, 1, 3), entry))
    assert oracle.ledger.calls == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fn": 3}, TypeError, "fn must be a function"),
        ({"width": 0}, ValueError, "width must be at least 1, got 0"),
        ({"width": 2.5}, TypeError, "width must be a whole number"),
        ({"max_queries": 0}, ValueError, "max_queries must be at least 1"),
        ({"noise": -1.0}, ValueError, "noise must be a number >= 0"),
        ({"noise": float("nan")}, ValueError, "noise must be a number >= 0"),
        ({"dtype": "float16"}, ValueError, "dtype must be 'float64' or 'float32', got 'float16'"),
        ({"dtype": "bfloat17"}, ValueError, "dtype must be 'float64' or 'float32'"),
    ],
)
def test_refuses_wrong_use(options, error, message):
    arguments = {"fn": linear, "width": 3, **options}
    with pytest.raises(error, match=message):
        QueryOracle(**arguments)


def test_truth_and_real_sequences_are_absent_until_they_are_set():
    oracle = QueryOracle(linear, 3)
    assert oracle.truth is None and oracle.activations is None and oracle.tokens is None
    oracle.activations = [np.zeros((2, 3))]
    assert len(oracle.activations) == 1
