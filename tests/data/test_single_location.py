"""The law of single-location data, against its definition; and what is not such a task."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from attnlearn.data import SingleLocationTask
from attnlearn.data.single_location import LocatedSequences

TASK = SingleLocationTask.random(3, d=6, tokens=4, gamma=0.8, epsilon=0.3)
N = 4000
FALSE_ALARM = 1e-7  # of one of six figures


def unlikely(sample, task):
    """The figures of a sample that its law gives with probability below `FALSE_ALARM`, each in one of two tails."""
    n, d = len(sample.y), task.d
    informative = sample.X[np.arange(n), sample.location]
    others = np.delete(sample.X.reshape(-1, d), np.arange(n) * task.tokens + sample.location, axis=0)
    centred = (informative - np.sqrt(d / 2) * task.k_star) / task.gamma
    apart = (centred.T @ centred)[np.triu_indices(d, 1)] / np.sqrt(n)  # each nearly standard normal
    noise = (sample.y - informative @ task.v_star) / task.epsilon
    places = np.bincount(sample.location, minlength=task.tokens)
    figures = {
        "mean": (n * np.sum(centred.mean(axis=0) ** 2), d),
        "spread": (np.sum(centred**2), n * d),
        "covariance": (np.sum(apart**2), len(apart)),
        "others": (np.sum(others**2), others.size),
        "noise": (np.sum(noise**2), n),
        "place": (np.sum((places - n / task.tokens) ** 2) / (n / task.tokens), task.tokens - 1),
    }
    tails = {name: 2 * min(stats.chi2.cdf(*one), stats.chi2.sf(*one)) for name, one in figures.items()}
    return {name for name, tail in tails.items() if tail < FALSE_ALARM}


def test_samples_have_the_law_of_the_task(key):
    """Six chi-square figures, false alarm 1e-6 in all. Mutants: see below."""
    assert not unlikely(TASK.sample(key, N), TASK)


MUTANTS = {
    "place": lambda key: TASK.sample(key, N, place=0),  # the informative token always first
    "spread": lambda key: replace(TASK, gamma=TASK.gamma**2).sample(key, N),
    "mean": lambda key: moved(TASK.sample(key, N), np.sqrt(TASK.d) - np.sqrt(TASK.d / 2)),
    "noise": lambda key: replace(TASK, epsilon=TASK.epsilon**2).sample(key, N),
    "others": lambda key: moved(TASK.sample(key, N), 0.0, 1.05),
}


def moved(sample, by, scale=1.0):
    """The mean of the informative token is `by` longer, and all others are scaled; labels stay."""
    X = scale * sample.X
    rows = np.arange(len(X)), sample.location
    X[rows] = sample.X[rows] + by * TASK.k_star
    return sample._replace(X=X)


@pytest.mark.parametrize("figure", MUTANTS)
def test_another_law_is_noticed(figure, key):
    """The mutants that the test above catches, each by its own figure."""
    assert figure in unlikely(MUTANTS[figure](key), TASK)


def test_correlated_entries_are_noticed(key):
    sample = TASK.sample(key, N)
    rows = np.arange(N), sample.location
    X = sample.X.copy()
    X[rows] = X[rows] @ (np.eye(6) + 0.2 * np.eye(6, k=1))
    assert "covariance" in unlikely(sample._replace(X=X), TASK)


def test_without_noise_labels_are_what_the_informative_token_says(key):
    X, y, location = replace(TASK, epsilon=0.0).sample(key, 9, place=2)
    assert location.tolist() == [2] * 9
    assert np.array_equal(y, X[:, 2] @ TASK.v_star)


def test_batches_are_samples_of_at_most_their_size(key):
    batches = list(TASK.batches(key, 2 * N + 1, N))
    assert [len(batch.y) for batch in batches] == [N, N, 1]
    assert not unlikely(batches[0], TASK) and not unlikely(batches[1], TASK)
    assert not np.array_equal(batches[0].X, batches[1].X)
    assert all(batch.location.tolist() == [1] * 2 for batch in TASK.batches(key, 4, 2, place=1))


def test_batches_are_drawn_when_they_are_asked_for(monkeypatch, key):
    drawn = []

    def sample(self, key, n, place=None):
        drawn.append(n)
        return LocatedSequences(np.zeros((1, 1, 1)), np.zeros(1), np.zeros(1, int))

    monkeypatch.setattr(SingleLocationTask, "sample", sample)
    stream = TASK.batches(key, 10**12, 10)
    next(stream)
    assert drawn == [10]


def test_random_tasks_are_orthonormal_and_the_same_for_the_same_seed():
    task, same, other = (SingleLocationTask.random(seed, d=50) for seed in (1, 1, 2))
    pair = np.stack([task.k_star, task.v_star])
    assert np.abs(pair @ pair.T - np.eye(2)).max() < 1e-15 * 50  # rounding of sums over 50 numbers
    assert np.array_equal(task.v_star, same.v_star) and not np.allclose(task.k_star, other.k_star)
    assert (task.d, task.tokens, task.gamma, task.epsilon) == (50, 10, 0.5**0.5, 0.1)
    assert SingleLocationTask.random(0).d == 400
    first = task.sample(np.random.default_rng(1), 1).X[0, 0]
    assert abs(first @ task.k_star) < 0.5 * np.linalg.norm(first)  # tokens are not drawn from the stream of directions
    assert np.linalg.norm(task.mean) == pytest.approx(5.0)


E = np.eye(6)


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        (lambda: SingleLocationTask.random(0, d=3), "the width d must be at least 4, got 3"),
        (lambda: SingleLocationTask.random(-1), "seed must be at least 0, got -1"),
        (lambda: SingleLocationTask(np.eye(3)[0], np.eye(3)[1]), "the width d must be at least 4, got directions of 3"),
        (lambda: SingleLocationTask(E[0], np.eye(5)[1]), r"the same width \(d,\), got shapes \(6,\) and \(5,\)"),
        (lambda: SingleLocationTask(E, E), r"must be vectors.*got shapes \(6, 6\) and \(6, 6\)"),
        (lambda: SingleLocationTask(2 * E[0], E[1]), "k_star must have length 1, got 2: divide it"),
        (lambda: SingleLocationTask(E[0], E[1] * np.nan), "v_star has entries that are NaN or infinite"),
        (lambda: SingleLocationTask(E[0], (E[0] + E[1]) / np.sqrt(2)), "must be orthogonal, their product is 0.707"),
        (lambda: replace(TASK, tokens=1), "tokens, one of them informative, must be at least 2, got 1"),
        (lambda: replace(TASK, gamma=0.0), "gamma, a standard deviation, must be positive and finite, got 0.0"),
        (lambda: replace(TASK, gamma=np.inf), "gamma.*got inf"),
        (lambda: replace(TASK, epsilon=-0.1), "epsilon, a standard deviation, must be at least 0 and finite, got -0.1"),
        (lambda: TASK.sample(np.random.default_rng(0), 0), "n, the number of sequences, must be at least 1, got 0"),
        (lambda: TASK.sample(np.random.default_rng(0), 1, place=4), "place must be one of the 4 places, 0 to 3, got 4"),
        (lambda: TASK.sample(np.random.default_rng(0), 1, place=-1), "place must be at least 0, got -1"),
        (lambda: TASK.batches(np.random.default_rng(0), 5, 0), "the size of a batch must be at least 1, got 0"),
        (lambda: TASK.batches(np.random.default_rng(0), 0, 4), "n, the number of sequences, must be at least 1, got 0"),
        (lambda: TASK.batches(np.random.default_rng(0), 5, 4, 4), "place must be one of the 4 places, 0 to 3, got 4"),
    ],
)
def test_says_what_is_not_a_task_or_a_sample(wrong, wanted):
    with pytest.raises(ValueError, match=wanted):
        wrong()


def made(k_star=E[0], v_star=E[1], **options):
    """A task, without the checks of annotations that only these tests make."""
    task = object.__new__(SingleLocationTask)
    inspect.unwrap(SingleLocationTask.__init__)(task, k_star, v_star, **options)
    return task


def sampled(*given):
    """`TASK.sample`, without those checks."""
    return inspect.unwrap(SingleLocationTask.sample)(TASK, *given)


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        (lambda: made("north"), "k_star must be a vector of real numbers: Cannot cast"),
        (lambda: made(v_star=1j * E[1]), "v_star must be a vector of real numbers: Cannot cast"),
        (lambda: made(v_star=[[1], [1, 2]]), "v_star must be a vector of real numbers: .*inhomogeneous"),
        (lambda: made(tokens=2.5), "tokens, one of them informative, must be a whole number, got 2.5"),
        (lambda: made(tokens=True), "tokens.* must be a whole number, got True"),
        (lambda: made(gamma=np.ones(2)), r"gamma, a standard deviation, must be one real number, got array"),
        (lambda: made(epsilon="0.1"), "epsilon, a standard deviation, must be one real number, got '0.1'"),
        (lambda: sampled(0, 10), r"key must be a generator, got 0: give np.random.default_rng\(seed\)"),
        (
            lambda: sampled(np.random.default_rng(0), 2.5),
            "n, the number of sequences, must be a whole number, got 2.5",
        ),
        (lambda: sampled(np.random.default_rng(0), 5, 1.0), "place must be a whole number, got 1.0"),
        (lambda: TASK.sample(np.random.default_rng(0), 5, True), "place must be a whole number, got True"),
        (lambda: SingleLocationTask.random(True), "seed must be a whole number, got True"),
    ],
)
def test_says_what_is_of_another_kind(wrong, wanted):
    with pytest.raises(TypeError, match=wanted):
        wrong()


def test_directions_may_be_anything_that_numpy_reads():
    """They are copies in float64, which no later change of what was given reaches."""
    given = np.eye(4, dtype=np.float32)[1]
    task = made([1, 0, 0, 0], given)
    given[:] = 0
    assert task.k_star.dtype == task.v_star.dtype == np.float64
    assert task.v_star.tolist() == [0, 1, 0, 0]
    assert sampled(np.random.default_rng(0), 3, np.int64(2)).location.tolist() == [2] * 3
