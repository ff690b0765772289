"""The coordinates change no circuit."""

import jax
import numpy as np
import planted
import pytest

from attnlearn.layers.factored import Factored
from attnlearn.learners.queries.coordinates import coordinates


def test_a_change_of_coordinates_leaves_the_circuits_and_has_its_transpose(key):
    factors, X = Factored.of(planted.layer(0, (3, 16, 16), head_dim=4)), key.standard_normal((30, 8, 16))
    here = coordinates(factors, [X])
    for before, after in zip(factors.circuits(), here.at.circuits(), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-12)
    here = here.astype(np.float32)
    values, gradient = (jax.tree.map(lambda a: key.standard_normal(a.shape).astype("f"), factors) for _ in range(2))
    pushed, pulled = here.embed(values), here.restrict(gradient)
    one = sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(pushed), jax.tree.leaves(gradient), strict=True))
    other = sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(values), jax.tree.leaves(pulled), strict=True))
    assert one == pytest.approx(other, rel=1e-4)  # sums of hundreds of products in single precision
