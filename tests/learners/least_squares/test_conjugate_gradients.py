"""Conjugate gradients against dense algebra, stopped early too."""

import jax.numpy as jnp
import numpy as np
import pytest

from attnlearn._types import float64
from attnlearn.learners.least_squares.conjugate_gradients import conjugate_gradients, eagerly, inner, plus

SIZE = 20


def a_system(key, condition=10.0):
    """A positive matrix, its right side as a tree of two leaves, and a diagonal for preconditioning."""
    vectors = np.linalg.qr(key.standard_normal((SIZE, SIZE)))[0]
    H = (vectors * np.geomspace(1, condition, SIZE)) @ vectors.T
    return H, split(key.standard_normal(SIZE)), split(np.diag(H))


def split(vector):
    return [jnp.asarray(vector[:5]), jnp.asarray(vector[5:]).reshape(5, 3)]


def joined(tree):
    return np.concatenate([np.ravel(leaf) for leaf in tree])


def solved(H, right, diagonal, stopping, **options):
    def precondition(r):
        return [x / d for x, d in zip(r, diagonal, strict=True)]

    x, iterations = conjugate_gradients(lambda v: split_product(H, v), right, precondition, stopping, **options)
    return joined(x), int(iterations)


def split_product(H, tree):
    image = jnp.asarray(H) @ jnp.concatenate([jnp.ravel(leaf) for leaf in tree])
    return [image[:5], image[5:].reshape(5, 3)]


@float64
def test_the_solution_is_that_of_dense_algebra(key):
    H, right, diagonal = a_system(key)
    x, iterations = solved(H, right, diagonal, (1e-10, 100))
    # A residual of 1e-10 in the preconditioned norm, times the condition in the error.
    np.testing.assert_allclose(x, np.linalg.solve(H, joined(right)), rtol=0, atol=1e-9 * np.linalg.norm(x))
    assert iterations <= SIZE + 2  # exact in SIZE steps but for rounding
    assert solved(H, right, diagonal, (0.1, 100))[1] < iterations


@float64
@pytest.mark.parametrize("most", [2, 15])
def test_stopped_early_the_iterate_is_orthogonal_to_its_residual(key, most):
    H, right, diagonal = a_system(key)
    x, iterations = solved(H, right, diagonal, (0.0, most))
    b = joined(right)
    assert iterations == most
    assert abs(x @ (b - H @ x)) < 1e-12 * np.linalg.norm(x) * np.linalg.norm(b)
    # So the decrease of the quadratic model, 2<x, b> - <x, Hx>, is <x, b>.
    assert 2 * x @ b - x @ H @ x == pytest.approx(x @ b, rel=1e-12)


@float64
def test_the_loop_in_python_takes_the_same_steps(key):
    H, right, diagonal = a_system(key)
    compiled, n = solved(H, right, diagonal, (1e-3, 100))
    plain, also = solved(H, right, diagonal, (1e-3, 100), loop=eagerly)
    assert n == also
    np.testing.assert_allclose(plain, compiled, rtol=0, atol=1e-10)


@float64
def test_nothing_is_done_for_a_zero_right_side(key):
    H, right, diagonal = a_system(key)
    x, iterations = solved(H, [0 * leaf for leaf in right], diagonal, (1e-3, 100))
    assert iterations == 0
    np.testing.assert_array_equal(x, 0.0)


def test_trees_are_added_and_multiplied_leaf_by_leaf():
    a, b = {"x": jnp.ones(3), "y": jnp.ones((2, 2))}, {"x": jnp.full(3, 2.0), "y": jnp.full((2, 2), 3.0)}
    assert inner(a, b) == 6 + 12
    np.testing.assert_array_equal(plus(a, 2.0, b)["y"], np.full((2, 2), 7.0))
