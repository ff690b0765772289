r"""Levenberg–Marquardt on the objective with the coefficients eliminated, each step by conjugate gradients.

The Gauss–Newton operator with Kaufman's projected Jacobian, $H V = J^\top(JV - \Phi A^{-1}\Phi^\top JV/N)/N$ with
$A = \Phi^\top\Phi/N + \mu I$, is the Schur complement of the joint one in $(\theta, W)$, ridge included; the gradient
of the objective is exactly $-2J^\top R/N$. A step solves $(H + \lambda D)x = J^\top R/N$. The ridge falls with the
loss.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from attnlearn.layers.features import Outer
from attnlearn.learners.least_squares.conjugate_gradients import Loop, conjugate_gradients, inner, plus
from attnlearn.learners.least_squares.elimination import Normal, eliminate, normal, solver
from attnlearn.learners.least_squares.passes import Sums

INITIAL_RIDGE, RIDGE_FLOOR = 1e-3, 1e-13
INITIAL_DAMPING, DAMPING_FLOOR, DAMPING_CEILING = 0.1, 1e-10, 1e5
METRIC_FLOOR = 1e-4  # of the mean: a head that hardly counts still moves by finite steps
CG_CAP, LOOSEST, TIGHTEST = 100, 0.1, 1e-3
EXACT_FIT = 1e-20  # squared residual over squared labels
PATIENCE = 5  # accepted steps in a row that gained less than `stall`


class Rows(eqx.Module):
    """The number of rows and their mean squared norm: what sums and losses are divided by."""

    count: jax.Array
    square: jax.Array


class State(NamedTuple):
    """Where a run stands. `loss` and `objective` are relative to the labels' mean square."""

    outer: Outer
    equations: Normal
    ridge: jax.Array
    damping: jax.Array
    growth: jax.Array
    objective: jax.Array
    loss: jax.Array
    slow: jax.Array
    steps: jax.Array
    cg_iterations: jax.Array
    finished: jax.Array


def begin(outer: Outer, at: Callable[[Outer], Sums], rows: Rows) -> State:
    """The state before the first step."""
    zero, one = jnp.zeros((), int), jnp.ones(())
    return State(
        outer=outer,
        equations=normal(at(outer), rows.count),
        ridge=INITIAL_RIDGE * one,
        damping=INITIAL_DAMPING * one,
        growth=2 * one,
        objective=one,
        loss=one,
        slow=zero,
        steps=zero,
        cg_iterations=zero,
        finished=jnp.zeros((), bool),
    )


def advance(
    state: State,
    at: Callable[[Outer], Sums],
    rows: Rows,
    limits: tuple[float | jax.Array, int | jax.Array],
    loop: Loop = jax.lax.while_loop,
) -> State:
    """Steps until the run is finished or has taken so many; `limits` are (stall, steps in all)."""
    stall, most = limits

    def unfinished(state):
        return ~state.finished & (state.steps < most)

    return loop(unfinished, lambda state: _step(state, at, rows, stall, loop), state)


def _step(state: State, at: Callable[[Outer], Sums], rows: Rows, stall, loop: Loop) -> State:
    sums = at(state.outer)
    here = eliminate(sums, state.equations, state.ridge, rows.count)
    x, predicted, iterations = _direction(state, sums, here.W, rows, loop)
    there = plus(state.outer, 1.0, x)
    trial = at(there)
    equations = normal(trial, rows.count)
    after = eliminate(trial, equations, state.ridge, rows.count)
    accepted = jnp.isfinite(after.objective) & (after.objective < here.objective)
    residual = jnp.where(accepted, after.residual, here.residual)
    gain = here.objective - after.objective
    damping, growth = _damping(state, accepted, gain / predicted)
    objective = jnp.where(accepted, after.objective / rows.square, state.objective)
    slow = jnp.where(accepted, jnp.where(gain < stall * after.objective, state.slow + 1, 0), state.slow)
    ridge = jnp.minimum(state.ridge, jnp.maximum(RIDGE_FLOOR, INITIAL_RIDGE * objective))
    outer, equations = jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), (there, equations), (state.outer, state.equations)
    )
    return State(
        outer,
        equations,
        jnp.where(accepted, ridge, state.ridge),
        damping,
        growth,
        objective,
        residual / rows.square,
        slow,
        state.steps + 1,
        state.cg_iterations + iterations,
        (residual < EXACT_FIT * rows.square) | (slow >= PATIENCE) | (damping > DAMPING_CEILING),
    )


def _direction(state: State, sums, W, rows: Rows, loop: Loop) -> tuple[Outer, jax.Array, jax.Array]:
    """The step, the decrease that the quadratic model predicts for it, and the iterations that it took."""
    solve = solver(state.equations, state.ridge)
    gradient, squares = sums.gradient(W)
    gradient = _scaled(gradient, 1 / rows.count)
    metric = _metric(squares, rows.count)

    inverse = solve(jnp.eye(len(W)) / rows.count)  # one product an iteration instead of two triangular solves

    def damped(V):
        curved = sums.curvature(W, V, lambda pushed: inverse @ pushed)
        return jax.tree.map(lambda h, d, v: h / rows.count + state.damping * d * v, curved, metric, V)

    def precondition(V):
        return jax.tree.map(lambda v, d: v / ((1 + state.damping) * d), V, metric)

    tolerance = jnp.clip(jnp.sqrt(state.objective), TIGHTEST, LOOSEST)
    x, iterations = conjugate_gradients(damped, gradient, precondition, (tolerance, CG_CAP), loop)
    predicted = inner(x, jax.tree.map(lambda g, d, v: g + state.damping * d * v, gradient, metric, x))
    return x, predicted, iterations


def _metric(squares: Outer, rows: jax.Array) -> Outer:
    """Mean squared sensitivity of the outputs to each column of each head's parameters: the damping's units."""
    columns = jax.tree.map(lambda square: jnp.mean(square / rows, axis=1, keepdims=True), squares)
    return jax.tree.map(lambda column: column + METRIC_FLOOR * jnp.mean(column), columns)


def _damping(state: State, accepted: jax.Array, ratio: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Nielsen's rule: less after a step that the model predicted well, ever more after rejected ones."""
    less = jnp.maximum(DAMPING_FLOOR, state.damping * jnp.maximum(0.2, 1 - (2 * ratio - 1) ** 3))
    damping = jnp.where(accepted, less, state.damping * state.growth)
    return damping, jnp.where(accepted, 2.0, 2 * state.growth)


def _scaled(tree: Outer, factor: jax.Array) -> Outer:
    return jax.tree.map(lambda x: x * factor, tree)
