"""What a search does with the ends of its runs, told to it by a problem that only pretends."""

import jax.numpy as jnp
import numpy as np
import pytest

import attnlearn as al
from attnlearn._status import Status
from attnlearn.learners.least_squares import search as search_module
from attnlearn.learners.least_squares.marquardt import Rows
from attnlearn.learners.least_squares.passes import Form
from attnlearn.learners.least_squares.problem import AbstractProblem, Fit
from attnlearn.learners.least_squares.search import Effort, Search
from tests.learners.least_squares import small


class Pretended(AbstractProblem):
    """Runs end where they began, at the losses that are given, the last one again and again."""

    def __init__(self, *losses):
        self.form, self.rows = Form(al.Softmax(), True), Rows(jnp.asarray(96.0), jnp.asarray(1.0))
        self.width, self.scalars, self.tokens = (5, 4, 3), 288, 8
        self.losses, self.started = list(losses), []

    def run(self, outer, stall, steps):
        self.started.append(outer)
        return Fit(outer, np.zeros((1, 3)), self.losses.pop(0) if len(self.losses) > 1 else self.losses[0], 3, 10)

    def objectives(self, outers):
        return np.arange(float(len(outers.queries)))[::-1]  # the last draw is the best


@pytest.fixture(autouse=True)
def a_first_start_with_all_its_resets(monkeypatch):
    monkeypatch.setattr(search_module, "FIRST_RESETS", 100)


def a_search(*losses, heads=2, rank=None, noisy=False, target=1e-14, **effort):
    effort = Effort(**({"restarts": 3, "resets": 8, "candidates": 4} | effort))
    return Search(Pretended(*losses), heads, rank, np.random.default_rng(0), effort, target, noisy)


def test_a_search_ends_with_the_first_run_that_reaches_the_target():
    search = a_search(0.5, 0.4, 1e-15, 0.1)
    assert search.solve().loss == 1e-15
    assert search.reached and not search.agreed
    assert [run["run"].split()[0] for run in search.runs] == ["start", "head", "head"]
    assert search.runs[0] == {"run": "start", "heads": 2, "loss": 0.5, "steps": 3, "cg_iterations": 10}


def test_a_stalled_run_goes_on_from_the_best_point_with_one_head_anew():
    search = a_search(0.5, 0.3, 0.4, 0.2, resets=3, restarts=1, heads=3)
    assert search.solve().loss == search.best.loss == 0.2
    start, first, second, third = (outer.queries for outer in search.problem.started)
    assert [int((new != old).any(axis=(1, 2)).sum()) for old, new in [(start, first), (first, second)]] == [1, 1]
    assert int((third != first).any(axis=(1, 2)).sum()) == 1  # 0.4 was worse: from 0.3 again
    assert not search.reached


@pytest.mark.parametrize(
    "losses, agreed, runs",
    [
        ([0.1], True, 2 + 4),  # a start with 4 resets in vain, then one that ends at the same loss
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.10005, 0.3], True, 7),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.3], False, 5 + 5 + 5),
    ],
)
def test_without_a_known_noise_two_starts_must_agree(losses, agreed, runs):
    search = a_search(*losses, noisy=True, heads=1)
    search.solve()
    assert search.agreed == agreed and not search.reached
    assert len(search.runs) == runs


def test_with_a_known_noise_agreement_is_nothing():
    search = a_search(0.1, noisy=False, heads=1, resets=2)
    search.solve()
    assert not search.agreed and len(search.runs) == 3 * 3


def test_runs_that_end_nowhere_are_never_the_best():
    search = a_search(np.inf, np.inf, 0.3, np.inf, resets=1, restarts=2, heads=1)
    assert search.solve().loss == 0.3
    assert not a_search(np.inf, noisy=True, resets=1).solve().loss < np.inf


def test_a_warm_start_keeps_the_heads_it_has():
    search = a_search(1e-15)
    warm = Fit(search._draw(1), np.zeros((1, 3)), 0.5)
    search.solve(warm)
    np.testing.assert_array_equal(search.problem.started[0].queries[:1], warm.outer.queries)
    assert search.runs[0]["run"] == "one more head" and search.best.outer.heads == 2


def test_polishing_never_makes_a_fit_worse():
    search = a_search(0.2, 0.3, 0.1)
    fit = search._run(search._draw(2), "start")
    assert search.polish(fit).loss == 0.2 and search.polish(fit).loss == 0.1 == search.best.loss


def test_fresh_heads_come_from_the_span_of_those_that_scouts_met(monkeypatch):
    monkeypatch.setattr(search_module, "STRANGERS", 0.0)
    monkeypatch.setattr(search_module, "SCOUTS", 3)
    search = a_search(np.inf, 0.5, resets=0, restarts=2)
    search.solve()
    runs = [(run["run"], run["heads"]) for run in search.runs]
    assert runs == [("start", 2), *[("scout", 1)] * 3, ("start", 2)]
    met = np.stack([outer.queries[0].ravel() for outer in search.problem.started[1:4]])  # none of a run without an end
    fresh = search.problem.started[4].queries.reshape(2, -1)
    both = np.concatenate([met, fresh])
    assert np.linalg.matrix_rank(met, tol=1e-8) == np.linalg.matrix_rank(both, tol=1e-8) <= 3
    assert search.best.outer.heads == 2


@pytest.mark.parametrize("rank", [None, 2])
def test_drawn_logits_have_standard_deviation_one(rank):
    """4000 heads of 20 numbers: the estimate is within 2 % (6 standard deviations, the products of ranks included)."""
    search = a_search(0.1, rank=rank)
    outer = search._draw(4000)
    maps = outer.queries if rank is None else outer.queries @ outer.keys.swapaxes(1, 2)
    assert np.mean(np.sum(maps**2, axis=(1, 2))) == pytest.approx(1.0, rel=0.02 if rank is None else 0.08)
    assert rank is None or outer.values.shape == (4000, 4, 2)


def test_effort_follows_the_size_of_the_problem():
    small_search = a_search(0.1, restarts=None, candidates=None)
    assert small_search.restarts == 40 and small_search._candidates(2) == 64
    large = a_search(0.1, restarts=None, candidates=None, heads=64)
    large.problem.rows, large.problem.width = Rows(jnp.asarray(1e6), jnp.asarray(1.0)), (65, 64, 64)
    assert large.restarts == 3 and large._candidates(64) == 4


@pytest.mark.slow
def test_replacing_heads_succeeds_at_least_as_often_as_not():
    """(8, 4, 16, 20) at logits of standard deviation 4, from the same starts; 0.7 of single starts succeed."""
    options = {"heads": 4, "restarts": 1, "query_bias": False, "offset": False, "noise": 0.0}
    found = {0: [], 8: []}
    for seed in range(2):
        _, given = small.both(seed, (8, 4, 16, 20), logit_std=4.0)
        ends = {resets: small.learned(given, seed, resets=resets, **options) for resets in found}
        first, second = (small.figures(end, "search")["runs"][0] for end in ends.values())
        assert first == second
        for resets, end in ends.items():
            found[resets].append(end.status is Status.LEARNED)
    assert sum(found[8]) >= sum(found[0])
