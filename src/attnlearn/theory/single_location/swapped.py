r"""The swapped critical point, off the manifold: key and value exchange their roles.

At $k=\pm v^\star$, $v=\pm(\theta k^\star+\sqrt{1-\theta^2}\,w)$ with $w\perp k^\star,v^\star$, the product
$\langle X_l,v\rangle$ picks the informative token by its mean, and $\mathrm{erf}(\lambda\langle X_l,v^\star\rangle)$
reads its value, linearised.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, minimize_scalar

from attnlearn.theory.single_location.door import checked_number, checked_tokens, checked_width
from attnlearn.theory.single_location.overlaps import OrderParameters
from attnlearn.theory.single_location.owen import in_float64, zeta
from attnlearn.theory.single_location.risk import constants, constants_at, excess, risk

ORACLE = (1.0, 1.0, 0.0, 0.0, 0.0)  # k = k*, v = v*


class SwappedPoint(NamedTuple):
    r"""The state $(0,0,\theta,1,0)$, its excess risk, and whether $\theta$ is clipped at 1 (then $v=k^\star$)."""

    overlaps: Float[np.ndarray, " 5"]
    risk: float
    clipped: bool


class Lowest(NamedTuple):
    """The slope at which a risk is lowest, and that risk."""

    lam: float
    risk: float


def swapped_point(lam: Any, gamma: Any, d: Any, n_tokens: Any) -> SwappedPoint:
    r"""The swapped point with both signs plus: $\theta=\min\big(1,\frac2{\sqrt\pi}\frac{C_1}{(d/2)z}\big)$ with
    $C_1=\lambda\gamma^2h/q$, $z=\zeta(0,\lambda\gamma)$.

    **Guarantee:** exactly stationary on the spheres; a local minimum wherever its Hessian was computed ($\lambda$ from
    .05 to .9 at $d=400$): zero modes turn $w$. At very large slopes it is none ($\lambda=100$).

    **Raises:** `ValueError` for $\lambda$ or $\gamma\le0$, $d<4$, $L<2$.
    """
    lam = checked_number("lam", lam)
    gamma, d, n_tokens = _checked(gamma, d, n_tokens)
    free = float(_theta(np.array(lam), gamma, d))
    return SwappedPoint(_state(np.array(free)), float(_risk(np.array(lam), gamma, d, n_tokens)), free >= 1)


def clipped_below(gamma: Any, d: Any) -> float:
    r"""The slope $\lambda$ below which $\theta$ is clipped at 1. **Raises:** `ValueError` as `swapped_point`."""
    gamma, d, _ = _checked(gamma, d)
    return _root(lambda lam: float(_theta(lam, gamma, d)) - 1, gamma, d)


def crossover(gamma: Any, d: Any) -> float:
    r"""The slope $\lambda$ below which the swapped point has a lower risk than $(k^\star,v^\star)$, for every $L$: what
    the uninformative tokens add to both is the same. **Raises:** `ValueError` as `swapped_point`."""
    numbers = _checked(gamma, d)
    return _root(lambda lam: float(_risk(lam, *numbers) - risk(ORACLE, lam, *numbers)), gamma, d)


def oracle_stable_below(gamma: Any, d: Any, n_tokens: Any) -> float:
    r"""The slope $\lambda$ above which $(k^\star,v^\star)$ is no local minimum off the manifold.

    There the risk is a quadratic form in $(\theta,\eta)$, with $\rho=\theta+\eta$ to first order; it is indefinite
    where its determinant is negative. Infinity where that never happens: for few dimensions or many tokens.
    """
    numbers = _checked(gamma, d, n_tokens)
    return _root(lambda lam: float(np.linalg.det(_form(lam, *numbers))), gamma, d)


def lowest_swapped(gamma: Any, d: Any, n_tokens: Any) -> Lowest:
    r"""The swapped point's lowest risk over $\lambda$; for large $d$ it tends to $(2(L-1)+2\gamma^4)/d$.

    Where no slope is better than none the risk falls to $\gamma^2$ as $\lambda\to0$; then the least slope looked at is
    returned. **Raises:** `ValueError` as `swapped_point`.
    """
    numbers = _checked(gamma, d, n_tokens)
    logs = np.linspace(-16, 4, 401) - np.log(d) / 2
    at = int(np.argmin(_risk(np.exp(logs), *numbers)))
    ends = logs[max(at - 1, 0)], logs[min(at + 1, len(logs) - 1)]
    found: Any = minimize_scalar(
        lambda log: float(_risk(np.exp(log), *numbers)), bounds=ends, method="bounded", options={"xatol": 1e-9}
    )
    return Lowest(float(np.exp(found.x)), float(found.fun))


def _checked(gamma: Any, d: Any, n_tokens: Any = 2) -> tuple[float, int, int]:
    return checked_number("gamma", gamma), checked_width(d), checked_tokens(n_tokens)


def _theta(lam: Any, gamma: float, d: int) -> Any:
    """The stationary theta, not clipped."""
    return 2 / np.sqrt(np.pi) * constants_at(lam, gamma, d, 2).C1 / (d / 2 * zeta(0.0, lam * gamma))


def _state(free: Any) -> Float[np.ndarray, "*slopes 5"]:
    return OrderParameters(0.0, 0.0, np.minimum(free, 1.0), 1.0, 0.0).array()


def _risk(lam: Any, gamma: float, d: int, n_tokens: int) -> Any:
    """The risk of the swapped point at slopes of any shape."""
    return risk(_state(_theta(lam, gamma, d)), lam, gamma, d, n_tokens)


@in_float64
def _form(lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Any:
    """The Hessian (2, 2) of the risk in theta and eta at the optimum, along the two spheres."""
    c = constants(lam, gamma, d, n_tokens)

    def around(x: Any) -> Any:
        theta, eta = x
        return excess(OrderParameters(1 - eta**2 / 2, 1 - theta**2 / 2, theta, eta, theta + eta), c)

    return jax.hessian(around)(jnp.zeros(2))


def _root(f: Callable[[float], float], gamma: float, d: int) -> float:
    """The slope at which `f` changes its sign; infinity where it does not up to a slope of 1000."""
    grid = np.geomspace(1e-3 / (np.sqrt(d) * max(1.0, gamma)), 1e3, 181)
    values = np.array([f(lam) for lam in grid])
    changes = np.flatnonzero(values[:-1] * values[1:] < 0)
    if not len(changes):
        return float("inf")
    at = int(changes[0])
    return float(brentq(f, grid[at], grid[at + 1], xtol=1e-14, rtol=1e-14))  # pyright: ignore[reportArgumentType]
