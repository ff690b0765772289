r"""The exact risk of $T(X)=\sum_l\mathrm{erf}(\lambda\langle X_l,k\rangle)\langle X_l,v\rangle$ and its gradient.

Both depend on the unit vectors $k, v$ through five overlaps only. `Constants` is made once for a task and a slope
$\lambda$; the pure functions `excess` and `slopes` are what the dynamics iterate.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from attnlearn.theory.single_location.door import checked_runs
from attnlearn.theory.single_location.overlaps import OrderParameters
from attnlearn.theory.single_location.owen import derf, in_float64, traced, zeta, zeta_at_zero


class Constants(NamedTuple):
    """What the risk takes from the task and the slope; the letters are those of the formula in `excess`."""

    g2: Any
    d: Any
    h: Any
    beta: Any
    b: Any
    p: Any
    lam_h: Any
    lam_gamma: Any
    C1: Any
    C2: Any
    C3: Any
    C5: Any
    C6: Any
    K7: Any
    D1: Any
    apart: Any  # what every uninformative token adds: (L-1) zeta(0, lam)


def constants(lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Constants:
    """The constants at slope `lam`, which may be an array; in JAX."""
    g2, h, others = gamma**2, jnp.sqrt(d / 2), n_tokens - 1
    q2, p2, wide = 1 + 2 * lam**2 * g2, 1 + 4 * lam**2 * g2, 1 + 2 * lam**2
    q, p, root = jnp.sqrt(q2), jnp.sqrt(p2), jnp.sqrt(jnp.pi)
    pairs = 8 * lam**2 * others / (jnp.pi * jnp.sqrt(1 + 4 * lam**2) * wide)
    return Constants(
        g2=g2,
        d=d,
        h=h,
        beta=lam * h / q,
        b=lam * jnp.sqrt(d) / p,
        p=p,
        lam_h=lam * h,
        lam_gamma=lam * gamma,
        C1=lam * g2 * h / q,
        C2=(lam * g2 / q) ** 2,
        C3=lam**2 * g2 / q2,
        C5=4 * (lam * g2) ** 2 / (root * q2 * p),
        C6=pairs + 4 * lam**2 * others * (others - 1) / (jnp.pi * wide),
        K7=4 * lam * others / (root * jnp.sqrt(wide)),
        D1=lam * g2 / q,
        apart=others * zeta_at_zero(lam),
    )


constants_at = in_float64(constants)  # of numbers, in NumPy


class _Parts(NamedTuple):
    """The functions of the key overlap that risk and gradient share."""

    a: Any
    E: Any
    E1: Any
    E2: Any
    F: Any
    G: Any
    Z: Any
    A: Any
    M: Any


def _parts(state: OrderParameters, c: Constants) -> _Parts:
    kappa, _, theta, _, rho = state
    a = c.beta * kappa
    E1 = derf(a)
    return _Parts(
        a=a,
        E=erf(a),
        E1=E1,
        E2=-2 * a * E1,
        F=erf(a / c.p),
        G=derf(c.b * kappa),
        Z=zeta(c.lam_h * kappa, c.lam_gamma),
        A=c.d / 2 * theta**2 + c.g2,
        M=theta * rho - c.C3 * rho**2 * kappa,
    )


def excess(state: OrderParameters, c: Constants) -> Any:
    r"""The risk $R_0$ [@marion2025], without $\varepsilon^2$ and without the constant `apart`, in JAX.

    $$R_0=\gamma^2-2(\gamma^2\nu E+C_1\eta\theta E_1+C_2\eta\rho E_2)+AZ+4C_1MFE_1+C_5\rho^2G+C_6\rho^2
    +K_7\rho(h\theta E+D_1\rho E_1)$$
    """
    _, nu, theta, eta, rho = state
    f = _parts(state, c)
    read = c.g2 * nu * f.E + c.C1 * eta * theta * f.E1 + c.C2 * eta * rho * f.E2
    own = f.A * f.Z + 4 * c.C1 * f.M * f.F * f.E1 + c.C5 * rho**2 * f.G
    return c.g2 - 2 * read + own + c.C6 * rho**2 + c.K7 * rho * (c.h * theta * f.E + c.D1 * rho * f.E1)


def slopes(state: OrderParameters, c: Constants) -> OrderParameters:
    """The partial derivatives of `excess` in the five overlaps, in JAX; every term is elementary except $Z$."""
    kappa, nu, theta, eta, rho = state
    f = _parts(state, c)
    E1, E2 = f.E1, f.E2
    E3, F1 = (4 * f.a**2 - 2) * E1, derf(f.a / c.p)
    by_kappa = (
        -2 * c.beta * (c.g2 * nu * E1 + c.C1 * eta * theta * E2 + c.C2 * eta * rho * E3)
        + 2 * f.A * c.beta * f.F * E1
        + 4 * c.C1 * (f.M * c.beta * (F1 * E1 / c.p + f.F * E2) - c.C3 * rho**2 * f.F * E1)
        - 2 * c.C5 * rho**2 * c.b**2 * kappa * f.G
        + c.K7 * rho * c.beta * (c.h * theta * E1 + c.D1 * rho * E2)
    )
    by_rho = (
        -2 * c.C2 * eta * E2
        + 4 * c.C1 * (theta - 2 * c.C3 * rho * kappa) * f.F * E1
        + 2 * rho * (c.C5 * f.G + c.C6)
        + c.K7 * (c.h * theta * f.E + 2 * c.D1 * rho * E1)
    )
    return OrderParameters(
        kappa=by_kappa,
        nu=-2 * c.g2 * f.E,
        theta=-2 * c.C1 * eta * E1 + c.d * theta * f.Z + 4 * c.C1 * rho * f.F * E1 + c.K7 * rho * c.h * f.E,
        eta=-2 * (c.C1 * theta * E1 + c.C2 * rho * E2),
        rho=by_rho,
    )


def risk(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any, full: bool = True) -> Any:
    r"""The excess risk $\mathbb E(T(X)-Y)^2-\varepsilon^2$ of erf attention, exact for every width and length.

    **Arguments:**

    - `overlaps`: (..., 5), in the order $(\kappa,\nu,\theta,\eta,\rho)$.
    - `lam`: the slope $\lambda>0$; broadcasts against the leading axes.
    - `gamma`: spread of the informative token; `d`: width of a token; `n_tokens`: $L$.
    - `full`: with the constant $(L-1)\zeta(0,\lambda)$, which depends on neither $k$ nor $v$; `False`: $R_0$.

    Returns an array (...). Under a JAX transformation nothing is checked and the precision is the caller's.
    Source: [@marion2025]; checked against quadrature of the definition.

    **Raises:** `ValueError` for $\lambda$ or $\gamma\le0$, $d<4$, $L<2$, and overlaps that no unit vectors have.
    """
    return _at((overlaps, lam, gamma, d, n_tokens), total if full else bare)


def gradient(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Any:
    r"""The partial derivatives (..., 5) of `risk` in the five overlaps; arguments and errors as there.

    As vectors, $\nabla_kR=R_\kappa k^\star+R_\eta v^\star+R_\rho v$ and
    $\nabla_vR=R_\nu v^\star+R_\theta k^\star+R_\rho k$.
    """
    return _at((overlaps, lam, gamma, d, n_tokens), _gradient)


def _at(given: tuple[Any, ...], formula: Any) -> Any:
    """Checks what is given, unless JAX is tracing it, and applies the formula to overlaps (..., 5)."""
    if traced(given):
        return formula(*given)
    runs = checked_runs(*given)
    return runs.shaped(formula(runs.overlaps, np.broadcast_to(runs.lam, len(runs.overlaps)), *runs.numbers))


@in_float64
def bare(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Any:
    return excess(OrderParameters.of(overlaps), constants(lam, gamma, d, n_tokens))


@in_float64
def total(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Any:
    """`risk`, unchecked."""
    c = constants(lam, gamma, d, n_tokens)
    return excess(OrderParameters.of(overlaps), c) + c.apart


@in_float64
def _gradient(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Any:
    return jnp.stack(slopes(OrderParameters.of(overlaps), constants(lam, gamma, d, n_tokens)), axis=-1)
