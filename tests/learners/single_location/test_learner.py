"""`SingleLocationEM`: what it reaches against least squares that knows the places, against Bayes, and what it says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from attnlearn import Status
from attnlearn.data import SingleLocationTask
from attnlearn.learners import SingleLocationEM
from attnlearn.learners.single_location import learner as module

GOLDEN = Path(__file__).parents[2] / "golden" / "single-location.json"
ROWS = {
    (entry["inputs"]["d"], entry["inputs"]["n_samples"]): entry
    for entry in json.loads(GOLDEN.read_text(encoding="utf-8"))["entries"]
    if entry["id"].startswith("learner ")
}
EM = SingleLocationEM()


def drawn(seed, d, n, tokens=10, gamma=0.5**0.5, epsilon=0.1):
    """A task, its sample and what is learned from it."""
    task = SingleLocationTask.random(seed, d, tokens, gamma, epsilon)
    key = np.random.default_rng([seed, n])
    sample = task.sample(key, n)
    return task, sample, EM.learn(sample.X, sample.y, key)


def excess(found, task, n=500):
    """Mean square error on fresh labels without noise. The part that is known exactly is put in exactly."""
    X, _, location = task.sample(np.random.default_rng(9), n)
    informative, wrong = X[np.arange(n), location], found.v - task.v_star
    missed, message = found.predict(X) - informative @ found.v, informative @ wrong
    exact = task.gamma**2 * wrong @ wrong + (task.mean @ wrong) ** 2
    return exact + np.mean(missed**2 + 2 * missed * message)


def least_squares(d, n, epsilon=0.1):
    """Its mean excess where the places are known."""
    return epsilon**2 * d / (n - d - 1)


# --- numbers to reach ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "d, n",
    [
        (80, 10),
        (80, 20),
        (80, 40),
        (80, 80),
        (80, 120),
        (80, 200),
        *(pytest.param(80, n, marks=pytest.mark.slow) for n in (400, 1000)),
        pytest.param(80, 4000, marks=pytest.mark.slow),
        (400, 20),
        *(pytest.param(400, n, marks=pytest.mark.slow) for n in (100, 400, 1000)),
    ],
)
def test_rows_of_the_table(d, n):
    """Medians of draws, within the bands of the golden file; every place found. Fixed seeds.

    The file has medians of five draws, which vary by .15 at n = 80 (and its learner knows the length of v; ours finds
    it, with a median 5 % higher there in 50 draws). Mutant: v from labels of other sequences, excess above .5.
    """
    row = ROWS[d, n]
    found = [drawn(seed, d, n) for seed in range(15 if n < 1000 and d < 400 else 5)]
    assert all(np.array_equal(one.location, sample.location) for _, sample, one in found)
    kappa = np.median([one.k @ task.k_star for task, _, one in found])
    nu = np.median([one.v @ task.v_star / np.linalg.norm(one.v) for task, _, one in found])
    wanted = row["value"]
    assert abs(kappa - wanted["kappa"]) < 0.03 and abs(nu - wanted["nu"]) < (0.15 if n <= d else 0.03)
    reached = np.median([excess(one, task) for task, _, one in found])
    assert reached < (1 + row["rtol"]) * wanted["excess"]
    assert reached > (1 - row["rtol"]) * wanted["excess"]


@pytest.mark.parametrize("n", [200, *(pytest.param(n, marks=pytest.mark.slow) for n in (400, 1000))])
def test_excess_is_that_of_least_squares_that_knows_the_places(n):
    """The mean over 100 draws is within 15 % of epsilon^2 d / (n - d - 1), d = 80. Fixed seeds.

    The excess of a draw varies by 21 % at n = 200, 20 % at 400 and 16 % at 1000, its mean by a tenth of that: 15 % is
    seven standard errors or more, false alarm below 1e-9. Measured: .97, .99, .99. Mutant: v shortened by an eighth.
    """
    found = [drawn(seed, 80, n) for seed in range(100)]
    assert all(np.array_equal(one.location, sample.location) for _, sample, one in found)
    reached = np.mean([excess(one, task, n=50) for task, _, one in found])
    assert reached == pytest.approx(least_squares(80, n), rel=0.15)
    shortened = np.mean([excess(replace(one, v=0.875 * one.v), task, n=50) for task, _, one in found])
    assert shortened > 1.15 * least_squares(80, n)


def test_eighty_labels_beat_a_million_of_gradient_descent():
    """d = 80: the mean of 20 draws is below the excess .184 that experiment 5 of the paper ends at, in every draw."""
    assert max(excess(one, task) for task, _, one in (drawn(seed, 80, 80) for seed in range(20))) < 0.184


HARD = [
    (20, 10, 0.5, 500),
    (20, 10, 0.5, 4000),
    (40, 100, 0.5, 1000),
    (40, 100, 1.0, 2000),
    (20, 10, 1.0, 2000),
    (80, 10, 1.0, 400),
    (80, 100, 0.5, 200),
    (10, 10, 0.5, 5000),
]


@pytest.mark.parametrize(
    "d, tokens, gamma2, n", [HARD[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in HARD[1:])]
)
def test_it_comes_close_to_bayes_where_places_stay_uncertain(d, tokens, gamma2, n):
    """The mean square distance to the predictor with the true parameters, which is what learning them costs.

    Measured 1 to 6.4 times least squares that knows the places, up to 9.3 in one of six draws. Fixed seeds.
    Mutant: weights of one for the likeliest place (hard assignments), which biases gamma and k.
    """
    apart = []
    for seed in range(3):
        task, _, found = drawn(seed, d, n, tokens, gamma2**0.5)
        truth = replace(found, k=task.k_star, v=task.v_star, gamma=task.gamma)
        X = task.sample(np.random.default_rng(9), 20_000 // tokens).X
        apart.append(np.mean((found.predict(X) - truth.predict(X)) ** 2))
    assert np.mean(apart) < 12 * least_squares(d, n)


@pytest.mark.parametrize("n", [10, 80, pytest.param(200, marks=pytest.mark.slow)])
def test_standard_errors_cover_the_truth(n):
    """z-scores over 40 draws have mean square one: k at all n, v, gamma and epsilon at n = 200 (d = 40).

    1600 entries: the mean square varies by 3.5 % for entries and 2 % for epsilon, the band is +-25 %. For the scalars
    40 draws, chi-square with false alarm 1e-7. Mutant: epsilon/sqrt(gamma^2 n) for v, which is 1 - d/n = .8 of its
    square, is caught at n = 80; see below.
    """
    k, v, scalars = [], [], []
    for seed in range(40):
        task, _, found = drawn(seed, 40, n)
        k.append((found.k - task.k_star) / found.errors.k)
        v.append((found.v - task.v_star) / found.errors.v)
        scalars.append(((found.gamma - task.gamma) / found.errors.gamma, (found.epsilon - 0.1) / found.errors.epsilon))
    assert np.mean(np.square(k)) == pytest.approx(1, abs=0.25)
    for squares in np.sum(np.square(scalars), axis=0)[: 1 + (n > 40)]:
        assert 1e-7 < stats.chi2.cdf(squares, 40) < 1 - 1e-7
    if n > 40:
        assert np.mean(np.square(v)) == pytest.approx(1, abs=0.25)
    if n == 80:
        shrunk = np.array([one * found.errors.v / (0.1 / np.sqrt(0.5 * n)) for one in v])
        assert np.mean(np.square(shrunk)) > 1.25


@pytest.mark.parametrize("n", [80, 200])
def test_the_error_of_epsilon_counts_the_directions_fitted(n):
    """epsilon / sqrt(2 (n - dof)): measured 3.3 % above it at n = 2 d and .3 % at 5 d. Mutant: epsilon / sqrt(2 n)."""
    found = [drawn(seed, 40, n)[2] for seed in range(5)]
    ratio = np.mean([one.errors.epsilon / one.epsilon * np.sqrt(2 * (n - one.dof)) for one in found])
    assert ratio == pytest.approx(1, abs=0.06)
    assert np.mean([one.errors.epsilon / one.epsilon * np.sqrt(2 * n) for one in found]) > 1.1


# --- starts ----------------------------------------------------------------------------------------------------------


def test_single_tokens_start_what_their_mean_cannot(monkeypatch):
    """Ten sequences of a hundred tokens: the cosine of the mean is 1/sqrt(1 + 2 * 99.5/10) = .22."""
    found = [drawn(seed, 80, 10, tokens=100) for seed in range(3)]
    for task, sample, one in found:
        assert np.array_equal(one.location, sample.location) and one.k @ task.k_star > 0.9
    monkeypatch.setattr(module, "token_starts", lambda *_: iter(()))  # the mutant: no other starts
    alone = [EM.learn(sample.X, sample.y, np.random.default_rng(0)) for _, sample, _ in found]
    lost = [one for one in alone if one.status is Status.NO_INFORMATIVE_TOKEN]
    assert lost and max(one.log_ratio for one in lost) < min(one.log_ratio for _, _, one in found) - 100


# --- symmetries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [15, 60])
def test_what_is_learned_turns_with_the_tokens_and_scales_with_the_labels(n, key):
    _, (X, y, _), found = drawn(1, 12, n)
    turn = np.linalg.qr(key.standard_normal((12, 12)))[0]
    order = key.permuted(np.tile(np.arange(10), (n, 1)), axis=1)
    shuffled = np.take_along_axis(X, order[:, :, None], axis=1)
    other = EM.learn(shuffled @ turn, -1e3 * y, key)
    tol = 1e-6  # both stop where a step moves them by less than 1e-8, and steps shrink by a factor of .97 or less
    assert other.status is found.status
    np.testing.assert_allclose(other.k @ turn.T, found.k, atol=tol)
    np.testing.assert_allclose(other.v @ turn.T, -1e3 * found.v, atol=1e3 * tol)
    assert other.epsilon == pytest.approx(1e3 * found.epsilon, rel=tol)
    assert other.gamma == pytest.approx(found.gamma, rel=tol)
    np.testing.assert_allclose(other.weights, np.take_along_axis(found.weights, order, axis=1), atol=100 * tol)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-77, 1e77, 1e160, 1e300])
def test_the_scale_of_the_labels_is_free(scale):
    """Also where squares of labels overflow or vanish: all that is measured in labels is `scale` times as much."""
    _, (X, y, _), found = drawn(1, 12, 60)
    other = learned(X, scale * y)
    assert (other.status, other.steps) == (found.status, found.steps)
    rtol = 1e-9  # rounding, over 20 steps or so that forget it
    np.testing.assert_allclose(other.v / scale, found.v, rtol=rtol)
    np.testing.assert_allclose(other.errors.v / scale, found.errors.v, rtol=rtol)
    wanted = pytest.approx((found.epsilon, found.errors.epsilon), rel=rtol)
    assert (other.epsilon / scale, other.errors.epsilon / scale) == wanted


def test_prediction_and_places_are_those_of_the_definition():
    _, (X, _, _), found = drawn(0, 12, 50)
    for x, weights, predicted in zip(X[:5], found.locate(X[:5]), found.predict(X[:5]), strict=True):
        odds = [
            stats.norm(np.sqrt(6) * found.k, found.gamma).logpdf(token).sum() - stats.norm.logpdf(token).sum()
            for token in x
        ]
        wanted = np.exp(odds - np.logaddexp.reduce(odds))
        np.testing.assert_allclose(weights, wanted, atol=1e-12)
        assert predicted == pytest.approx(sum(w * token @ found.v for w, token in zip(wanted, x, strict=True)))
    assert found.locate(X[:, :3]).shape == (50, 3)


# --- what it says ----------------------------------------------------------------------------------------------------


def learned(X, y, **options):
    return SingleLocationEM(**options).learn(X, y, np.random.default_rng(0))


def test_says_so_when_all_is_well():
    _, _, found = drawn(0, 20, 100)
    assert found.status is Status.LEARNED and "Mean probability of the likeliest place" in found.evidence
    assert (found.cost.calls, found.cost.tokens, found.cost.scalars) == (100, 1000, 100)
    assert found.steps >= 2 and 19 < found.dof < 20


def test_says_so_when_no_token_is_informative(key):
    for shape in ((20, 10, 20), (300, 4, 8), (3, 5, 30)):
        found = learned(key.standard_normal(shape), key.standard_normal(shape[0]))
        assert found.status is Status.NO_INFORMATIVE_TOKEN
        assert f"wanted {10 + 1.5 * shape[2]:.3g}" in found.evidence


def test_says_so_when_tokens_are_not_standardised():
    _, (X, y, _), _ = drawn(0, 20, 100)
    found = learned(2 * X, y)
    assert found.status is Status.NOT_SINGLE_LOCATION and "standardise the tokens" in found.evidence


def test_says_so_when_the_mean_has_another_length():
    task, (X, y, location), _ = drawn(0, 20, 200)
    X[np.arange(200), location] += 2 * task.k_star
    found = learned(X, y)
    assert found.status is Status.NOT_SINGLE_LOCATION and "wanted sqrt(d/2) = 3.16" in found.evidence


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_says_so_when_labels_are_fewer_than_entries(epsilon):
    task, sample, found = drawn(0, 40, 30, epsilon=epsilon)
    assert found.status is Status.TOO_FEW_EXAMPLES and "30 labels for the 40 entries of v" in found.evidence
    assert np.array_equal(found.location, sample.location)
    assert np.linalg.norm(found.v) < 1 and found.dof <= 30 and excess(found, task) < 0.5


def test_says_so_when_labels_have_nothing_to_do_with_the_tokens(key):
    _, (X, y, _), _ = drawn(0, 20, 100)
    for labels, wanted in ((key.permutation(y), "wanted 10"), (np.full(100, 3.0), "All labels are 3"), (0 * y, "All")):
        found = learned(X, labels)
        assert found.status is Status.LABELS_UNEXPLAINED and wanted in found.evidence
    assert not found.v.any()


def test_says_so_when_the_steps_run_out():
    _, (X, y, _), _ = drawn(0, 10, 100)
    found = learned(X, y, max_steps=2)
    assert found.status is Status.NOT_CONVERGED and found.steps == 4
    assert found.evidence == "It took 2 steps with the labels."


def test_says_so_when_the_steps_over_the_tokens_run_out():
    _, (X, y, _), _ = drawn(0, 10, 15)
    found = learned(X, y, max_steps=2)
    assert found.status is Status.NOT_CONVERGED
    assert found.evidence == f"It took {found.steps} steps over the tokens alone." and found.steps >= 2


def test_without_noise_the_answer_is_exact():
    task, _, found = drawn(0, 20, 100, epsilon=0.0)
    assert found.status is Status.LEARNED
    assert np.abs(found.v - task.v_star).max() < 1e-9 and found.epsilon < 1e-5  # of the smallest ridge looked at


def test_new_sequences_may_have_one_token():
    _, (X, _, _), found = drawn(0, 20, 50)
    one = X[:, :1]
    assert np.all(found.locate(one) == 1)
    np.testing.assert_allclose(found.predict(one), one[:, 0] @ found.v, atol=1e-12)


@pytest.mark.parametrize("X", [np.zeros((4, 3, 5)), np.ones((4, 3, 5)), np.full((1, 2, 4), 1 / np.sqrt(2))])
def test_degenerate_tokens_end_in_a_status(X):
    found = learned(X, np.arange(len(X), dtype=float))
    assert found.status is not Status.LEARNED
    assert np.isfinite(found.v).all() and np.linalg.norm(found.k) == pytest.approx(1)


# --- the door --------------------------------------------------------------------------------------------------------


def test_data_are_left_as_they_are_and_may_be_of_any_kind_of_number():
    _, (X, y, _), found = drawn(0, 20, 50)
    X.flags.writeable = y.flags.writeable = False
    again = EM.learn(X, y, np.random.default_rng(1))
    assert np.array_equal(again.v, found.v)
    other = EM.learn(X.astype(np.float32), y.tolist(), np.random.default_rng(1))
    assert other.v.dtype == np.float64 and np.abs(other.v - found.v).max() < 1e-5  # rounding of float32


X, Y = np.zeros((3, 2, 4)), np.zeros(3)


@pytest.mark.parametrize(
    "X, y, error, wanted",
    [
        (X[0], Y, ValueError, r"X must be sequences of tokens \(n, tokens, d\).*got shape \(2, 4\).*X\[None\]"),
        (X[:0], Y[:0], ValueError, r"none of them 0, got shape \(0, 2, 4\)"),
        (X, Y[:2], ValueError, r"y must hold one number for each of the 3 sequences, shape \(3,\), got shape \(2,\)"),
        (X, Y[:, None], ValueError, r"got shape \(3, 1\)"),
        (
            np.where(X == 0, np.nan, X),
            Y,
            ValueError,
            r"X has 24 values that are NaN or infinite, the first is X\[0, 0, 0\]",
        ),
        (X, np.array([0, np.inf, 0]), ValueError, r"y has 1 values that are NaN or infinite, the first is y\[1\]"),
        (X[:, :1], Y, ValueError, r"X has sequences of one token.*fit y to X\[:, 0\] by least squares"),
        (X[:, :, :3], Y, ValueError, "X has tokens of width 3, .* give tokens of width 4 or more"),
        (np.array([[["a"]]]), Y, TypeError, "X must hold real numbers"),
        (X, ["a", "b", "c"], TypeError, "y must hold real numbers"),
    ],
)
def test_says_what_is_not_sequences_with_labels(X, y, error, wanted):
    with pytest.raises(error, match=wanted):
        learned(X, y)


def test_says_so_when_new_tokens_have_another_width():
    found = drawn(0, 20, 50)[2]
    for ask in (found.predict, found.locate):
        with pytest.raises(ValueError, match="X has tokens of width 4, learned were tokens of width 20"):
            ask(X)


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, got 0"),
        ({"sequences": 0}, "sequences must be a whole number of at least 1, got 0"),
        ({"tol": 0.0}, "tol, a movement relative to a length, must be between 0 and 1, got 0.0"),
    ],
)
def test_says_which_option_is_wrong(options, wanted):
    with pytest.raises(ValueError, match=wanted):
        SingleLocationEM(**options)
