r"""Why the number of heads hurts: how little heads that cancel leave to be seen, and what seeing it costs.

The layers are those of `data/cancelling_heads.py`. `hidden_size` bounds what m heads leave together; the rest turns a
size into numbers of examples (label noise) or of statistics (answers with a tolerance). All proofs: `docs/hardness.md`.
None of this bounds an algorithm that sees exact labels: there a small part is as good as a large one.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln
from scipy.stats import norm

Numbers = Float[np.ndarray, "*rows"]

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(128)
NARROW = 0.4  # least distance of the contour, in steps: nearer, its peaks ask for more nodes; the bound given is D

FLAT = 1e-12  # least hL: with less the bound is at most 1e-12 D, and is given as if it were this


def hidden_size(heads: int, step: float, spread: Numbers | float, reach: Numbers | float) -> Numbers | float:
    r"""Bound of the length of a row of the hidden part of `CancellingHeads` with `generic` 0.

    $$\Big|\sum_i c_i\, g_i\Big| \le D\,\min\Big(1,\ \frac{n!}{2^n}\, \frac{1}{\pi \cos(\theta/2)}
      \int_{-\infty}^\infty \frac{dy}{\prod_{j=0}^n \sqrt{(y - j)^2 + r^2}}\Big), \qquad
      n = m - 1,\quad \theta = \frac{\pi n}{n + 1},\quad r = \frac{\theta}{hL}$$

    - `heads`: m, at least 2.
    - `step`: h, of the scales of neighbouring heads.
    - `spread`: L, the largest minus the smallest of the scores $x_a^\top \Theta x_b$ of the row, over b; with
        $\|\Theta\|_F = 1$, as it is there.
    - `reach`: D, the largest $|W^\top x_b - v|$ over b, for any one v, such as the mean.

    Numbers or arrays, a number a row; the root of the mean square of the bounds bounds that of the rows.

    **Guarantee.** For every sequence, without assumption on the tokens. Certain, in exact arithmetic; where
    the bound is below D, its integral was observed to be right to 1e-6, relative, for up to 120 heads.
    """
    _check_heads(heads)
    _check_positive("step", step)
    spread, reach = np.broadcast_arrays(np.asarray(spread, float), np.asarray(reach, float))
    for name, values in (("spread", spread), ("reach", reach)):
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"{name} must be at least 0 and finite")
    angle = math.pi * (heads - 1) / heads
    distance = angle / np.maximum(step * spread.ravel(), FLAT)
    integral = _integral(heads - 1, np.maximum(distance, NARROW))
    bound = np.minimum(1.0, integral / (math.pi * math.cos(angle / 2)))
    return reach * np.where(distance < NARROW, 1.0, bound).reshape(reach.shape)


def _integral(n: int, distance: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    r"""$\frac{n!}{2^n} \int dy \prod_j ((y - j)^2 + r^2)^{-1/2}$, by y = n/2 + s tan(φ) with s = n/2 + r."""
    scale, total = n / 2 + distance, np.zeros_like(distance)
    for node, weight in zip(NODES * math.pi / 2, NODE_WEIGHTS * math.pi / 2, strict=True):
        y = scale * math.tan(node)
        factors = sum(np.log((y + n / 2 - j) ** 2 + distance**2) for j in range(n + 1)) / 2
        total = total + weight / math.cos(node) ** 2 * scale * np.exp(gammaln(n + 1) - n * math.log(2) - factors)
    return total


def hidden_decay(spread: float) -> float:
    r"""The factor by which the bound of `hidden_size` falls with each head more, in the limit of many heads.

    $$\exp\big(-\tfrac12 \log(1 + q^2) - q \arctan(1/q)\big) < 1, \qquad q = 2\pi / S$$

    - `spread`: $S = (R - t_0)L$, the difference of the spreads of the row's scores in the last and in the first head.

    It is about $S / 2\pi e$ for small S and $e^{-\pi^2/S}$ for large.

    **Guarantee.** $\limsup_m$ of the m-th root of the bound is at most this, at fixed S.
    """
    _check_positive("spread", spread)
    q = 2 * math.pi / spread
    return math.exp(-math.log1p(q * q) / 2 - q * math.atan(1 / q))


def generic_size(strength: float, query: float, diameter: float, ov_norm: float) -> float:
    r"""Bound of how far generic parts of the attention matrices move a row of the hidden part.

    $$\tfrac14\, \gamma\, |x_a|\, \Delta^2\, \|W\|_2$$

    - `strength`: $\gamma$, `generic` of `CancellingHeads`.
    - `query`: $|x_a|$; $\sqrt d$ on the cube.
    - `diameter`: $\Delta$, the largest distance of two tokens of the sequence; at most $2\sqrt d$ on the cube.
    - `ov_norm`: $\|W\|_2$.

    **Guarantee.** For every sequence. Certain.
    """
    for name, value in (("strength", strength), ("query", query), ("diameter", diameter), ("ov_norm", ov_norm)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return strength * query * diameter**2 * ov_norm / 4


def examples_to_tell_apart(gap: float, noise: float, delta: float = 0.05) -> float:
    r"""The least number of examples from which any algorithm tells two layers F, G apart.

    $$N \ge \big(2\,\eta\, \Phi^{-1}(1 - \delta) / \mu\big)^2$$

    - `gap`: $\mu$, the root of $E\|F(X) - G(X)\|_F^2$, all numbers of an example together. With G the common part of a
        layer it is the size of the hidden part.
    - `noise`: $\eta$, the standard deviation of the noise on every number.
    - `delta`: $\delta$, how often the answer may be wrong, whichever layer it is; below 1/2.

    **Guarantee.** Assumes independent examples and independent Gaussian noise of the labels. Then with fewer examples
    every test, of any running time, errs with probability above $\delta$ on one of the two layers. Certain.
    """
    _check_positive("gap", gap)
    _check_positive("noise", noise)
    if not 0 < delta < 0.5:
        raise ValueError(f"delta must lie between 0 and 1/2, got {delta}")
    return (2 * noise * float(norm.isf(delta)) / gap) ** 2


def examples_to_see(gap: float, noise: float, errors: float = 3.0) -> float:
    r"""The least number of examples from which a statistic linear in the labels shows the hidden part.

    $$N \ge (z\,\eta / \mu)^2$$

    - `gap`: $\mu$, the root of $E\|H(X)\|_F^2$ of the hidden part H.
    - `noise`: $\eta$, the standard deviation of the noise on every number.
    - `errors`: z, the number of its own standard errors by which the hidden part must move the statistic.

    **Guarantee.** For the mean of $\langle\varphi(X), Y\rangle$ over the examples, with any $\varphi$ of finite
    variance. Assumes independent examples and noise that is independent of the tokens and of itself, of mean 0, of any
    law. Certain.
    """
    _check_positive("gap", gap)
    _check_positive("noise", noise)
    _check_positive("errors", errors)
    return (errors * noise / gap) ** 2


def queries_to_find(heads: int, width: int, size: float, tolerance: float, success: float = 1.0) -> float:
    r"""The least number of statistics from which the entries of a hidden parity are found.

    $$q \ge \Big(p\, \tbinom{d - 1}{2m - 3} - 1\Big)\, \tau^2 / \beta^2$$

    - `heads`: m, at least 2.
    - `width`: d, at least 2m - 2.
    - `size`: $\beta$, the `size` of `ParityHeads`.
    - `tolerance`: $\tau$. A statistic is $E\langle\varphi(X), Y\rangle$ with $E\|\varphi(X)\|_F^2 \le 1$, chosen after
        the answers before it, and its answer may be wrong by $\tau$; from N examples it is wrong by about $N^{-1/2}$.
    - `success`: p, the probability of naming the entries, over their uniform choice and the algorithm's own.

    **Guarantee.** For two uniform ±1 tokens, even if everything but the entries of the parity is known. Assumes that
    the answers are the worst that the tolerance allows, and that the algorithm sees nothing else. Certain. An algorithm
    that sees the examples themselves is not bound: exact labels are linear equations modulo 2.
    """
    _check_heads(heads)
    if width < 2 * heads - 2:
        raise ValueError(f"the width must be at least 2 * heads - 2 = {2 * heads - 2}, got {width}")
    _check_positive("size", size)
    _check_positive("tolerance", tolerance)
    if not 0 < success <= 1:
        raise ValueError(f"success must be above 0 and at most 1, got {success}")
    return max(0.0, success * math.comb(width - 1, 2 * heads - 3) - 1) * (tolerance / size) ** 2


def _check_heads(heads: int) -> None:
    if heads < 2:
        raise ValueError(f"heads cancel from two on, got heads={heads}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
