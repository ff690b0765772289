"""Phase (iii): selection, regression and score against loops; a better sum from a crude one; the alarm."""

import numpy as np
import pytest

from attnlearn.learners.sculpting import crude, ov_sum
from attnlearn.learners.sculpting.ov_sum import (
    Refinement,
    Sample,
    balanced,
    learn_sum,
    refit,
    robust_regression,
    score,
    tighten,
    tightness,
)
from attnlearn.learners.sculpting.proxy import Body, proxy
from attnlearn.learners.sculpting.tokens import nearest
from tests.learners.sculpting import small


@pytest.fixture(scope="module")
def planted():
    """(1,6,6,6), whole, with the true sum."""
    examples = small.drawn(*small.ONE_HEAD)
    return Sample(np.asarray(examples.X), np.asarray(examples.Y)), small.ov_sum(examples), small.qk(examples)[0]


def up_to_sign(x):
    return max(tuple(x), tuple(-x))


def test_selection_is_balanced_over_token_values(key):
    V, cost = 2.0 * key.integers(0, 2, (400, 3)) - 1, key.random(400)
    found = balanced(cost, V, 0.2)
    wanted = set()
    for value in {up_to_sign(x) for x in V}:
        rows = [row for row in range(400) if up_to_sign(V[row]) == value]
        wanted |= set(sorted(rows, key=lambda row: cost[row])[: max(int(0.2 * 400 / 4), 3)])
    assert set(found.tolist()) == wanted and len(found) == 4 * 20
    assert len(balanced(cost, V, 1e-9)) == 4 * 3  # three rows of a class at least


def test_of_many_classes_only_the_purest_are_used(key):
    V, cost = key.choice([-1.0, 1.0], (20_000, 14)), key.random(20_000)  # 8192 classes, of which 64 d = 896 are used
    found = balanced(cost, V, 1e-9)
    values = [up_to_sign(x) for x in V]
    best: dict = {}
    for value, one in zip(values, cost, strict=True):
        best[value] = min(one, best.get(value, 1.0))
    purest = set(sorted(best, key=best.__getitem__)[: 64 * 14])
    assert {values[row] for row in found} == purest


def test_regression_does_not_see_outliers(key):
    """A quarter of the rows is wrong altogether; 60 reweightings leave 1e-3 of the median misfit, which is rounding."""
    P, W = key.standard_normal((80, 4)), key.standard_normal((4, 3))
    T = P @ W
    T[::4] += 5 * key.standard_normal((20, 3))
    found, misfit = robust_regression(P, T, 60)
    assert small.relative(found, W) < 1e-9
    assert np.abs(misfit - np.linalg.norm(T - P @ found, axis=1)).max() < 1e-12


def test_score_is_the_share_of_pure_rows_and_tightness_that_of_the_classes(planted):
    sample, W, _ = planted
    Z, residual, least = sample.Y @ np.linalg.pinv(W), [], {}
    for z, x in zip(Z, sample.X, strict=True):
        for row in z:
            one = [np.linalg.norm(row - token) / np.sqrt(6) for token in x]
            residual.append(min(one))
            value = up_to_sign(x[int(np.argmin(one))])
            least[value] = min(least.get(value, np.inf), min(one))
    assert score(sample, W, 0.02) == np.mean(np.array(residual) < 0.02)
    place = min(2 * 6, len(least) - 1)
    assert tightness(sample, W) == pytest.approx(sorted(least.values())[place], rel=1e-6, abs=1e-9)


def test_rows_with_a_margin_are_pure_as_the_bound_says(planted):
    """|y - u' W_s| <= 2 sqrt(d) |W| (k - 1) exp(-margin), on every row of one head, and tight to a factor of 100."""
    sample, W, theta = planted
    worst = 0.0
    for x, y in zip(sample.X[:300], sample.Y[:300], strict=True):
        for a in range(6):
            logits = x[a] @ theta @ x.T
            u = x[int(np.argmax(logits))]
            others = [logit for logit, token in zip(logits, x, strict=True) if not np.array_equal(token, u)]
            if others:
                bound = 2 * np.sqrt(6) * np.linalg.norm(W, 2) * 5 * np.exp(-(max(logits) - max(others)))
                worst = max(worst, np.linalg.norm(y[a] - u @ W) / bound)
    assert 0.01 < worst <= 1 + 1e-9


