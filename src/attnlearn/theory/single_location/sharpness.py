r"""The Riemannian Hessian of the risk on the two spheres, and from where a step of descent no longer contracts.

With the Jacobian $J$ of the overlaps on the tangent spaces and the Hessian $H$ of the risk in the overlaps it is
$J^\top HJ$, plus $R_\rho$ between $k$ and $v$, minus $\langle k,\nabla_kR\rangle$ on the sphere of $k$ and
$\langle v,\nabla_vR\rangle$ on that of $v$. Six dimensions hold every distinct eigenvalue of any $d\ge6$: the state
needs four, and of the directions orthogonal to it one goes to $k$ and one to $v$; a second pair shows that they repeat.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.theory.single_location.door import checked_runs
from attnlearn.theory.single_location.overlaps import OrderParameters, embedded
from attnlearn.theory.single_location.risk import constants, slopes

FRAME = 6  # dimensions of the frame, in which the state is embedded
_AT_ONCE = 512  # runs


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
    return np.linalg.eigvalsh(_hessians(states, *_derivatives(states, lam, numbers)))


def _derivatives(states: np.ndarray, lam: np.ndarray, numbers: tuple[float, float, float]) -> tuple[Any, Any]:
    """First (runs, 5) and second (runs, 5, 5) derivatives of the risk in the overlaps, a few sizes at a time: what
    XLA compiles for one number of runs serves them all."""
    runs = len(states)
    size = min(_AT_ONCE, 1 << (runs - 1).bit_length())
    padding = -runs % size
    states, lam = np.pad(states, ((0, padding), (0, 0)), "edge"), np.pad(lam, (0, padding), "edge")
    parts = [_derived(states[at : at + size], lam[at : at + size], numbers) for at in range(0, len(states), size)]
    first, second = (np.concatenate(part)[:runs] for part in zip(*parts, strict=True))
    return first, second


@jax.jit
def _derived(states: jax.Array, lam: jax.Array, numbers: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    def slope(state: jax.Array, lam: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = jnp.stack(slopes(OrderParameters.of(state), constants(lam, *numbers)))
        return found, found

    second, first = jax.vmap(jax.jacfwd(slope, has_aux=True))(states, lam)
    return first, second


def _hessians(
    states: Float[np.ndarray, "runs 5"], first: Float[np.ndarray, "runs 5"], second: Float[np.ndarray, "runs 5 5"]
) -> Float[np.ndarray, "runs 10 10"]:
    """The Hessians in orthonormal coordinates of the tangent spaces, five of k and five of v."""
    k, v = embedded(OrderParameters.of(states), FRAME)
    k_tangent, v_tangent = _tangent(k), _tangent(v)
    J = np.zeros((len(states), 5, 10))
    J[:, 0, :5], J[:, 3, :5] = k_tangent[:, 0], k_tangent[:, 1]
    J[:, 2, 5:], J[:, 1, 5:] = v_tangent[:, 0], v_tangent[:, 1]
    J[:, 4, :5] = np.einsum("rij,ri->rj", k_tangent, v)
    J[:, 4, 5:] = np.einsum("rij,ri->rj", v_tangent, k)
    found = np.swapaxes(J, 1, 2) @ second @ J
    between = first[:, 4, None, None] * (np.swapaxes(k_tangent, 1, 2) @ v_tangent)
    found[:, :5, 5:] += between
    found[:, 5:, :5] += np.swapaxes(between, 1, 2)
    for part, own in ((slice(0, 5), (0, 3, 4)), (slice(5, 10), (1, 2, 4))):
        radial = sum(first[:, i] * states[:, i] for i in own)
        found[:, part, part] -= np.asarray(radial)[:, None, None] * np.eye(5)
    return found


def _tangent(x: Float[np.ndarray, "runs 6"]) -> Float[np.ndarray, "runs 6 5"]:
    """Orthonormal columns that are orthogonal to the unit vectors `x`: those of the reflection of e1 onto them."""
    mirror = x + np.where(x[:, :1] < 0, -1.0, 1.0) * np.eye(FRAME)[0]
    outer = mirror[:, :, None] * mirror[:, None, :]
    return (np.eye(FRAME) - 2 * outer / np.square(mirror).sum(axis=1)[:, None, None])[:, :, 1:]
