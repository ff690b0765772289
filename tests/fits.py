"""Least squares by Gauss and Newton's steps with a dense Jacobian, for tests that want a fit and no learner."""

import numpy as np

import attnlearn as al
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.jacobian import Jacobian
from attnlearn.data.examples import Examples


def noisy(layer, X, sigma, seed=0, mask=None):
    """Examples of the layer with Gaussian noise."""
    Y = layer(X, mask)
    return Examples(X, Y + sigma * np.random.default_rng(seed).standard_normal(Y.shape), mask)


def dense(layer, examples, unknowns=Unknowns()):
    """J with its matrix, and the residual in its order."""
    jacobian = Jacobian(layer, examples.inputs, unknowns)
    return jacobian, jacobian.dense(), jacobian.residual(examples.targets)


def circuits(layer):
    return layer.qk, layer.ov, layer.query_bias, layer.offset


def displaced(layer, coordinates, vector):
    """The layer with its unknown parameters moved by a vector of coordinates."""
    change = coordinates.circuits(vector[None])
    parts = zip(circuits(layer), change, strict=True)
    return al.AttentionLayer(*(old + new[0] for old, new in parts), layer.slots)


def hessian(layer, examples, unknowns=Unknowns(), step=1e-4):
    """Of half the squared error, all circuits of full rank: central differences of its gradient; errors about 1e-8."""
    coordinates = Jacobian(layer, examples.inputs, unknowns).coordinates

    def gradient(vector):
        _, matrix, residual = dense(displaced(layer, coordinates, vector), examples, unknowns)
        return matrix.T @ residual

    steps = step * np.eye(coordinates.size)
    return np.stack([(gradient(one) - gradient(-one)) / (2 * step) for one in steps])


def fitted(start, examples, unknowns=Unknowns(), steps=4):
    """Least squares from a start near the answer."""
    layer = start
    for _ in range(steps):
        jacobian, matrix, residual = dense(layer, examples, unknowns)
        layer = displaced(layer, jacobian.coordinates, -np.linalg.lstsq(matrix, residual, rcond=None)[0])
    return layer
