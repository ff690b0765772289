"""The questions that a polish asks."""

import jax
import numpy as np
import planted
import pytest

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.factored import Factored
from attnlearn.layers.products import linearise
from attnlearn.learners.queries.design import design, scale, sequences, unknowns

WIDTH, TOKENS, RANK = 12, 6, 3


def test_the_design_asks_for_scores_of_the_wanted_size(key):
    layer = planted.layer(0, (3, WIDTH, WIDTH), head_dim=RANK)
    X = design(layer, 2000, 4, key, logit_std=0.7)
    assert X.shape == (2000, 4, WIDTH)
    np.testing.assert_array_equal(X, X.astype(np.float32))
    queries = np.einsum("nd,mde->nme", X[:, 0], layer.qk) + layer.query_bias
    scores = np.einsum("nme,ne->nm", queries, X[:, 1])
    # The largest of three standard deviations from 2,000 draws: 1.6 % each.
    assert scores.std(axis=0).max() == pytest.approx(0.7, rel=0.1)


def test_the_scale_is_one_for_a_layer_without_scores():
    assert scale(AttentionLayer(np.zeros((2, 3, 3)), np.ones((2, 3, 3)))) == 1.0


@pytest.mark.slow
def test_the_unknowns_are_the_dimension_of_the_layers_of_these_ranks(key):
    shape = AttentionLayer(np.zeros((12, 384, 384)), np.zeros((12, 384, 384)))
    assert unknowns(shape, 32) == 566_016
    assert sequences(shape, [32] * 12, tokens=20, oversampling=1.0) == 74  # 7,680 answers each
    layer = planted.layer(0, (3, WIDTH, WIDTH), head_dim=RANK)
    factors, X = Factored.of(layer), key.standard_normal((12, TOKENS, WIDTH))
    jacobian = linearise(factors, layer.slots, X)
    rows = key.standard_normal((unknowns(layer, RANK) + 20, 12, TOKENS, WIDTH))
    pulled = [np.concatenate([np.ravel(p) for p in jax.tree.leaves(jacobian.transpose(row))]) for row in rows]
    assert np.linalg.matrix_rank(np.array(pulled), tol=1e-6) == unknowns(layer, RANK)