def test_the_sum_is_exact_from_rows_that_the_true_matrix_calls_pure(planted):
    """The margin of the true matrix picks rows with residuals of rounding size, which the regression keeps."""
    sample, W, theta = planted
    assert small.relative(refit(sample, theta, 0.01), W) < 1e-4


def test_rows_whose_tokens_are_all_equal_are_exactly_pure(planted):
    _, W, theta = planted
    X = np.repeat(2.0 * np.random.default_rng(0).integers(0, 2, (200, 1, 6)) - 1, 3, axis=1)
    assert small.relative(refit(Sample(X, X @ W), theta, 0.5), W) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_proxy_alone_makes_the_sum_twenty_times_better(seed):
    """Row 5: (2,8,4,4,2e4), rounds of `proxy` and `refit` only: from above .2 to below .02 on three seeds.

    The specification measured .32/.23/.25 to .008/.007/.007, we .32/.23/.25 to .006/.005/.005.
    """
    examples = small.drawn(2, 8, 4, 4.0, 20_000, seed)
    sample, truth = small.passes(examples).sample(15_000), small.ov_sum(examples)
    W = crude.slices(small.passes(examples).moments())
    assert small.relative(W, truth) > 0.2
    for turn in range(5):
        share = 0.02 * 0.7**turn
        near = nearest(sample.effective(W), sample.X, by_angle=turn < 2)
        W = refit(sample, proxy(sample.X, near, share, Body(), np.random.default_rng(turn)), share)
    assert small.relative(W, truth) < 0.02


def test_rounds_keep_the_estimate_of_the_best_score(planted):
    sample, W, _ = planted
    rounds = Refinement(shares=(0.02,), rounds=2)
    start = W + 0.1 * np.random.default_rng(0).standard_normal(W.shape)
    found = learn_sum(sample, [np.eye(6), start], (rounds, Body()), np.random.default_rng(0))
    assert found.score == score(sample, found.ov_sum, rounds.pure)
    assert found.score > 0.1 > score(sample, start, rounds.pure)
    assert small.relative(found.ov_sum, W) < 0.05


def test_flat_attention_has_no_pure_rows():
    """Row 6: (2,8,4,1,2e4): the score stays below 5e-4 even with the true sum."""
    examples = small.drawn(2, 8, 4, 1.0, 20_000, 0)
    sample = small.passes(examples).sample(20_000)
    assert score(sample, small.ov_sum(examples), 0.02) < 5e-4


def test_a_step_that_raises_the_tightness_is_refused(planted, monkeypatch):
    sample, W, _ = planted
    steps: list[np.ndarray] = [W + 0.3, W + 1e-4, W + 0.1, W + 1e-6, W + 1e-5]
    tight = [tightness(sample, one) for one in (W + 0.01, *steps)]
    assert tight[0] < tight[1] and tight[4] < tight[5] < tight[2] < tight[0] < tight[3]
    left = iter(steps)
    monkeypatch.setattr(ov_sum, "nearest_refit", lambda *_, **__: next(left))
    assert np.array_equal(tighten(sample, W + 0.01, Refinement(tightenings=5)), W + 1e-6)
    left = iter(steps)
    assert np.array_equal(tighten(sample, W + 1e-6, Refinement(tightenings=3)), W + 1e-6)


def test_tightening_makes_the_sum_better(planted):
    sample, W, _ = planted
    start = W + 0.02 * np.random.default_rng(0).standard_normal(W.shape)
    found = tighten(sample, start, Refinement())
    assert tightness(sample, found) < tightness(sample, start)
    assert small.relative(found, W) < small.relative(start, W)
