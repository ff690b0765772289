r"""The floor of single-location regression, the Bayes predictor, and the best softmax attention, by simulation.

No vector is drawn: of a token only $s=\langle X,k^\star\rangle$, $r=\langle X,v^\star\rangle$ and the rest of its
squared norm $c$ matter, $s, r$ normal and $c$ chi-square with $d-2$ degrees of freedom, independent. What the label's
own randomness adds is averaged in closed form, and what is averaged is positive: no difference of near numbers is left.

A predictor errs where another token passes for the informative one, which at width 400 has odds like $10^{-41}$. So
half of all sequences are drawn from where it happens: their informative token and one other token meet halfway. A
sequence counts with its density over that of the mixture, a factor of at most 2 (defensive importance sampling,
[@hesterberg1995]): nothing is biased, and the relative error hardly grows with the width.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from attnlearn.theory.single_location.door import checked_number, checked_tokens, checked_whole, checked_width

Tokens = Float[np.ndarray, "rows tokens"]
Rows = Float[np.ndarray, " rows"]

_CHUNK = 2**18  # tokens drawn at a time: bounds the memory, whatever the number of sequences
_PILOT = 2**19  # tokens of the common draws on which the slope of softmax attention is chosen


class Estimate(NamedTuple):
    """A simulated excess and its standard error."""

    value: float
    standard_error: float


class SoftmaxBest(NamedTuple):
    r"""The simulated excess of softmax attention, its standard error, and the slope $\beta_s$ it was taken at."""

    value: float
    standard_error: float
    beta: float


class _Task(NamedTuple):
    g2: float
    h: float
    d: int
    n_tokens: int

    @classmethod
    def checked(cls, gamma: float, d: int, n_tokens: int) -> "_Task":
        g2, d = checked_number("gamma", gamma) ** 2, checked_width(d)
        return cls(g2, math.sqrt(d / 2), d, checked_tokens(n_tokens))

    @property
    def halfway(self) -> float:
        """Where the key scores of an informative and another token most likely meet."""
        return self.h / (1 + self.g2)


def evidence(scores: Float[np.ndarray, "..."], squares: Float[np.ndarray, "..."], gamma: float, d: int) -> np.ndarray:
    r"""$\log\frac{p(X_l\mid J_0=l)}{p(X_l\mid J_0\ne l)}=\tfrac12(1-\gamma^{-2})\|X_l\|^2+\gamma^{-2}h\,s_l-
    \tfrac12\gamma^{-2}h^2-d\log\gamma$ of tokens with `scores` $s_l=\langle X_l,k^\star\rangle$ and `squares`
    $\|X_l\|^2$, $h=\sqrt{d/2}$.

    Its softmax over the tokens of a sequence is the posterior of the place, and the Bayes predictor is the mean of
    $\langle X_l,v^\star\rangle$ under it. For $\gamma=1$ that is softmax attention with slope $h$.
    """
    h, precision = math.sqrt(d / 2), 1 / gamma**2
    return (1 - precision) / 2 * squares + precision * h * (scores - h / 2) - d * math.log(gamma)


def bayes_risk(gamma: float, d: int, n_tokens: int, n_samples: int, seed: int) -> Estimate:
    r"""Excess of $\mathbb E[Y\mid X]=\sum_lw_lr_l$, the least of any predictor, from `n_samples` sequences.

    Given the sequence up to the signs of its $r_l$, the mean squared error is $\sum_lw_l(1-w_l)r_l^2$, $w$ the
    posterior of the place; that is averaged. It does not depend on $\varepsilon$. Below 1e-308 it is given as 0.
    Time is proportional to `n_samples` times `n_tokens`, memory is bounded.

    **Raises:** `ValueError` for $\gamma\le0$, $d<4$, $L<2$ or fewer than 2 samples.
    """
    task = _Task.checked(gamma, d, n_tokens)
    log_mass = d / 2 * math.log(4 * task.g2) - d * math.log1p(task.g2) - task.h**2 / (2 * (1 + task.g2))

    def errors(key: np.random.Generator, rows: int) -> Rows:
        u, r = _bayes_draws(key, rows, task)
        w, r2 = softmax(u, axis=1), r**2
        others = w[:, 1:].sum(axis=1)
        error = w[:, 0] * others * r2[:, 0] + (w[:, 1:] * (1 - w[:, 1:]) * r2[:, 1:]).sum(axis=1)
        return error * _density((u[:, 1:] - u[:, :1]) / 2 - log_mass)

    return _mean(errors, task, _checked_samples(n_samples), np.random.default_rng(checked_whole("seed", seed, 0)))


def softmax_risk(gamma: float, d: int, n_tokens: int, n_samples: int, seed: int) -> SoftmaxBest:
    r"""Excess of $\sum_l\mathrm{softmax}(\beta_ss)_l\,r_l$ at the best slope, from `n_samples` sequences.

    The slope is the best on common draws of its own, at most $2^{19}$ tokens; at that slope
    $\sum_{l\ne J_0}w_l^2+\gamma^2(1-w_{J_0})^2$, the mean squared error given the key scores, is averaged over fresh
    ones. So the value is unbiased for the slope that is returned. Cost and errors as of `bayes_risk`.
    """
    task, n_samples = _Task.checked(gamma, d, n_tokens), _checked_samples(n_samples)
    seed = checked_whole("seed", seed, 0)
    choosing, fresh = (np.random.default_rng([seed, part]) for part in (0, 1))
    s, density = _softmax_draws(choosing, max(2, min(n_samples, _PILOT // n_tokens)), task)

    def log_excess(log_beta: float) -> float:
        return math.log(max((_softmax_errors(math.exp(log_beta), s, task) * density).mean(), np.finfo(float).tiny))

    # Between two tokens the posterior given the scores has slope 2 halfway where they meet; more tokens want less.
    middle = math.log(2 * task.halfway)
    found: Any = minimize_scalar(log_excess, bounds=(middle - 4, middle + 3), method="bounded")
    beta = math.exp(found.x)

    def errors(key: np.random.Generator, rows: int) -> Rows:
        s, density = _softmax_draws(key, rows, task)
        return _softmax_errors(beta, s, task) * density

    return SoftmaxBest(*_mean(errors, task, n_samples, fresh), beta)


def _bayes_draws(key: np.random.Generator, rows: int, task: _Task) -> tuple[Tokens, Tokens]:
    """The evidence of every token and its value score; the first token is the informative one."""
    s, r = key.standard_normal((2, rows, task.n_tokens))
    c = key.chisquare(task.d - 2, (rows, task.n_tokens))
    half = 2 * task.g2 / (1 + task.g2)  # the variance whose precision is the mean of both
    meet = key.random(rows) < 0.5
    for place, mean, variance in ((0, task.h, task.g2), (1, 0.0, 1.0)):
        mean, variance = np.where(meet, task.halfway, mean), np.where(meet, half, variance)
        s[:, place] = mean + np.sqrt(variance) * s[:, place]
        r[:, place] *= np.sqrt(variance)
        c[:, place] *= variance
    return evidence(s, s**2 + r**2 + c, math.sqrt(task.g2), task.d), r


def _softmax_draws(key: np.random.Generator, rows: int, task: _Task) -> tuple[Tokens, Rows]:
    """Key scores, those of the informative token first, and the density of each sequence over the mixture's."""
    s = key.standard_normal((rows, task.n_tokens))
    meet = key.random(rows) < 0.5
    s[:, 0] = np.where(meet, task.halfway, task.h) + math.sqrt(task.g2) * s[:, 0]
    s[:, 1] += np.where(meet, task.halfway, 0.0)
    log_mass = -(task.h**2) / (2 * (1 + task.g2))
    return s, _density(task.halfway * (s[:, 1:] - s[:, :1]) - log_mass)


