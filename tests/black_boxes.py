"""Black boxes that are no attention layers, or bad ones, and what the stages of the query learner start from."""

import numpy as np

import attnlearn as al
from attnlearn.learners.queries.atoms import Atoms
from attnlearn.learners.queries.directions import Directions
from attnlearn.learners.queries.probing import Affine, Box, Values

WIDTH = 16


def box_of(layer, **options):
    return Box(al.oracles.from_layer(layer), **options)


def affine_of(layer):
    """What the first stage finds, from the truth."""
    return Affine(layer.offset, layer.ov.sum(axis=0), layer.slots.mask is not None)


def atoms_of(layer, v0):
    return Atoms(v0, v0 @ layer.ov, np.ones(layer.heads), 1.0, 0.0, 0)


def directions_of(layer, v0):
    return Directions(layer.qk @ v0, layer.query_bias @ v0, layer.width, 0)


def values_of(layer):
    ranks = tuple(int(np.linalg.matrix_rank(w)) for w in layer.ov)
    sizes = np.linalg.norm(layer.qk, axis=(1, 2)).max(), np.linalg.norm(layer.query_bias, axis=1).max()
    return Values(layer.ov, ranks, 1e-15, *map(float, sizes), np.linalg.svd(layer.ov, compute_uv=False))


def answers(layer):
    """The layer as a plain function of arrays (n, k, d)."""
    return al.oracles.from_layer(layer)._fn


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def weighting(layer, weights):
    """The layer with another function from its scores (n, m, k, k) to its weights."""

    def answer(X):
        scores = (
            np.einsum("nad,mde,nbe->nmab", X, layer.qk, X) + np.einsum("me,nbe->nmb", layer.query_bias, X)[:, :, None]
        )
        return np.einsum("nmab,nbd,mde->nae", weights(scores), X, layer.ov) + layer.offset

    return answer


def slowly_hardening(scores):
    """Softmax of the signed logarithm of the scores' differences from a token's score of itself."""
    apart = scores - np.diagonal(scores, axis1=-2, axis2=-1)[..., None]
    return softmax(np.sign(apart) * np.log1p(np.abs(apart)))


def layer_norm(X):
    return (X - X.mean(axis=-1, keepdims=True)) / np.sqrt(X.var(axis=-1, keepdims=True) + 1e-5)


def network(width_out=WIDTH):
    """A token-wise network with one hidden layer."""
    key = np.random.default_rng(5)
    inner, outer = key.standard_normal((WIDTH, 20)), key.standard_normal((20, width_out))
    return lambda X: np.tanh(X @ inner) @ outer


def window(answer, tokens):
    """Every token sees the first `tokens` - 1 tokens and itself."""

    def forgetful(X):
        start, later = X[:, : tokens - 1], range(tokens, X.shape[1])
        rows = [answer(np.concatenate([start, X[:, i : i + 1]], axis=1))[:, -1:] for i in later]
        return np.concatenate([answer(X[:, :tokens]), *rows], axis=1)

    return forgetful


def counting(answer, sequences, then):
    """`answer`, and `then()` in its place once that many sequences have been asked; `asked` is the count."""

    def counted(X):
        counted.asked += len(X)
        return then() if counted.asked > sequences else answer(X)

    counted.asked = 0
    return counted


def edited(layer, edit):
    """A copy of the layer after `edit(qk, ov, query_bias)` has changed the three arrays in place."""
    qk, ov, query_bias = layer.qk.copy(), layer.ov.copy(), layer.query_bias.copy()
    edit(qk, ov, query_bias)
    return al.AttentionLayer(qk, ov, query_bias, layer.offset, layer.slots)
