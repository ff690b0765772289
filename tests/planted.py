"""Layers and tokens that tests share."""

import numpy as np
from hypothesis import strategies

import attnlearn as al

SEEDS = strategies.integers(0, 2**32 - 1)
SHAPES = strategies.sampled_from([(1, 3, 3), (2, 4, 3), (3, 5, 5)])  # (heads, d, d_out): every shape compiles anew
MASKS = strategies.sampled_from([None, al.Causal()])


def layer(seed, shape=(2, 4, 3), mask=None, head_dim=None):
    """A random layer with query biases and an offset."""
    key = np.random.default_rng(seed)
    heads, d, d_out = shape
    bare = al.random_layer(key, heads, d, d_out, head_dim)
    bias = np.einsum("mde,md->me", bare.qk, key.standard_normal((heads, d)))  # keeps the rank of the QK circuit
    return al.AttentionLayer(bare.qk, bare.ov, bias, key.standard_normal(d_out), al.Slots(mask=mask))


def tokens(seed, d=4, k=5, batch=3):
    return np.random.default_rng(seed).standard_normal((batch, k, d))


def tokens_with_constant(seed, d=4, k=5, batch=3):
    """Tokens and the direction `a` with `a @ x = 1`, a random one."""
    key = np.random.default_rng(seed)
    direction = key.standard_normal(d)
    X = key.standard_normal((batch, k, d))
    X += (1 - X @ direction)[..., None] * direction / (direction @ direction)
    return X, direction