def _softmax_errors(beta: float, s: Tokens, task: _Task) -> Rows:
    w = softmax(beta * s, axis=1)[:, 1:]
    return (w**2).sum(axis=1) + task.g2 * w.sum(axis=1) ** 2


def _density(log_ratios: Float[np.ndarray, "rows others"]) -> Rows:
    """The density of the task over that of the mixture, where `log_ratios` are those of meeting any other token over
    the task. The other token is drawn as the second; which it is makes no difference to the error."""
    any_other = np.asarray(logsumexp(log_ratios, axis=1)) - math.log(log_ratios.shape[1])
    return 2 * np.exp(-np.logaddexp(0.0, any_other))


def _mean(
    errors: Callable[[np.random.Generator, int], Rows], task: _Task, n: int, key: np.random.Generator
) -> Estimate:
    """The mean of n errors and its standard error, a chunk of sequences at a time."""
    rows, done, mean, squares = max(1, _CHUNK // task.n_tokens), 0, 0.0, 0.0
    while done < n:
        some = errors(key, min(rows, n - done))
        step, share = float(some.mean()) - mean, len(some) / (done + len(some))
        squares += float(((some - some.mean()) ** 2).sum()) + step**2 * share * done
        mean, done = mean + step * share, done + len(some)
    return Estimate(mean, math.sqrt(squares / (n - 1) / n))


def _checked_samples(n_samples: int) -> int:
    if not isinstance(n_samples, numbers.Integral) or n_samples < 2:
        raise ValueError(f"a standard error needs 2 sequences or more, a whole number, got n_samples = {n_samples!r}")
    return int(n_samples)
