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
from attnlearn.theory.single_location.risk import constants, excess, risk

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
    .05 to .9 at $d=400$): zero modes turn $w$.

    **Raises:** `ValueError` for $\lambda$ or $\gamma\le0$, $d<4$, $L<2$.
    """
    free = _theta(checked_number("lam", lam), checked_number("gamma", gamma), checked_width(d))
    overlaps = OrderParameters(0.0, 0.0, min(1.0, free), 1.0, 0.0).array()
    return SwappedPoint(overlaps, float(risk(overlaps, lam, gamma, d, n_tokens)), free >= 1)


def clipped_below(gamma: Any, d: Any) -> float:
    r"""The slope $\lambda$ below which $\theta$ is clipped at 1."""
    numbers = checked_number("gamma", gamma), checked_width(d)
    return _root(lambda lam: _theta(lam, *numbers) - 1)


def crossover(gamma: Any, d: Any) -> float:
    r"""The slope $\lambda$ below which the swapped point has a lower risk than $(k^\star,v^\star)$, for every $L$: what
    the uninformative tokens add to both is the same."""
    numbers = checked_number("gamma", gamma), checked_width(d), 2
    return _root(lambda lam: swapped_point(lam, *numbers).risk - float(risk(ORACLE, lam, *numbers)))


def oracle_stable_below(gamma: Any, d: Any, n_tokens: Any) -> float:
    r"""The slope $\lambda$ above which $(k^\star,v^\star)$ is no local minimum off the manifold.

    There the risk is a quadratic form in $(\theta,\eta)$, with $\rho=\theta+\eta$ to first order; it is indefinite
    where its determinant is negative. Infinity where that never happens: for few dimensions or many tokens.
    """
    numbers = checked_number("gamma", gamma), checked_width(d), checked_tokens(n_tokens)
    return _root(lambda lam: float(np.linalg.det(_form(lam, *numbers))))


def lowest_swapped(gamma: Any, d: Any, n_tokens: Any) -> Lowest:
    r"""The swapped point's lowest risk over $\lambda$; for large $d$ it tends to $(2(L-1)+2\gamma^4)/d$."""
    numbers = checked_number("gamma", gamma), checked_width(d), checked_tokens(n_tokens)
    about = np.log(np.sqrt(np.pi / (2 * d)))
    found: Any = minimize_scalar(
        lambda log: swapped_point(np.exp(log), *numbers).risk,
        bounds=(about - 3, about + 3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return Lowest(float(np.exp(found.x)), float(found.fun))


def _theta(lam: float, gamma: float, d: int) -> float:
    """The stationary theta, not clipped."""
    from_mean = lam * gamma**2 * np.sqrt(d / 2) / np.sqrt(1 + 2 * lam**2 * gamma**2)
    return float(2 / np.sqrt(np.pi) * from_mean / (d / 2 * zeta(0.0, lam * gamma)))


@in_float64
def _form(lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Any:
    """The Hessian (2, 2) of the risk in theta and eta at the optimum, along the two spheres."""
    c = constants(lam, gamma, d, n_tokens)

    def around(x: Any) -> Any:
        theta, eta = x
        return excess(OrderParameters(1 - eta**2 / 2, 1 - theta**2 / 2, theta, eta, theta + eta), c)

    return jax.hessian(around)(jnp.zeros(2))


def _root(f: Callable[[float], float]) -> float:
    """The slope from 1e-4 to 1e2 at which `f` changes its sign; infinity where it does not."""
    grid = np.geomspace(1e-4, 1e2, 121)
    values = np.array([f(lam) for lam in grid])
    changes = np.flatnonzero(values[:-1] * values[1:] < 0)
    if not len(changes):
        return float("inf")
    at = int(changes[0])
    return float(brentq(f, grid[at], grid[at + 1], xtol=1e-14, rtol=1e-14))  # pyright: ignore[reportArgumentType]
