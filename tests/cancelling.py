"""What layers whose heads nearly cancel hide, for the tests of the layers and of what follows from them."""

import itertools

import numpy as np


def hidden(planted, X):
    return outputs(planted.layer(), X) - outputs(planted.common(), X)


def outputs(layer, X):
    """In NumPy: every layer here has other shapes, and JAX would compile each."""
    scores = X[:, None] @ layer.qk @ X[:, None].swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True) @ X[:, None] @ layer.ov).sum(axis=1)


def corners(k, d):
    """Every sequence of k tokens on the cube."""
    return np.array(list(itertools.product([-1.0, 1.0], repeat=k * d))).reshape(-1, k, d)
