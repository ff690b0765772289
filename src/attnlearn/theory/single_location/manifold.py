r"""The dynamics on the manifold $\theta=\eta=\rho=0$, which descent and flow never leave.

On it $R=\gamma^2(1-2\nu\,\mathrm{erf}(\beta\kappa)+\zeta(\lambda h\kappa,\lambda\gamma))+(L-1)\zeta(0,\lambda)$, and
the gradient flow on the spheres is

$$\dot\kappa=2\gamma^2\beta\,\mathrm{erf}'(\beta\kappa)(1-\kappa^2)(\nu-\mathrm{erf}(\beta\kappa/p)),\qquad
\dot\nu=2\gamma^2(1-\nu^2)\,\mathrm{erf}(\beta\kappa).$$

The critical points are the saddle $(0,0)$, the minima $(1,1),(-1,-1)$ and the maxima $(1,-1),(-1,1)$.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.special import erf, erfc

from attnlearn.theory.single_location.door import checked_number, checked_runs, checked_width
from attnlearn.theory.single_location.risk import bare, constants_at
from attnlearn.theory.single_location.trajectory import Trajectory

_RTOL, _ATOL = 1e-12, 1e-14
_NEAR, _STEEP = 1e-6, 19.0  # start of the stable curve beside the saddle; artanh(nu) from which nu is -1


class Saddle(NamedTuple):
    r"""Eigenvalues $\mu_+>0>\mu_-$ of the flow at $(0,0)$, and the unstable direction $(\kappa,\nu)$, of length 1."""

    eigenvalues: tuple[float, float]
    unstable: tuple[float, float]


class Rates(NamedTuple):
    r"""How fast the flow closes in on $(1,1)$: $1-\kappa\sim e^{-\mathrm{kappa}\,t}$, and so for $\nu$."""

    kappa: float
    nu: float


class _Pull(NamedTuple):
    """The constants of the flow."""

    g2: float
    beta: Any
    p: Any

    def velocity(self, kappa: Any, nu: Any) -> tuple[Any, Any]:
        a = self.beta * kappa
        along = 4 / np.sqrt(np.pi) * self.g2 * self.beta * np.exp(-(a**2))
        return along * (1 - kappa**2) * (nu - erf(a / self.p)), 2 * self.g2 * (1 - nu**2) * erf(a)


def _pull(lam: Any, gamma: float, d: int) -> _Pull:
    c = constants_at(lam, gamma, d, 2)
    return _Pull(float(c.g2), c.beta, c.p)


def flow(overlaps: Any, lam: Any, gamma: Any, d: Any, times: Any) -> Trajectory:
    r"""Gradient flow from states on the manifold, by Runge and Kutta to a relative tolerance of 1e-12.

    **Arguments:** `overlaps` (..., 5) with $\theta=\eta=\rho=0$; `lam` broadcasts against the leading axes; `times`
    (n_logs,), increasing from 0 on. In the record `steps` are the times, and the risk is $R_0$: the constant
    $(L-1)\zeta(0,\lambda)$ is left out, since the flow does not depend on $L$.

    **Guarantee:** almost every orbit converges to one of the two minima: the flow is that of an analytic function on
    a compact set with isolated critical points. The others are the stable curve of the saddle and the maxima.

    **Raises:** `ValueError` for states off the manifold, times that do not increase, and whatever `risk` refuses.
    """
    runs = checked_runs(overlaps, lam, gamma, d, 2)
    off = np.abs(runs.overlaps[:, 2:]).max(initial=0.0)
    if off > 0:
        raise ValueError(
            f"the flow is computed on the manifold theta = eta = rho = 0 only, got entries up to {off:.2g}: set them "
            "to 0, or use `descend` with a small step"
        )
    times = np.asarray(times, float)
    increasing = times.ndim == 1 and times.size and times[0] >= 0 and (np.diff(times) > 0).all()
    if not (increasing and np.isfinite(times).all()):
        raise ValueError(f"times must be a list of finite, increasing numbers from 0 on, got {times!r}")
    pull, n = _pull(runs.lam, runs.numbers[0], int(runs.numbers[1])), len(runs.overlaps)

    def velocity(_: float, y: np.ndarray) -> np.ndarray:
        return np.concatenate(pull.velocity(y[:n], y[n:]))

    start = runs.overlaps[:, :2].T.ravel()
    span = (0.0, max(times[-1], np.finfo(float).tiny))
    solved = solve_ivp(velocity, span, start, "DOP853", times, rtol=_RTOL, atol=_ATOL)
    found = np.zeros((n, len(times), 5))
    found[:, :, :2] = np.reshape(solved.y, (2, n, -1)).transpose(1, 2, 0)
    slopes = np.broadcast_to(runs.lam[:, None], (n, len(times)))
    return Trajectory(runs.shaped(found), runs.shaped(bare(found, slopes, *runs.numbers)), runs.shaped(slopes), times)


def saddle(lam: Any, gamma: Any, d: Any) -> Saddle:
    r"""The saddle $(0,0)$: $\mu_\pm=\tfrac c2(-b\pm\sqrt{b^2+4})$, $c=4\gamma^2\beta/\sqrt\pi$, $b=2\beta/(p\sqrt\pi)$.

    Leaving it from a random start takes about $\ln\sqrt d/(\alpha\mu_+)$ steps of size $\alpha$.

    **Raises:** `ValueError` for $\lambda$ or $\gamma\le0$, or $d<4$.
    """
    pull = _checked_pull(lam, gamma, d)
    c, b = 4 * pull.g2 * pull.beta / np.sqrt(np.pi), 2 * pull.beta / (pull.p * np.sqrt(np.pi))
    root = np.sqrt(b**2 + 4)
    plus, minus = 2 * c / (b + root), -c / 2 * (b + root)
    length = np.hypot(plus / c, 1.0)
    return Saddle((float(plus), float(minus)), (float(plus / c / length), float(1 / length)))


def rates(lam: Any, gamma: Any, d: Any) -> Rates:
    r"""The rates at $(1,1)$: $4\gamma^2\beta\,\mathrm{erf}'(\beta)\,\mathrm{erfc}(\beta/p)$ of $\kappa$ and
    $4\gamma^2\mathrm{erf}\beta$ of $\nu$.

    The first is of order $e^{-\beta^2}$: a large slope freezes $\kappa$, which is the case for a schedule.
    **Raises:** `ValueError` for $\lambda$ or $\gamma\le0$, or $d<4$.
    """
    pull = _checked_pull(lam, gamma, d)
    along = 8 / np.sqrt(np.pi) * pull.g2 * pull.beta * np.exp(-(pull.beta**2)) * erfc(pull.beta / pull.p)
    return Rates(float(along), float(4 * pull.g2 * erf(pull.beta)))


def separatrix(kappa: Any, lam: Any, gamma: Any, d: Any) -> Float[np.ndarray, "..."]:
    r"""The $\nu$ at which the stable curve of the saddle passes $\kappa$: it separates the basins of the two minima.

    `kappa` of any shape, $|\kappa|<1$. Followed outwards from the saddle, in which direction errors shrink.

    **Raises:** `ValueError` for $|\kappa|\ge1$.
    """
    kappa = np.asarray(kappa, float)
    if not (np.abs(kappa) < 1).all():
        raise ValueError(f"kappa must lie between -1 and 1, got {kappa!r}")
    pull = _checked_pull(lam, gamma, d)
    outwards, back = np.unique(np.abs(kappa), return_inverse=True)

    def climb(k: float, y: np.ndarray) -> np.ndarray:
        """d artanh(nu) / d kappa; beyond every number where the curve has long reached -1."""
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            return 2 * pull.g2 * erf(pull.beta * k) / pull.velocity(k, np.tanh(y))[0]

    steep: Any = lambda _, y: y[0] + _STEEP  # noqa: E731
    steep.terminal = True
    found = np.full(outwards.shape, -1.0)
    slope = saddle(lam, gamma, d).eigenvalues[1] / (4 * pull.g2 * pull.beta / np.sqrt(np.pi))  # kappa / nu, negative
    near = outwards <= _NEAR
    found[near] = outwards[near] / slope
    if not near.all():
        start, ends = np.array([_NEAR / slope]), outwards[~near]
        solved = solve_ivp(climb, (_NEAR, ends[-1]), start, "DOP853", ends, events=steep, rtol=_RTOL, atol=_ATOL)
        reached = np.ravel(solved.y)  # the others lie beyond the place where the curve has come to -1
        found[~near] = np.concatenate([np.tanh(reached), np.full(len(ends) - len(reached), -1.0)])
    return np.asarray(np.copysign(1.0, kappa) * found[back].reshape(kappa.shape))


def _checked_pull(lam: Any, gamma: Any, d: Any) -> _Pull:
    return _pull(checked_number("lam", lam), checked_number("gamma", gamma), checked_width(d))
