"""The last fit: candidates in order, judged on rows that no fit read."""

import numpy as np
import pytest

from attnlearn._progress import listening
from attnlearn.learners.sculpting import LeastSquares
from attnlearn.learners.sculpting.rows import Rows, relative_error
from tests.learners.sculpting import small


@pytest.fixture(scope="module")
def problem():
    """Rows to fit, rows held out, and the true matrices of a small layer."""
    examples = small.drawn(2, 3, 4, 3.0, 150, 0)
    X, Y = np.asarray(examples.X), np.asarray(examples.Y)
    order = np.random.default_rng(0).permutation(600)
    return Rows.of(X, Y, order[:400]), Rows.of(X, Y, order[400:]), small.qk(examples)


def far(heads=2, d=3):
    """Matrices whose gradient vanishes: saturated beyond all rounding."""
    return np.full((heads, d, d), 1e4)


def test_the_first_candidate_that_meets_the_target_ends_the_search(problem):
    fit, held_out, thetas = problem
    tried = []
    with listening(lambda stage, done, total: tried.append((stage, done, total))):
        candidates = [("far", far()), ("near", thetas + 0.05), ("exact", thetas)]
        found = LeastSquares()(fit, held_out, candidates, 1e-9)
    assert found.start == "near" and found.error < 1e-9
    assert tried == [("least squares", 0, 3), ("least squares", 1, 3)]
    assert found.error == relative_error(held_out, found.fitted.thetas, found.fitted.W)


def test_without_a_hit_the_best_on_held_out_rows_is_kept(problem):
    fit, held_out, thetas = problem
    found = LeastSquares(steps=1)(fit, held_out, [("far", far()), ("near", thetas + 0.05)], 0.0)
    assert found.start == "near" and 1e-9 < found.error < 0.2


def test_the_last_fit_reads_all_its_rows(problem):
    """Under noise the error falls with the root of the rows, here from 100 to 400 by a factor of 2 or more."""
    fit, held_out, thetas = problem
    noisy = fit._replace(Y=fit.Y + 0.01 * np.random.default_rng(1).standard_normal(fit.Y.shape))
    few, more = (LeastSquares(rows, 100)(noisy, held_out, [("", thetas)], 0.1) for rows in (100, 400))
    assert more.error < few.error / 1.5
    # where all rows are searched already, there is no further fit
    same = LeastSquares(400, 400)(noisy, held_out, [("", thetas)], 0.1)
    assert same.error == pytest.approx(more.error, rel=1e-3)


def test_random_candidates_are_gaussian_directions_of_norm_one():
    found = list(LeastSquares(restarts=40).random(2, 5, np.random.default_rng(0)))
    assert [name for name, _ in found] == [f"random start {n}" for n in range(1, 41)]
    thetas = np.array([one for _, one in found]).reshape(80, 25)
    assert np.abs(np.linalg.norm(thetas, axis=1) - 1).max() < 1e-14
    # The mean of 80 unit vectors has norm 80**-.5 = .11 on average; .2 has a probability below 1e-9.
    assert np.linalg.norm(thetas.mean(axis=0)) < 0.2
    assert list(LeastSquares(restarts=0).random(2, 5, np.random.default_rng(0))) == []


@pytest.mark.parametrize(
    "name, value, least", [("rows", 0, 1), ("search_rows", 0, 1), ("steps", 0, 1), ("restarts", -1, 0)]
)
def test_wrong_fields_are_refused(name, value, least):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least {least}, got {value}"):
        LeastSquares(**{name: value})
