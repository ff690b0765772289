r"""A step of stochastic gradient descent on a fresh batch, exact in law, at a cost that no width enters.

A run is $k=(k_1,k_2,k_3,0)$, $v=(v_1,v_2,v_3,v_4)$ in a moving frame $(k^\star,v^\star,e_3,e_4)$. Given the two
scores of an uninformative token, its part orthogonal to $k$ and $v$ is an independent Gaussian, so what it adds to the
two gradients is a Gaussian pair with a 2 × 2 covariance; so is the informative token outside the frame, and of a
Gaussian pair in $d-4$ directions only its Gram matrix matters, which is a Wishart matrix (Bartlett).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from attnlearn.theory.single_location.owen import derf


class Batches(NamedTuple):
    """The numbers of the task that the law of a step depends on."""

    gamma: Any
    d: Any
    epsilon: Any
    step_size: Any


class Draws(NamedTuple):
    """Everything random in a step: standard normal, or chi distributed; runs are the last axis."""

    key_scores: Any  # s (B, L-1, runs)
    value_parts: Any  # t (B, L-1, runs)
    informative: Any  # (4, B, runs)
    noise: Any  # (B, runs)
    residual: Any  # (2, 4, runs)
    along: Any  # w1 ~ chi_{d-4} (runs)
    mixed: Any  # zeta (runs)
    across: Any  # w2 ~ chi_{d-5} (runs)


def step(k: jax.Array, v: jax.Array, draws: Draws, lam: Any, task: Batches) -> tuple[jax.Array, jax.Array]:
    """One projected step of `k`, `v` (4, runs) on a fresh batch, at slopes `lam` (1 or runs)."""
    rho = _dot(k, v)
    apart = jnp.sqrt(jnp.maximum(1 - rho**2, 1e-12))
    other = (v - rho * k) / apart  # unit, in the span of k and v, orthogonal to k
    s, t, n = draws.key_scores, draws.value_parts, draws.noise.shape[0]
    r, lam_first = rho[None] * s + apart[None] * t, lam[None]
    mean = jnp.sqrt(task.d / 2) * jnp.eye(4, 1, dtype=k.dtype)[:, :, None]
    X = mean + task.gamma * draws.informative
    s1, r1 = jnp.sum(X * k[:, None], axis=0), jnp.sum(X * v[:, None], axis=0)
    weight, weight1 = erf(lam_first[None] * s), erf(lam_first * s1)
    error = jnp.sum(weight * r, axis=1) + weight1 * r1 - X[1] - task.epsilon * draws.noise
    # Coefficients of the tokens in the gradients of k and v.
    scale = 2 / n * error
    a, c = (scale * lam_first)[:, None] * derf(lam_first[None] * s) * r, scale[:, None] * weight
    a1, c1 = scale * lam_first * derf(lam_first * s1) * r1, scale * weight1
    aa, ac, cc = (jnp.sum(x * y, axis=(0, 1)) for x, y in ((a, a), (a, c), (c, c)))
    noise_k, noise_v = _orthogonal(_coloured(_cholesky(aa, ac, cc), draws.residual), (k, other))
    grad_k = _along(a, s, k) + _along(a, t, other) + noise_k + jnp.sum(a1[None] * X, axis=1)
    grad_v = _along(c, s, k) + _along(c, t, other) + noise_v + jnp.sum(c1[None] * X, axis=1)
    # The d - 4 directions outside the frame.
    g2, alpha = task.gamma**2, task.step_size
    aa1, ac1, cc1 = (jnp.sum(x * y, axis=0) for x, y in ((a1, a1), (a1, c1), (c1, c1)))
    c11, c21, c22 = _cholesky(aa + g2 * aa1, ac + g2 * ac1, cc + g2 * cc1)
    outside = (c11 * draws.along, c21 * draws.along + c22 * draws.mixed, c22 * draws.across)
    new_k = k - alpha * (grad_k - _dot(k, grad_k) * k)
    new_v = v - alpha * (grad_v - _dot(v, grad_v) * v)
    return _back_in_frame(new_k, new_v, tuple(-alpha * one for one in outside))


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """Products (1, runs) of vectors (4, runs)."""
    return jnp.sum(x * y, axis=0, keepdims=True)


def _along(weights: jax.Array, scores: jax.Array, axis: jax.Array) -> jax.Array:
    """The part along `axis` (4, runs) of the weighted sum of all uninformative tokens."""
    return jnp.sum(weights * scores, axis=(0, 1))[None] * axis


def _cholesky(aa: jax.Array, ac: jax.Array, cc: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The lower factor of the covariance [[aa, ac], [ac, cc]], which may be singular."""
    c11 = jnp.sqrt(aa)
    c21 = ac / jnp.maximum(c11, jnp.finfo(aa.dtype).tiny)
    return c11, c21, jnp.sqrt(jnp.maximum(cc - c21**2, 0.0))


def _coloured(factor: tuple[jax.Array, jax.Array, jax.Array], normal: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two Gaussian vectors (4, runs) with the covariance of `factor` in every direction."""
    c11, c21, c22 = factor
    return c11[None] * normal[0], c21[None] * normal[0] + c22[None] * normal[1]


def _orthogonal(vectors: tuple[jax.Array, jax.Array], axes: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    """`vectors` without their parts along the orthonormal `axes`."""
    return tuple(x - _dot(x, axes[0]) * axes[0] - _dot(x, axes[1]) * axes[1] for x in vectors)


def _back_in_frame(k: jax.Array, v: jax.Array, outside: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Unit vectors in a frame turned so that `k` has no fourth part; `outside`: lengths of k, and of v along k and
    across it, in the directions outside the frame."""
    fk, fv1, fv2 = outside
    k_norm = jnp.sqrt(jnp.sum(k**2, axis=0) + fk**2)
    v_norm = jnp.sqrt(jnp.sum(v**2, axis=0) + fv1**2 + fv2**2)
    K, V = jnp.stack([k[2], k[3], fk]), jnp.stack([v[2], v[3], fv1])
    length = jnp.sqrt(jnp.sum(K**2, axis=0))
    v3 = jnp.sum(K * V, axis=0) / jnp.maximum(length, jnp.finfo(k.dtype).tiny)
    v4 = jnp.sqrt(jnp.maximum(jnp.sum(V**2, axis=0) + fv2**2 - v3**2, 0.0))
    found = jnp.stack([k[0], k[1], length, 0 * length]), jnp.stack([v[0], v[1], v3, v4])
    return found[0] / k_norm[None], found[1] / v_norm[None]
