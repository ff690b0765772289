r"""Owen's $T$ and $\zeta(t, g) = \mathbb E\,\mathrm{erf}(t + gN)^2$ in closed form, with both partial derivatives."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import erf

from attnlearn._types import float64

_GAUSS = tuple((one + shift) / 2 for one, shift in zip(np.polynomial.legendre.leggauss(20), (1, 0), strict=True))


def in_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a closed form: numbers give NumPy float64; under a JAX transformation it is the function itself."""
    compiled = float64(jax.jit(function))

    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        if traced(args, kwargs):
            return function(*args, **kwargs)
        floats = [jax.tree.map(lambda leaf: np.asarray(leaf, float), given) for given in (args, kwargs)]
        return jax.tree.map(np.asarray, compiled(*floats[0], **floats[1]))

    return inner


def traced(*given: Any) -> bool:
    """Whether JAX is tracing any of the arrays in `given`."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))


def derf(x: jax.Array) -> jax.Array:
    r"""$\mathrm{erf}'(x)=\frac2{\sqrt\pi}e^{-x^2}$."""
    return 2 / jnp.sqrt(jnp.pi) * jnp.exp(-(x**2))


def owens_t(x: Any, a: Any) -> Any:
    r"""$T(x,a)=\frac1{2\pi}\int_0^a\frac{e^{-x^2(1+u^2)/2}}{1+u^2}\,du$ [@owen1956] for $0\le a\le1$, to 1e-15.

    20 Gauss-Legendre nodes; broadcasts; differentiable in JAX. **Raises:** `ValueError` for a beyond 0 and 1.
    """
    if not traced(a) and not ((np.asarray(a) >= 0) & (np.asarray(a) <= 1)).all():
        raise ValueError(f"Owen's T is computed for 0 <= a <= 1, got {a!r}; scipy.special.owens_t takes any a")
    return _owens_t(x, a)


@in_float64
def _owens_t(x: Any, a: Any) -> Any:
    x, a = jnp.broadcast_arrays(x, a)
    return a / (2 * jnp.pi) * _integral(lambda stretch: jnp.exp(-(x[None] ** 2) * stretch / 2), a)


@in_float64
def zeta(t: Any, g: Any) -> Any:
    r"""$\zeta(t,g)=\mathbb E\,\mathrm{erf}(t+gN)^2$ for $g \ge 0$ and standard normal $N$ [@marion2025], which is

    $$1-8\,T\Big(\frac{\sqrt2t}{\sqrt{1+2g^2}},\frac1{\sqrt{1+4g^2}}\Big).$$

    Computed as $\zeta(0,g)$ plus an integral of positive terms, so that small values are as exact as large ones.
    Broadcasts; differentiable in JAX in both arguments.
    """
    return _zeta(*jnp.broadcast_arrays(t, g))


def zeta_at_zero(g: Any) -> Any:
    r"""$\zeta(0,g)=\frac4\pi\arctan\frac{4g^2}{(1+r)^2}$, $r=\sqrt{1+4g^2}$, in JAX."""
    return 4 / jnp.pi * jnp.arctan((2 * g / (1 + jnp.sqrt(1 + 4 * g**2))) ** 2)


@jax.custom_jvp
def _zeta(t: jax.Array, g: jax.Array) -> jax.Array:
    # 1 - 8 T(x, a) = zeta(0, g) + 8 (T(0, a) - T(x, a)), and the difference is the integral of 1 - exp.
    x2, a = 2 * t**2 / (1 + 2 * g**2), 1 / jnp.sqrt(1 + 4 * g**2)
    return zeta_at_zero(g) + 4 / jnp.pi * a * _integral(lambda stretch: -jnp.expm1(-x2[None] * stretch / 2), a)


def _integral(f: Callable[[jax.Array], jax.Array], a: jax.Array) -> jax.Array:
    r"""$\int_0^1f(s)/s\,dz$, $s=1+a^2z^2$, by 20 nodes of Gauss and Legendre: the leading axis of what `f` takes."""
    nodes, weights = (np.reshape(one, (-1,) + (1,) * jnp.ndim(a)) for one in _GAUSS)
    stretch = 1 + (a[None] * nodes) ** 2
    return jnp.sum(weights * f(stretch) / stretch, axis=0)


@_zeta.defjvp
def _zeta_jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]) -> Any:
    (t, g), (dt, dg) = primals, tangents
    q2, r2 = 1 + 2 * g**2, 1 + 4 * g**2
    q, r = jnp.sqrt(q2), jnp.sqrt(r2)
    inner = erf(t / (q * r))
    by_t = 2 / q * inner * derf(t / q)
    by_g = 8 * g * jnp.exp(-2 * t**2 / r2) / (jnp.pi * q2 * r) - 4 * t * g / (q2 * q) * derf(t / q) * inner
    return _zeta(t, g), by_t * dt + by_g * dg
