r"""Coordinates on the layers of given ranks in which the derivative of the outputs is well conditioned.

Near a circuit $A$ of rank $r$ every circuit of that rank is $A + \delta$ with $\delta$ in a linear space, up to second
order. With $L^{1/2} A R^{1/2} = U S V^\top$ that space is

$$\delta = L^{-1/2} (a V^\top + U b^\top) R^{-1/2}, \qquad V^\top b = 0,$$

and $(a, b)$ are orthonormal coordinates of it: the freedom of the factors and the spread of $S$ are gone. $L$ and $R$
are what the tokens make of the two sides when attention is soft, so the mean square output is close to
$\|a\|^2 + \|b\|^2$, and conjugate gradients converge in some tens of steps.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn.layers.attention import Numbers
from attnlearn.layers.factored import Factored

RIDGE = 1e-3  # of the mean eigenvalue of a metric: bounds its inverse where the tokens do not span the space
RANK_RTOL = 1e-13  # singular values below this part of a head's largest are the padding of a head of lower rank


class Isometry(NamedTuple):
    """Factors $P Q^\\top$ in which $(a, b)$ are orthonormal coordinates: `right` carries V, `left` carries US."""

    left: Float[np.ndarray, "heads rows r"]
    right: Float[np.ndarray, "heads columns r"]
    basis: Float[np.ndarray, "heads columns r"]  # V
    inverse: Float[np.ndarray, "heads r"]  # 1/S, 0 for the padding of a head of lower rank


class Coordinates(eqx.Module):
    """The coordinates at one layer. Their values are kept in a `Factored`: $a$ and $b$ of both circuits, and $c$."""

    at: Factored
    query_map: Float[Numbers, "1 d_plus_1 d_plus_1"]
    key_map: Float[Numbers, "heads d d"]
    key_basis: Float[Numbers, "heads d r"]
    key_inverse: Float[Numbers, "heads r"]
    value_map: Float[Numbers, "1 d d"]
    output_inverse: Float[Numbers, "heads s"]

    def embed(self, coordinates: Factored) -> Factored:
        """The change of the factors `at` that has these coordinates."""
        return _embed(self, coordinates)

    def restrict(self, gradient: Factored) -> Factored:
        """The transpose of `embed`."""
        return _restrict(self, gradient)

    def astype(self, dtype: type[np.floating]) -> "Coordinates":
        return jax.tree.map(lambda array: jnp.asarray(array, dtype), self)


def coordinates(at: Factored, blocks: list[Float[np.ndarray, "_ _ d"]]) -> Coordinates:
    r"""Coordinates for the sequences of `blocks`, from the first two moments of their tokens.

    With uniform attention over $k$ independent tokens of covariance $\Sigma$, the change of an output is
    $\tilde x^\top \delta\tilde\Theta_i C W_i$ with $C$ the tokens' empirical covariance, and
    $E[C W W^\top C] = (1 + 1/k)\, \Sigma W W^\top \Sigma + \mathrm{tr}(W W^\top \Sigma)\, \Sigma / k$.
    """
    tokens = np.concatenate([X.reshape(-1, X.shape[-1]) for X in blocks])
    k = len(tokens) / sum(len(X) for X in blocks)
    extended = np.concatenate([tokens, np.ones((len(tokens), 1))], axis=1)
    centred = tokens - tokens.mean(axis=0)
    covariance = centred.T @ centred / len(tokens)
    gram = at.values @ (at.outputs @ at.outputs.swapaxes(1, 2)) @ at.values.swapaxes(1, 2)
    traces = np.einsum("mij,ji->m", gram, covariance)[:, None, None]
    keys = _root((1 + 1 / k) * covariance @ gram @ covariance + traces * covariance / k)
    queries = _root((extended.T @ extended / len(tokens))[None])
    mean = tokens.mean(axis=0)
    values = _root((covariance / k + np.outer(mean, mean))[None])
    qk = _isometry(at.queries, at.keys, queries, keys)
    ov = _isometry(at.values, at.outputs.swapaxes(1, 2), values, np.eye(at.outputs.shape[-1])[None])
    here = Factored(qk.left, qk.right, ov.left, ov.right.swapaxes(1, 2), at.offset)
    maps = [np.linalg.inv(root).swapaxes(1, 2) for root in (queries, keys, values)]
    return Coordinates(here, maps[0], maps[1], qk.basis, qk.inverse, maps[2], ov.inverse)


def _root(metric: Float[np.ndarray, "heads d d"]) -> Float[np.ndarray, "heads d d"]:
    """Lower triangular $C$ with $C C^\\top$ the metric, after a small ridge."""
    d = metric.shape[-1]
    level = np.trace(metric, axis1=1, axis2=2) / d
    level = np.where(level > 0, level, 1.0)[:, None, None]
    return np.linalg.cholesky(metric + RIDGE * level * np.eye(d))


def _isometry(
    P: Float[Numbers, "heads rows r"],
    Q: Float[Numbers, "heads columns r"],
    left: Float[np.ndarray, "_ rows rows"],
    right: Float[np.ndarray, "_ columns columns"],
) -> Isometry:
    """Refactors $P Q^\\top$; `left` and `right` are the roots of the two metrics."""
    rows, rows_factor = np.linalg.qr(left.swapaxes(1, 2) @ P)
    columns, columns_factor = np.linalg.qr(right.swapaxes(1, 2) @ Q)
    U, S, Vt = np.linalg.svd(rows_factor @ columns_factor.swapaxes(1, 2))
    least = RANK_RTOL * S.max(axis=1, keepdims=True, initial=np.finfo(float).tiny)
    kept = least < S
    S = np.where(kept, S, 0.0)
    U, V = rows @ U * S[:, None, :], columns @ Vt.swapaxes(1, 2) * kept[:, None, :]
    inverse = np.divide(1.0, S, out=np.zeros_like(S), where=kept)
    return Isometry(np.linalg.solve(left.swapaxes(1, 2), U), np.linalg.solve(right.swapaxes(1, 2), V), V, inverse)


@jax.jit
def _embed(here: Coordinates, values: Factored) -> Factored:
    along = here.key_basis @ (jnp.swapaxes(here.key_basis, -1, -2) @ values.keys)
    outputs = here.at.outputs
    beyond = values.outputs - (values.outputs @ jnp.swapaxes(outputs, -1, -2)) @ outputs
    return Factored(
        here.query_map @ values.queries,
        here.key_map @ ((values.keys - along) * here.key_inverse[:, None, :]),
        here.value_map @ values.values,
        beyond * here.output_inverse[:, :, None],
        values.offset,
    )


@jax.jit
def _restrict(here: Coordinates, gradient: Factored) -> Factored:
    (coordinates,) = jax.linear_transpose(lambda values: _embed(here, values), gradient)(gradient)
    return coordinates
