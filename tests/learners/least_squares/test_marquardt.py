"""Steps of Levenberg and Marquardt: what never rises, what never grows, and what a step was promised to gain."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attnlearn._types import float64
from attnlearn.learners.least_squares import marquardt
from attnlearn.learners.least_squares.conjugate_gradients import inner, plus
from attnlearn.learners.least_squares.elimination import eliminate
from attnlearn.learners.least_squares.marquardt import Rows, advance, begin
from attnlearn.learners.least_squares.passes import BatchSums
from attnlearn.learners.least_squares.problem import Resident
from tests.learners.least_squares import small

SIZES = 3, 2, 5, 12


def a_problem(noise=0.0):
    layer = small.planted(0, SIZES, logit_std=2.0)
    form, batch = small.batch_of(small.examples(layer, small.tokens(0, SIZES), noise))
    return Resident(form, batch)


@pytest.mark.slow
@float64
def test_the_objective_never_rises_and_the_ridge_never_grows(key):
    problem = a_problem()

    def at(outer):
        return BatchSums(problem.form, problem.batch, outer)

    step = jax.jit(lambda state: advance(state, at, problem.rows, (1e-2, state.steps + 1)))
    state = jax.jit(lambda outer: begin(outer, at, problem.rows))(small.random_outer(key, problem.batch))
    states = [state]
    while not state.finished and state.steps < 60:
        state = step(state)
        states.append(state)
    assert len(states) > 5
    for old, new in pairwise(states):
        assert new.steps == old.steps + 1
        # The objective falls with the ridge too, so never rises at all.
        assert new.objective <= old.objective
        assert new.ridge <= old.ridge
        if new.damping > old.damping:  # rejected
            assert new.objective == old.objective and new.ridge == old.ridge and new.growth == 2 * old.growth
            np.testing.assert_array_equal(new.outer.queries, old.outer.queries)
        else:
            assert new.ridge == min(old.ridge, max(1e-13, 1e-3 * float(new.objective)))
            assert new.damping >= 0.2 * old.damping and new.growth == 2
    assert state.finished


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [2, 15])
@float64
def test_the_predicted_decrease_is_that_of_the_quadratic_model(key, iterations, monkeypatch):
    monkeypatch.setattr(marquardt, "CG_CAP", iterations)
    monkeypatch.setattr(marquardt, "TIGHTEST", 0.0)
    monkeypatch.setattr(marquardt, "LOOSEST", 0.0)
    problem = a_problem()
    rows: Rows = problem.rows

    def at(outer):
        return BatchSums(problem.form, problem.batch, outer)

    @jax.jit
    def figures(outer):
        state, sums = begin(outer, at, rows), at(outer)
        W = eliminate(sums, state.equations, state.ridge, rows.count).W
        x, predicted, taken = marquardt._direction(state, sums, W, rows, jax.lax.while_loop)
        gradient = jax.tree.map(lambda g: g / rows.count, sums.gradient(W)[0])
        solve = marquardt.solver(state.equations, state.ridge)
        curved = sums.curvature(W, x, lambda pushed: solve(pushed / rows.count))
        return predicted, 2 * inner(x, gradient) - inner(x, curved) / rows.count, taken

    predicted, wanted, taken = figures(small.random_outer(key, problem.batch))
    assert taken == iterations
    assert predicted == pytest.approx(float(wanted), rel=1e-12)


@pytest.mark.slow
@float64
def test_a_run_ends_at_an_exact_fit_and_where_nothing_is_finite_at_infinity(key):
    problem = a_problem()
    outer = small.random_outer(key, problem.batch)
    fits = [problem.run(small.random_outer(key, problem.batch), 1e-6, 80) for _ in range(6)]
    best = min(fits, key=lambda fit: fit.loss)
    assert best.loss < 1e-18 and best.steps < 80
    # The objective at the end is the lowest; relative to the labels, and with the ridge of selection.
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), outer, best.outer, plus(outer, jnp.nan, outer))
    objectives = problem.objectives(stack)
    assert objectives[1] < 1e-4 < objectives[0] < 1 and objectives[2] == np.inf
    lost = problem.run(plus(outer, np.nan, outer), 1e-2, 80)
    assert lost.loss == np.inf and lost.steps < 80
