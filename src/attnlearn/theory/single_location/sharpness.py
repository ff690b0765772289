r"""The Riemannian Hessian of the risk on the two spheres, and from where a step of descent no longer contracts.

Six dimensions hold every distinct eigenvalue of any $d\ge6$: the state needs four, and of the directions that are
orthogonal to it one goes to $k$ and one to $v$; a second pair shows that they repeat.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.theory.single_location.door import checked_runs
from attnlearn.theory.single_location.overlaps import OrderParameters, embedded
from attnlearn.theory.single_location.risk import constants, excess

FRAME = 6  # dimensions of the frame, in which the state is embedded


def sharpness(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Float[np.ndarray, "*runs 10"]:
    r"""Eigenvalues (..., 10), ascending, of the Riemannian Hessian of the risk at states `overlaps` (..., 5).

    Arguments and errors as for `risk`. A step $\alpha$ of descent contracts only while $\alpha$ times the last one is
    at most 2. Restricted to the tangent space: without that the numbers are off away from critical points.
    """
    runs = checked_runs(overlaps, lam, gamma, d, n_tokens)
    return runs.shaped(spectra(runs.overlaps, np.broadcast_to(runs.lam, len(runs.overlaps)), runs.numbers))


@float64
def spectra(
    states: Float[np.ndarray, "runs 5"], lam: Float[np.ndarray, " runs"], numbers: tuple[float, float, float]
) -> Float[np.ndarray, "runs 10"]:
    r"""As `sharpness`, unchecked; `numbers` are $\gamma$, $d$ and $L$."""
    k, v = embedded(OrderParameters.of(states), FRAME)
    return np.linalg.eigvalsh(_hessians(k, v, lam, *numbers))


@jax.jit
def _hessians(k: Any, v: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> jax.Array:
    """The Hessians (runs, 10, 10) in orthonormal coordinates of the tangent spaces."""

    def hessian(k: jax.Array, v: jax.Array, lam: jax.Array) -> jax.Array:
        c = constants(lam, gamma, d, n_tokens)
        k_tangent, v_tangent = _tangent(k), _tangent(v)

        def around(x: jax.Array) -> jax.Array:
            here, there = _unit(k + k_tangent @ x[:5]), _unit(v + v_tangent @ x[5:])
            return excess(OrderParameters(here[0], there[1], there[0], here[1], here @ there), c)

        return jax.hessian(around)(jnp.zeros(10, k.dtype))

    return jax.vmap(hessian)(k, v, lam)


def _tangent(x: jax.Array) -> jax.Array:
    """Orthonormal columns (6, 5) that are orthogonal to the unit vector `x`: those of the reflection of e1 onto it."""
    mirror = x + jnp.where(x[0] < 0, -1.0, 1.0) * jnp.eye(FRAME)[0]
    return (jnp.eye(FRAME) - 2 * jnp.outer(mirror, mirror) / (mirror @ mirror))[:, 1:]


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.sqrt(x @ x)
