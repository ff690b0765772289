r"""How far other predictors of single-location regression stay from the label: the ones with a closed form.

Every risk is an excess: the mean squared error less the $\varepsilon^2$ of the label. All predictors here know
$k^\star$ and $v^\star$ and have the best free scalars of their family, so that each number is the family's own floor.
The two that need simulation, softmax attention and Bayes, are in `simulated.py`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import ndtr

from attnlearn.theory.single_location.door import checked_number, checked_tokens, checked_width
from attnlearn.theory.single_location.owen import owens_t
from attnlearn.theory.single_location.risk import risk
from attnlearn.theory.single_location.swapped import ORACLE

_SLOPES = 241  # slopes tried before the best one is refined
_FAR = 6.0  # from here on gates are too soft to matter and are compared by a leading term; the best ones are at .3 to 1
_LEAST = np.finfo(float).tiny  # what a gate's excess is at least taken as when its logarithm is minimised


class ErfBest(NamedTuple):
    r"""The least excess of erf attention at $(k^\star, v^\star)$ and the slope $\lambda$ that has it."""

    value: float
    lam: float


class GateBest(NamedTuple):
    r"""The least excess of $\sum_l a\,G(s_l)\,r_l$ and its slope $\lambda$, threshold $\tau$ and amplitude $a$."""

    value: float
    lam: float
    tau: float
    amplitude: float


def linear_risk(gamma: float, n_tokens: int) -> float:
    r"""Excess of the best affine map of the whole sequence: $\gamma^2(L-1)/(L-1+\gamma^2)$, for every width.

    **Guarantee.** Exact for a uniformly placed token; it tends to $\gamma^2$ with the number of tokens [@marion2025].

    **Raises:** `ValueError` for $\gamma\le0$ or $L<2$.
    """
    g2, others = checked_number("gamma", gamma) ** 2, checked_tokens(n_tokens) - 1
    return g2 * others / (others + g2)


def linear_attention_risk(gamma: float, d: int, n_tokens: int) -> float:
    r"""Excess of $\sum_l(a+b\langle X_l,k^\star\rangle)\langle X_l,v^\star\rangle$ at the best $a, b$.

    $$\frac{\gamma^2}{1+\gamma^2 q},\qquad q=\frac1{L-1}+\frac{d/2}{L-1+\gamma^4}$$

    This is $\gamma^2-c^\top A^{-1}c$ with the moments of the two features, $A=\gamma^2uu^\top+\mathrm{diag}(L-1,
    L-1+\gamma^4)$ and $c=\gamma^2u$, $u=(1,\sqrt{d/2})$, by Sherman and Morrison and without their cancellation.

    **Raises:** `ValueError` for $\gamma\le0$, $d<4$ or $L<2$.
    """
    g2, others = checked_number("gamma", gamma) ** 2, checked_tokens(n_tokens) - 1
    return g2 / (1 + g2 * (1 / others + checked_width(d) / 2 / (others + g2**2)))


def oracle_risk(lam: Any, gamma: float, d: int, n_tokens: int) -> Any:
    r"""Excess of erf attention at $k=k^\star$, $v=v^\star$; `lam` may be an array.

    $$\gamma^2\big(1-2\,\mathrm{erf}\,\beta+\zeta(\lambda h,\lambda\gamma)\big)+(L-1)\,\zeta(0,\lambda),\qquad
    h=\sqrt{d/2},\ \beta=\lambda h/\sqrt{1+2\lambda^2\gamma^2}$$

    This is `risk` at `ORACLE`; errors as there.
    """
    return risk(ORACLE, lam, gamma, d, n_tokens)


def erf_risk(gamma: float, d: int, n_tokens: int) -> ErfBest:
    r"""`oracle_risk` at its best slope.

    Slopes on a logarithmic grid around the best slope of small $\lambda$, where erf is linear, then Brent's method.
    For $L=o(d)$ the excess is of order $(L/d)\log d$: erf is odd, so every other token leaks
    $\zeta(0,\lambda)\approx\frac4\pi\lambda^2$.

    **Raises:** `ValueError` for $\gamma\le0$, $d<4$ or $L<2$.
    """
    g2, square = checked_number("gamma", gamma) ** 2, checked_width(d) / 2
    small = math.sqrt(math.pi * square) / 2 * g2 / (g2 * (square + g2) + checked_tokens(n_tokens) - 1)
    grid = np.log(small * np.geomspace(1e-2, 1e3, _SLOPES))
    best = int(np.argmin(oracle_risk(np.exp(grid), gamma, d, n_tokens)))
    found: Any = minimize_scalar(
        lambda log_lam: float(oracle_risk(math.exp(log_lam), gamma, d, n_tokens)),
        bounds=(grid[max(best - 1, 0)], grid[min(best + 1, _SLOPES - 1)]),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return ErfBest(float(found.fun), math.exp(found.x))


def gate_risk(gamma: float, d: int, n_tokens: int) -> GateBest:
    r"""Least excess of a threshold: $\sum_l a\,G(s_l)\,r_l$, $G(s)=\tfrac12(1+\mathrm{erf}(\lambda(s-\tau)))$.

    $s_l=\langle X_l,k^\star\rangle$, $r_l=\langle X_l,v^\star\rangle$. At the best $a$, with the moments
    $\epsilon_1,\epsilon_2$ of $1-G$ at the informative token, those of $G$ there $B_1=1-\epsilon_1$,
    $B_2=1-2\epsilon_1+\epsilon_2$, and $C=\mathbb EG^2$ at another token,

    $$\frac{\gamma^2\big[(L-1)C+\gamma^2(\epsilon_2-\epsilon_1^2)\big]}{\gamma^2B_2+(L-1)C},\qquad
    a=\frac{\gamma^2B_1}{\gamma^2B_2+(L-1)C}.$$

    Small values keep their digits. The least that is found by Nelder-Mead over $(\log\lambda,\tau)$ from four starts,
    the last of them nearly linear: 30 to 150 ms, .8 s where the best gate is nearly linear too ($\gamma=50$). The
    excess falls exponentially in $d$ and is given as 0 where it is below 1e-308.

    **Raises:** `ValueError` for $\gamma\le0$, $d<4$ or $L<2$.
    """
    gamma, h = checked_number("gamma", gamma), math.sqrt(checked_width(d) / 2)
    others = checked_tokens(n_tokens) - 1

    def log_excess(point: np.ndarray) -> float:
        return math.log(max(_gate(math.exp(point[0]), float(point[1]), gamma, h, others)[0], _LEAST))

    starts = (
        (0.0, h / 2),
        (-0.7, 0.7 * h),
        (0.7, 0.6 * h),
        (-math.log(10 * h * max(gamma, 1.0)), -h * max(gamma, 1.0)),
    )
    settings = {"xatol": 1e-7, "fatol": 1e-11, "maxiter": 2000}
    found = [minimize(log_excess, start, method="Nelder-Mead", options=settings) for start in starts]
    best = min(found, key=lambda one: one.fun).x
    lam, tau = math.exp(best[0]), float(best[1])
    value, amplitude = _gate(lam, tau, gamma, h, others)
    return GateBest(value, lam, tau, amplitude)


def _gate(lam: float, tau: float, gamma: float, h: float, others: int) -> tuple[float, float]:
    """The excess of a gate at its best amplitude, and that amplitude."""
    slope, g2 = math.sqrt(2) * lam, gamma**2
    missed, missed_square = _moments(-slope * (h - tau), slope * gamma)
    leaked = others * _moments(-slope * tau, slope)[1]
    total = g2 * (1 - 2 * missed + missed_square) + leaked
    if total <= 0:  # a gate that nothing passes, to the last bit: it predicts 0
        return g2, 0.0
    return g2 * (leaked + g2 * (missed_square - missed**2)) / total, g2 * (1 - missed) / total


def _moments(a: float, b: float) -> tuple[float, float]:
    r"""$\mathbb E\,\Phi(a+bN)$ and $\mathbb E\,\Phi(a+bN)^2$, far from the optimum the second by its leading term."""
    x, slope = a / math.sqrt(1 + b * b), 1 / math.sqrt(1 + 2 * b * b)
    first, far = float(ndtr(x)), -x * slope
    if far > _FAR:  # the difference below would have no digits left
        return first, math.exp(-(x * x + far * far) / 2) / (math.pi * x * x * slope * (1 + slope**2))
    return first, first - 2 * float(owens_t(x, slope))
