r"""What few token types leave open where each score has its own weight: every pair of types shows one answer.

With linearly independent tokens (one-hot) the scores $s_h(i, j)$ of type $i$ for type $j$ are free numbers. A row that
sees $v$ tokens, $n_j$ of type $j$, answers $c + \sum_j n_j \sum_h \varphi_v(s_h(i, j))\,W_h^\top x_j$, so for each key
type $j$ and each $v \ge 2$ the matrix

$$\sum_h \varphi_v(s_h(\cdot, j))\,(W_h^\top x_j)^\top + 1 c^\top / v$$

is seen and nothing else (for $v = 1$ its row $i = j$). For one $v$ it is a product of a (types, m) and an
(m, d_out) matrix, and any invertible (m, m) matrix may stand between the two: $m^2$ directions a key type where
$m \le \min(d, d_{out})$. In general the null space of each key type's derivative is taken as it is.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn.certify.families import Family, zeros
from attnlearn.certify.support import Types
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.inputs import Numbers
from attnlearn.layers.products import Circuits

BLOCK_TOLERANCE = 1e-9  # of the largest singular value of a key type's derivative: what is smaller counts as zero


def token_types(layer: AttentionLayer, types: Types, counts: tuple[int, ...]) -> tuple[Family, Family]:
    """Changes of scores and values that cancel within each key type, and those that cancel an offset."""
    weights = _all_weights(layer, types, counts)
    blocks = [_derivative(layer, types, weights, key) for key in range(len(types.keys))]
    scale = max(np.linalg.norm(block, 2) for block, _ in blocks)
    nulls, inverses, hidden = [], [], []
    for block, constants in blocks:
        left, values, rows = np.linalg.svd(block, full_matrices=True)
        rank = int(np.sum(values > BLOCK_TOLERANCE * scale))
        nulls.append(rows[rank:])
        inverses.append((rows[:rank].T / values[:rank]) @ (left[:, :rank].T @ constants))
        hidden.append(constants - left[:, :rank] @ (left[:, :rank].T @ constants))
    _, values, rows = np.linalg.svd(np.concatenate(hidden), full_matrices=True)
    offsets = rows[int(np.sum(values > BLOCK_TOLERANCE)) :]
    embed = _Embedding(layer, types)
    sizes = np.cumsum([0, *(len(null) for null in nulls)])

    def mixed(coefficients):
        parts = [coefficients[a:b] @ null for a, b, null in zip(sizes[:-1], sizes[1:], nulls, strict=True)]
        return embed(np.array(parts), np.zeros(layer.width_out))

    def compensated(coefficients):
        offset = coefficients @ offsets
        return embed(-np.array([inverse @ offset for inverse in inverses]), offset)

    heads = tuple(range(layer.heads))
    taken = "offset + c, where the values of every key type can take c up"
    mixing = "scores and ov rows of one key type, with the sum over heads of weight times value unchanged"
    return (
        Family("token type", mixing, heads, int(sizes[-1]), mixed),
        Family("token offset", taken, heads, len(offsets), compensated),
    )


Weights = dict[int, tuple[Float[np.ndarray, "heads i j"], Float[np.ndarray, "heads i j"]]]


def _derivative(
    layer: AttentionLayer, types: Types, weights: Weights, key: int
) -> tuple[Float[np.ndarray, "rows unknowns"], Float[np.ndarray, "rows d_out"]]:
    """The derivative of answers (v, asking type) in a key type's scores (head, asking type) and values (head, d_out).

    With it that in the offset. `weights`: by the number of visible tokens v, the weights and their slopes.
    """
    values = types.keys[key] @ layer.ov
    itself = np.all(types.queries[:, :-1] == types.keys[key], axis=1)
    asking, d_out = len(types.queries), layer.width_out
    rows, constants = [], []
    for v, (weight, slope) in weights.items():
        by_score = np.einsum("hi,ho,il->iohl", slope[:, :, key], values, np.eye(asking)).reshape(asking, d_out, -1)
        by_value = np.einsum("hi,op->iohp", weight[:, :, key], np.eye(d_out)).reshape(asking, d_out, -1)
        shown = np.ones(asking, bool) if v > 1 else itself
        row = np.concatenate([by_score, by_value], axis=2)[shown]
        rows.append(row.reshape(-1, row.shape[2]))
        constants.append(np.tile(np.eye(d_out) / v, (shown.sum(), 1)))
    return np.concatenate(rows), np.concatenate(constants)


def _all_weights(layer: AttentionLayer, types: Types, counts: tuple[int, ...]) -> Weights:
    """For each number of visible tokens: what a token gives to another of some type, and its slope in the score."""
    circuits = np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)
    scores = types.queries @ circuits @ types.keys.T
    found = {v: _weights(layer.slots.normaliser, scores, v) for v in counts}
    return {v: (np.asarray(weight), np.asarray(slope)) for v, (weight, slope) in found.items()}


@eqx.filter_jit
def _weights(
    normaliser: Callable[..., Any], scores: Float[Numbers, "heads i j"], v: int
) -> tuple[jax.Array, jax.Array]:
    def weight(score):
        row = jnp.broadcast_to(score[..., None], (*score.shape, v))
        return normaliser(row, jnp.ones(row.shape, bool))[..., 0]

    return jax.jvp(weight, (jnp.asarray(scores),), (jnp.ones(scores.shape, scores.dtype),))


class _Embedding:
    """From changes at token types to changes of the circuits."""

    def __init__(self, layer: AttentionLayer, types: Types):
        self.layer, self.asking = layer, len(types.queries)
        self.queries, self.keys = np.linalg.pinv(types.queries), np.linalg.pinv(types.keys)

    def __call__(self, parts: Float[np.ndarray, "types size"], offset: Float[np.ndarray, " d_out"]) -> Circuits:
        m, cut = self.layer.heads, self.layer.heads * self.asking
        scores = parts[:, :cut].reshape(-1, m, self.asking)
        values = parts[:, cut:].reshape(-1, m, self.layer.width_out)
        change = np.einsum("ei,jhi,dj->hed", self.queries, scores, self.keys, optimize=True)
        ov = np.einsum("dj,jho->hdo", self.keys, values)
        return zeros(self.layer)._replace(qk=change[:, :-1], query_bias=change[:, -1], ov=ov, offset=offset)
