"""The Jacobian in chosen parameters: central differences, adjoint, absent rows, circuits of known rank."""

import jax
import numpy as np
import planted
import pytest

import attnlearn as al
from attnlearn.certify.coordinates import Coordinates, Unknowns
from attnlearn.certify.jacobian import Jacobian, Spectrum
from attnlearn.layers.inputs import Inputs
from attnlearn.layers.products import Circuits

SUBSETS = [("qk", "ov"), ("ov", "offset"), ("query_bias",), ("offset",), ("qk", "ov", "query_bias", "offset")]


def inputs(rows="all", seed=3):
    present = np.ones((3, 5), bool)
    present[1, 3:] = False
    return Inputs(planted.tokens(seed), present, rows)


def moved(layer, change, step):
    parts = zip((layer.qk, layer.ov, layer.query_bias, layer.offset), change, strict=True)
    return al.AttentionLayer(*(old + step * new[0] for old, new in parts), layer.slots)


@pytest.mark.parametrize("free", SUBSETS)
def test_push_equals_central_differences_where_an_answer_is_observed(free, key):
    layer, given = planted.layer(0), inputs()
    jacobian = Jacobian(layer, given, Unknowns(free))
    vector = key.standard_normal((1, jacobian.parameters))
    change = jacobian.coordinates.circuits(vector)
    h = 1e-5
    plus, minus = (moved(layer, change, s)(given.X, given.present) for s in (h, -h))
    twin = ((plus - minus) / (2 * h))[given.present].ravel()
    assert jacobian.outputs == twin.size == 13 * 3
    np.testing.assert_allclose(jacobian.push(vector)[0], twin, atol=1e-8)  # h^2 of truncation, 1e-16 / h of rounding


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["all", "last", "mean"])
def test_push_pull_and_matrix_agree(rows, key):
    jacobian = Jacobian(planted.layer(0), inputs(rows))
    matrix = jacobian.dense()
    v, u = key.standard_normal((2, jacobian.parameters)), key.standard_normal((2, jacobian.outputs))
    np.testing.assert_allclose(jacobian.push(v), v @ matrix.T, atol=1e-12)  # rounding of sums of 60 terms
    np.testing.assert_allclose(jacobian.pull(u), u @ matrix, atol=1e-12)


@pytest.mark.parametrize("free", SUBSETS)
def test_coordinates_are_orthonormal(free, key):
    layer = planted.layer(0, (2, 4, 3), head_dim=2)
    for head_dim in (None, 2):
        coordinates = Coordinates(layer, Unknowns(free, head_dim))
        back = coordinates.vectors(coordinates.circuits(np.eye(coordinates.size)))
        np.testing.assert_allclose(back, np.eye(coordinates.size), atol=1e-14)


def test_low_rank_coordinates_are_the_tangents_of_the_factors(key):
    """r (2d + 1 - r) directions of [qk; query_bias] and r (d + d_out - r) of ov, spanned by dQ K' + Q dK'."""
    layer = planted.layer(0, (2, 4, 3), head_dim=2)
    coordinates = Coordinates(layer, Unknowns(head_dim=2))
    assert coordinates.size == 2 * 2 * (9 - 2) + 2 * 2 * (7 - 2) + 3
    at = al.Factored.of(layer, 2)
    ends = jax.tree.map(lambda array: key.standard_normal(array.shape), at)
    h = 1e-6
    lines = [jax.tree.map(lambda a, b, s=s: a + s * b, at, ends).circuits() for s in (h, -h)]
    qk, ov, bias, offset = ((a - b) / (2 * h) for a, b in zip(*lines, strict=True))
    tangent = Circuits(qk[None], ov[None], bias[None], offset[None])
    again = coordinates.circuits(coordinates.vectors(tangent))
    for part, twin in zip(again, tangent, strict=True):
        np.testing.assert_allclose(part, twin, atol=1e-8)  # h^2 of truncation, 1e-16 / h of rounding


def test_refuses_a_rank_that_the_layer_exceeds():
    with pytest.raises(ValueError, match="head_dim=2, but a circuit has a higher rank"):
        Coordinates(planted.layer(0), Unknowns(head_dim=2))


def test_unknowns_must_be_named():
    with pytest.raises(ValueError, match="free must name some of qk, ov, query_bias, offset, each once"):
        Unknowns(("keys",))
    with pytest.raises(ValueError, match="head_dim must be at least 1"):
        Unknowns(head_dim=0)


@pytest.mark.parametrize("shape, twins", [((7, 4), True), ((3, 5), True), ((9, 4), False)])
def test_spectrum_solves_least_squares_and_splits_off_the_null_space(shape, twins, key):
    matrix = key.standard_normal(shape)
    matrix[:, 0] = matrix[:, 1] if twins else matrix[:, 0]
    spectrum = Spectrum(matrix)
    assert spectrum.rank == np.linalg.matrix_rank(matrix) and spectrum.nullity == shape[1] - spectrum.rank
    u = key.standard_normal((2, shape[0]))
    np.testing.assert_allclose(spectrum.solve(u), u @ np.linalg.pinv(matrix).T, atol=1e-12)
    np.testing.assert_allclose(spectrum.null @ matrix.T, 0, atol=1e-12)
