"""Thin circuits from full ones."""

import numpy as np

from attnlearn.layers.features import Outer
from attnlearn.learners.least_squares.thin import narrowed


def test_narrowed_circuits_are_the_nearest_of_their_rank(key):
    thin = key.standard_normal((3, 6, 2)) @ key.standard_normal((3, 2, 5))
    found = narrowed(Outer(thin), 2)
    # rounding of an SVD of maps of norm about 10
    np.testing.assert_allclose(found.queries @ np.swapaxes(found.keys, 1, 2), thin, rtol=0, atol=1e-12)
    again = narrowed(found, 1)
    left, values, right = np.linalg.svd(thin)
    nearest = values[:, :1, None] * left[:, :, :1] @ right[:, :1]
    np.testing.assert_allclose(again.queries @ np.swapaxes(again.keys, 1, 2), nearest, rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(again.queries, axis=1), np.linalg.norm(again.keys, axis=1), rtol=1e-12)
