r"""The coefficients $W$ that are best at a point $\theta$, and the objective that is left when they are eliminated.

$$f(\theta) = \min_W \|Y - \Phi W\|^2/N + \mu\|W\|^2$$

By normal equations with one step of iterative refinement from the true residual, which takes away their rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from attnlearn.learners.least_squares.passes import Matrix, Sums


class Normal(NamedTuple):
    r"""$\Phi^\top\Phi/N$ and $\Phi^\top Y/N$."""

    gram: Matrix
    cross: Matrix


class Eliminated(NamedTuple):
    """`W`, the mean squared residual norm of a row, and the objective with the ridge."""

    W: Matrix
    residual: jax.Array
    objective: jax.Array


def normal(sums: Sums, rows: float | jax.Array) -> Normal:
    """The normal equations at a point, for `rows` rows."""
    gram, cross = sums.normal()
    return Normal(jnp.asarray(gram) / rows, jnp.asarray(cross) / rows)


def solver(equations: Normal, ridge: float | jax.Array) -> Callable[[Matrix], Matrix]:
    r"""$B \mapsto (\Phi^\top\Phi/N + \mu I)^{-1}B$; NaN where the matrix is not positive."""
    factor = jnp.linalg.cholesky(equations.gram + ridge * jnp.eye(len(equations.gram)))
    return lambda B: jax.scipy.linalg.cho_solve((factor, True), B)


def eliminate(sums: Sums, equations: Normal, ridge: float | jax.Array, rows: float | jax.Array) -> Eliminated:
    """The best coefficients at a point with their objective; everything NaN where the features are too singular."""
    solve = solver(equations, ridge)
    first = solve(equations.cross)
    cross, squares = sums.refine(first)
    cross = cross / rows
    change = solve(cross - ridge * first)
    W = first + change
    # the residual of W from that of `first`; exact where they agree, and never a difference of large sums
    residual = squares / rows - 2 * jnp.sum(change * cross) + jnp.sum(change * (equations.gram @ change))
    return Eliminated(W, residual, residual + ridge * jnp.sum(W * W))


def finish(sums: Sums, equations: Normal, ridge: float | jax.Array, rows: float | jax.Array) -> Eliminated:
    """The coefficients without the ridge's bias: one more refinement with the plain residual."""
    W = eliminate(sums, equations, ridge, rows).W
    W = W + solver(equations, ridge)(sums.refine(W)[0] / rows)
    residual = sums.refine(W)[1] / rows
    return Eliminated(W, residual, residual)
