"""Passes over chunks, here and on executors' workers: the same sums as over everything at once."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from attnlearn._progress import listening
from attnlearn.data.examples import Examples
from attnlearn.learners import _chunks
from attnlearn.learners.sculpting.certificates import WIDEST, edges
from attnlearn.learners.sculpting.crude import moments
from attnlearn.learners.sculpting.passes import Certificates
from tests.learners.sculpting import small

PROBLEM = 1, 4, 4, 4.0, 300, 0


@pytest.fixture(scope="module")
def examples():
    return small.drawn(*PROBLEM)


def same(one: Certificates, other: Certificates) -> bool:
    """The same certificates, in whatever order."""
    kept = [sorted(zip(found.edges.residual, found.edges.share, strict=True)) for found in (one, other)]
    return kept[0] == kept[1] and (one.rows, one.accepted) == (other.rows, other.accepted)


def passes_of(stored, examples, **options):
    """What the two passes give."""
    passes = small.passes(stored, **options)
    return passes.moments(), small.certificates(passes, small.ov_sum(examples), 0.01, 100)


def both(examples, **options):
    return passes_of(examples, examples, **options)


def agree(one, other) -> None:
    """Equal certificates, and sums that are equal up to rounding of some hundred terms."""
    for a, b in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())
    assert same(one[1], other[1])


def test_certificates_are_the_best_edges_of_all_rows(examples):
    X, Z = np.asarray(examples.X), np.asarray(examples.Y) @ np.linalg.pinv(small.ov_sum(examples))
    every = edges(Z, X, small.CUBE)
    W = small.ov_sum(examples)
    found = small.certificates(small.passes(examples, 37), W, 0.01, 100)
    narrow = every.take(np.flatnonzero(every.residual < WIDEST))
    assert found.rows == 1200 and found.accepted == np.sum(every.residual < 0.1)
    assert sorted(found.edges.slack(0.01)) == sorted(narrow.slack(0.01))[:100]
    everything = small.certificates(small.passes(examples), W, 0.01, 10**6)
    assert len(everything.edges.u) == len(narrow.u)


@pytest.mark.parametrize("chunk", [1, 37, 300])
def test_sums_over_chunks_are_those_over_all(examples, chunk):
    whole = moments(np.asarray(examples.X), np.asarray(examples.Y))
    found = both(examples, chunk=chunk)
    agree(found, (whole, both(examples)[1]))


def test_progress_of_a_pass_counts_its_chunks(examples):
    seen = []
    with listening(lambda *report: seen.append(report)):
        small.passes(examples, 100).moments()
    assert seen == [("crude sums", n, 3) for n in (1, 2, 3)]


def test_threads_give_the_same(examples):
    with ThreadPoolExecutor(2) as threads:
        agree(both(examples, chunk=50, executor=threads), both(examples, chunk=50))


@pytest.mark.slow
def test_other_processes_give_the_same(examples):
    one_head = small.drawn(*small.ONE_HEAD)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        agree(both(examples, chunk=100, executor=processes), both(examples, chunk=100))
        found = small.learned(one_head, chunk=300, executor=processes)
    here = small.learned(one_head, chunk=300)
    assert found.status is here.status and np.array_equal(found.layer.qk, here.layer.qk)


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same(examples):
    distributed = pytest.importorskip("distributed", reason="dask is an extra: attnlearn[cluster]")
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
        agree(both(examples, chunk=100, executor=client.get_executor()), both(examples, chunk=100))


class Counting(ThreadPoolExecutor):
    """Counts what has been handed over and not been asked for."""

    waiting = most = 0

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        given = future.result

        def result(timeout=None):
            self.waiting -= 1
            return given(timeout)

        future.result = result
        return future


def test_an_executor_is_not_handed_all_chunks_at_once(examples, monkeypatch):
    monkeypatch.setattr(_chunks, "IN_FLIGHT", 2)
    with Counting(1) as executor:
        agree(both(examples, chunk=20, executor=executor), both(examples, chunk=20))
        assert (executor.most, executor.waiting) == (3, 0)


@pytest.mark.parametrize("name", ["folder", "data.zarr"])
def test_examples_on_disk_give_the_same(examples, tmp_path, name):
    examples.save(tmp_path / name)
    stored = Examples.load(tmp_path / name)
    assert stored.on_disk
    agree(passes_of(stored, examples, chunk=64), both(examples, chunk=64))
    sample = small.passes(stored).sample(10)
    assert np.array_equal(sample.X, examples.X[:10]) and np.array_equal(sample.Y, examples.Y[:10])
