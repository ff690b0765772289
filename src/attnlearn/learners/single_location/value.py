r"""What does the informative token say? Ridge regression of the labels on it, averaged over ridges by their evidence.

$$y \mid v \sim \mathcal N(Zv, \varepsilon^2 I), \quad v \sim \mathcal N(0, \sigma^2 I), \quad
  \tau = \varepsilon^2/\sigma^2, \quad \hat v_\tau = (Z^\top Z + \tau I)^{-1} Z^\top y$$

With v integrated out $y \sim \mathcal N(0, \sigma^2(ZZ^\top + \tau I))$. Its density at the $\sigma$ that fits best is
the evidence for $\tau$; beforehand every power of ten is as likely as every other; the answer is the mean over $\tau$.
With d labels or more one ridge wins. With fewer the evidence is nearly flat, and its best ridge alone would now leave
everything to noise, now nothing. The answer scales with the labels. Where places are uncertain the rows of Z are tokens
times the root of their weight. [@mackay1992]
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LIGHT = 1e-8  # weights up to this are left out: they move a sum by less than that times the tokens
_RIDGES = np.logspace(-12, 4, 257)  # over the mean eigenvalue: 16 to a factor of ten, from exact labels to mere noise
_NEGLIGIBLE = 1e-8  # of a ridge's share


class Value(NamedTuple):
    """The value direction, its standard errors (posterior ones, which count the prior), and the noise of the labels.

    `dof`: how many directions the labels determine; `log_ratio`: the logarithm of their evidence against v = 0.
    """

    v: Float[np.ndarray, " d"]
    error: Float[np.ndarray, " d"]
    epsilon: float
    epsilon_error: float
    dof: float
    log_ratio: float

    def times(self, scale: float) -> "Value":
        """The same for labels in another unit."""
        v, error, epsilon, epsilon_error, *rest = self
        return Value(scale * v, scale * error, scale * epsilon, scale * epsilon_error, *rest)


class _Spectrum(NamedTuple):
    """Rows and labels by singular vectors: singular values squared, labels along the vectors, square of the rest."""

    squared: Float[np.ndarray, " rank"]
    vectors: Float[np.ndarray, "d rank"]
    labels: Float[np.ndarray, " rank"]
    rest: float

    @classmethod
    def of(cls, rows: Float[np.ndarray, "m d"], labels: Float[np.ndarray, " m"]) -> "_Spectrum":
        """By the eigenvalues of the smaller Gram matrix."""
        tall = len(rows) > rows.shape[1]
        squared, basis = np.linalg.eigh(rows.T @ rows if tall else rows @ rows.T)
        seen = squared > len(squared) * np.finfo(float).eps * squared[-1]
        squared, basis = squared[seen], basis[:, seen]
        values = np.sqrt(squared)
        vectors = basis if tall else rows.T @ basis / values
        along = basis.T @ (rows.T @ labels) / values if tall else basis.T @ labels
        left = labels - rows @ (vectors @ (along / values))
        return cls(squared, vectors, along, float(left @ left))


class _Ridges(NamedTuple):
    """The ridges that matter: themselves, their shares, and the variance of v beforehand."""

    tau: Float[np.ndarray, " ridges"]
    share: Float[np.ndarray, " ridges"]
    variance: Float[np.ndarray, " ridges"]
    log_evidence: float

    @classmethod
    def of(cls, spectrum: _Spectrum, n: int) -> "_Ridges":
        r"""By $\log p(y \mid \tau) = c - \tfrac n2\log\sigma^2\tau - \tfrac12\sum_j\log(1 + \lambda_j/\tau)$.

        $n\sigma^2 = y^\top(ZZ^\top + \tau I)^{-1}y$ there.
        """
        tau = _RIDGES * spectrum.squared.mean()
        total = np.square(spectrum.labels) @ (1 / (spectrum.squared[:, None] + tau)) + spectrum.rest / tau
        logs = -n * np.log(total * tau / n) / 2 - np.log1p(spectrum.squared[:, None] / tau).sum(axis=0) / 2
        share = np.exp(logs - logs.max())
        log_evidence = float(logs.max() + np.log(share.mean()))
        share = share / share.sum()
        kept = share > _NEGLIGIBLE
        return cls(tau[kept], share[kept], total[kept] / n, log_evidence)


def value(rows: Float[np.ndarray, "m d"], labels: Float[np.ndarray, " m"], n: int) -> Value:
    """The value direction from weighted tokens and labels, whose weights add up to `n`."""
    d, total = rows.shape[1], float(labels @ labels)
    if not (total and rows.any()):
        return Value(np.zeros(d), np.zeros(d), float(np.sqrt(total / n)), float(np.sqrt(total / 2) / n), 0.0, 0.0)
    spectrum = _Spectrum.of(rows, labels)
    ridges = _Ridges.of(spectrum, n)
    shrunk = 1 / (spectrum.squared[:, None] + ridges.tau)
    each = (np.sqrt(spectrum.squared) * spectrum.labels)[:, None] * shrunk
    mean = each @ ridges.share
    epsilon, epsilon_error = _noise(ridges, n)
    return Value(
        v=spectrum.vectors @ mean,
        error=np.sqrt(_variance(spectrum, ridges, shrunk) + _spread(spectrum, ridges, each - mean[:, None])),
        epsilon=epsilon,
        epsilon_error=epsilon_error,
        dof=float((spectrum.squared @ shrunk) @ ridges.share),
        log_ratio=ridges.log_evidence + n * float(np.log(total / n)) / 2,
    )


def _noise(ridges: _Ridges, n: int) -> tuple[float, float]:
    r"""The mean of $\varepsilon$ over ridges and its standard error.

    That is $\varepsilon/\sqrt{2n}$ at one ridge, and with the spread over ridges about
    $\varepsilon/\sqrt{2(n-\mathrm{dof})}$ where labels determine all of v.
    """
    noise = np.sqrt(ridges.variance * ridges.tau)
    mean = float(noise @ ridges.share)
    return mean, float(np.sqrt((np.square(noise) / (2 * n) + np.square(noise - mean)) @ ridges.share))


def _variance(spectrum: _Spectrum, ridges: _Ridges, shrunk: Float[np.ndarray, "rank ridges"]) -> np.ndarray:
    r"""The mean over ridges of $\varepsilon^2\,[(Z^\top Z + \tau I)^{-1}]_{jj}$; of $\sigma^2$ where no row leads."""
    squares = np.square(spectrum.vectors)
    unseen = np.clip(1 - squares.sum(axis=1), 0, None) if squares.shape[1] < len(squares) else 0.0
    noise = ridges.variance * ridges.tau
    return unseen * (ridges.variance @ ridges.share) + squares @ (shrunk @ (noise * ridges.share))


def _spread(spectrum: _Spectrum, ridges: _Ridges, apart: Float[np.ndarray, "rank ridges"]) -> np.ndarray:
    """The variance over ridges of the answers, whose distances from their mean are given."""
    return np.square(spectrum.vectors @ apart) @ ridges.share
