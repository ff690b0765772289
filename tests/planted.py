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


def random_black_box_layer(seed, d, m, head_dim, gain=1.0, width_out=None, biases=True, mask=None):
    """A layer with all four biases whose logits have standard deviation `gain` times `head_dim` ** 0.5 or so.

    Draws in the order W_Q, b_Q, W_K, b_K, W_V, b_V, W_O, b_O: the same seed is the same layer everywhere.
    """
    key = np.random.default_rng(seed)
    n, d_out = m * head_dim, width_out or d
    query = np.sqrt(gain) * key.standard_normal((d, n)) / np.sqrt(d)
    b_Q = 0.3 * key.standard_normal(n)
    keys = np.sqrt(gain) * key.standard_normal((d, n)) / np.sqrt(d)
    key.standard_normal(n)  # b_K, which no answer shows
    value = key.standard_normal((d, n)) / np.sqrt(d)
    b_V = 0.3 * key.standard_normal(n)
    W_O = key.standard_normal((n, d_out)) / np.sqrt(n)
    b_O = 0.3 * key.standard_normal(d_out)
    columns = [by_head(array, m) for array in (query, keys, value)]
    b_Q, b_V = b_Q.reshape(m, head_dim), b_V.reshape(m, head_dim)
    own = {"b_Q": b_Q, "b_V": b_V, "b_O": b_O} if biases else {}
    return al.AttentionLayer.from_qkvo(*columns, W_O.reshape(m, head_dim, d_out), **own, slots=al.Slots(mask=mask))


def by_head(columns, m):
    """(d, m head_dim) as (m, d, head_dim)."""
    return columns.reshape(len(columns), m, -1).swapaxes(0, 1)
