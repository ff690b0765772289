"""Preconditioned conjugate gradients on trees of arrays, from zero."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any
Loop = Callable[[Callable, Callable, Any], Any]


def eagerly(condition: Callable, body: Callable, state: Any) -> Any:
    """`jax.lax.while_loop` in Python, for bodies that leave the device."""
    while condition(state):
        state = body(state)
    return state


def inner(a: Tree, b: Tree) -> jax.Array:
    """Sum of products over all entries of two trees."""
    return jax.tree.reduce(operator.add, jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))


def plus(a: Tree, scale: Any, b: Tree) -> Tree:
    """`a + scale * b`."""
    return jax.tree.map(lambda x, y: x + scale * y, a, b)


class _State(NamedTuple):
    x: Tree
    residual: Tree
    direction: Tree
    squared: jax.Array  # the residual in the norm of the preconditioner
    iteration: jax.Array


def conjugate_gradients(
    operate: Callable[[Tree], Tree],
    right: Tree,
    precondition: Callable[[Tree], Tree],
    stopping: tuple[Any, Any],
    loop: Loop = jax.lax.while_loop,
) -> tuple[Tree, jax.Array]:
    r"""Solves $Hx = b$ for a symmetric positive `operate`; returns $x$ and the number of iterations.

    `stopping` is (tolerance, most iterations): it ends when $\langle r, M^{-1}r\rangle \le \tau^2\langle b,
    M^{-1}b\rangle$. Since it starts at zero, $\langle x, r\rangle = 0$ at every iterate.
    """
    tolerance, most = stopping
    first = precondition(right)
    start = inner(right, first)

    def unfinished(state):
        return (state.squared > tolerance**2 * start) & (state.iteration < most)

    def step(state):
        image = operate(state.direction)
        length = state.squared / inner(state.direction, image)
        residual = plus(state.residual, -length, image)
        conditioned = precondition(residual)
        squared = inner(residual, conditioned)
        direction = plus(conditioned, squared / state.squared, state.direction)
        return _State(plus(state.x, length, state.direction), residual, direction, squared, state.iteration + 1)

    zero = jax.tree.map(jnp.zeros_like, right)
    last = loop(unfinished, step, _State(zero, right, first, start, jnp.zeros((), int)))
    return last.x, last.iteration
