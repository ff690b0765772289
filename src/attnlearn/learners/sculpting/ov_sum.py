r"""Phase (iii), a better $W_s$: regression of outputs on tokens over the rows in which one token takes all weight.

Where every head has a margin of $\mu$ (in logits) for the value $u$ of a row,
$|y-u^\top W_s|\le2\sqrt d\sum_i|W_i|_2\,(k-1)e^{-\mu}$: the purest rows limit $W_s$, not $N^{-1/2}$. Which rows are
pure is asked of the proxy (`refit`) and of the estimate itself (`nearest_refit`); the score of an estimate is read off
the examples alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlearn._progress import progress
from attnlearn.learners.sculpting.proxy import Body, proxy
from attnlearn.learners.sculpting.tokens import chosen, classes, nearest, values

Sum = Float[np.ndarray, "d o"]
FEWEST = 3  # rows of a class that are always taken
NOISIEST = 0.25  # relative residual up to which a noisy row may still count as pure
CLASSES = 64  # times the width: more classes than this, and only the purest are used


@dataclass(frozen=True)
class Refinement:
    """How $W_s$ is refined: shares of rows to begin with, their decay, rounds; the score's tolerance and its least
    trusted value; rows that rounds look at; the last tightening's steps and how its share begins and shrinks."""

    shares: tuple[float, ...] = (0.02, 0.01)
    decay: float = 0.7
    rounds: int = 5
    by_angle: int = 2  # first rounds, in which scales cannot be trusted yet
    pure: float = 0.02
    least_score: float = 5e-4
    rows: int = 60_000
    tightenings: int = 14
    first_share: float = 0.02
    shrink: float = 0.6


class Refined(NamedTuple):
    """An estimate of $W_s$ and the share of rows that it finds pure."""

    ov_sum: Sum
    score: float


class Sample(NamedTuple):
    """Examples that a phase holds in memory."""

    X: Float[np.ndarray, "n k d"]
    Y: Float[np.ndarray, "n k o"]

    @property
    def outputs(self) -> Float[np.ndarray, "rows o"]:
        """Outputs of all rows in one list."""
        return self.Y.reshape(-1, self.Y.shape[-1])

    def effective(self, ov_sum: Sum) -> Float[np.ndarray, "n k d"]:
        """Effective tokens $z=yW_s^+$."""
        return self.Y @ np.linalg.pinv(ov_sum)


def learn_sum(
    sample: Sample, starts: Iterable[Sum], how: tuple[Refinement, Body], key: np.random.Generator, noise: float = 0.0
) -> Refined:
    """The estimate with the best score over rounds from every start: a proxy, then the regressions that it allows.

    `noise`: standard deviation of the labels' noise, below which no residual can be.
    """
    starts, (refinement, body) = list(starts), how
    pure = max(refinement.pure, min(noise * token_noise(starts[0]), NOISIEST))
    best = Refined(starts[0], -1.0)
    runs = [(start, share) for start in starts for share in refinement.shares]
    for number, (start, first) in enumerate(runs):
        at = start
        for turn in range(refinement.rounds):
            share, by_angle = first * refinement.decay**turn, turn < refinement.by_angle
            found = [Refined(one, score(sample, one, pure)) for one in _round(sample, at, (share, by_angle), body, key)]
            at, _ = step = max(found, key=lambda one: one.score)
            best = max(best, step, key=lambda one: one.score)
            progress("sum of OV circuits", number * refinement.rounds + turn + 1, len(runs) * refinement.rounds)
    return best


def _round(
    sample: Sample, ov_sum: Sum, selection: tuple[float, bool], body: Body, key: np.random.Generator
) -> list[Sum]:
    share, by_angle = selection
    near = nearest(sample.effective(ov_sum), sample.X, by_angle)
    refitted = refit(sample, proxy(sample.X, near, share, body, key), share)
    return [refitted, *(nearest_refit(sample, one, share, by_angle) for one in (ov_sum, refitted))]


def refit(sample: Sample, theta: Float[np.ndarray, "d d"], share: float, keep: float = 0.4) -> Sum:
    """$W_s$ from the rows to which the proxy gives the largest margins; of these the part that agrees best."""
    X = sample.X
    first, times = values(X)
    logits = np.where(first[:, None], X @ theta @ X.swapaxes(1, 2) + np.log(times)[:, None], -np.inf)
    token, two = logits.argmax(axis=-1), np.partition(logits, -2, axis=-1)[..., -2:]
    shown = chosen(X, token)
    rows = balanced((two[..., 0] - two[..., 1]).ravel(), shown, share)  # -inf where all tokens are equal: pure
    _, misfit = robust_regression(shown[rows], sample.outputs[rows], 15)
    rows = rows[np.argsort(misfit)[: max(int(keep * len(rows)), 4 * X.shape[-1])]]
    return robust_regression(shown[rows], sample.outputs[rows], 15)[0]


def nearest_refit(sample: Sample, ov_sum: Sum, share: float, by_angle: bool) -> Sum:
    """$W_s$ from the rows whose effective token is nearest to a token."""
    token, residual = nearest(sample.effective(ov_sum), sample.X, by_angle)
    shown = chosen(sample.X, token)
    rows = balanced(residual.ravel(), shown, share)
    return robust_regression(shown[rows], sample.outputs[rows], 8)[0]


def token_noise(ov_sum: Sum) -> float:
    """What unit noise of the labels is in an effective token, relative to a token."""
    return float(np.linalg.norm(np.linalg.pinv(ov_sum)) / np.sqrt(len(ov_sum)))


def score(sample: Sample, ov_sum: Sum, pure: float) -> float:
    """The share of rows with a relative residual below `pure`: from examples alone, and the alarm where it is low."""
    return float((nearest(sample.effective(ov_sum), sample.X).residual < pure).mean())


def tighten(sample: Sample, ov_sum: Sum, refinement: Refinement) -> Sum:
    """Nearest-token regressions on fewer and fewer rows, each kept only where it makes the purest rows purer."""
    best = tightness(sample, ov_sum)
    for turn in range(refinement.tightenings):
        trial = nearest_refit(sample, ov_sum, refinement.first_share * refinement.shrink**turn, by_angle=False)
        after = tightness(sample, trial)
        if after < best:
            ov_sum, best = trial, after
    return ov_sum


def tightness(sample: Sample, ov_sum: Sum) -> float:
    """How pure the purest row of a class is, in the 2d-th purest of the classes of token values."""
    token, residual = nearest(sample.effective(ov_sum), sample.X)
    kind = classes(chosen(sample.X, token))
    order = np.lexsort((residual.ravel(), kind))
    least = np.sort(residual.ravel()[order][_beginnings(kind[order])])
    return float(least[min(2 * sample.X.shape[-1], len(least) - 1)])


def balanced(
    cost: Float[np.ndarray, " rows"], shown: Float[np.ndarray, "rows d"], share: float
) -> Int[np.ndarray, " some"]:
    """From each class of token values the `share` of rows of least cost: else the regression is rank deficient."""
    kind, d = classes(shown), shown.shape[1]
    order = np.lexsort((cost, kind))
    starts = _beginnings(kind[order])
    sizes = np.diff(np.append(starts, len(order)))
    number = min(2.0 ** (d - 1), CLASSES * d)
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    taken = place < max(int(share * len(order) / number), FEWEST)
    if len(starts) > number:
        purest = np.argsort(cost[order][starts])[: int(number)]
        taken &= np.isin(np.repeat(np.arange(len(starts)), sizes), purest)
    return order[taken]


def _beginnings(ordered: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " classes"]:
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def robust_regression(
    P: Float[np.ndarray, "n d"], T: Float[np.ndarray, "n o"], iterations: int
) -> tuple[Sum, Float[np.ndarray, " n"]]:
    """Least sum of row norms of $T-PW$, by reweighting; the coefficients and the norms."""
    weight, W, misfit = np.ones(len(P)), np.zeros((P.shape[1], T.shape[1])), np.zeros(len(P))
    for _ in range(iterations):
        W = np.linalg.lstsq(weight[:, None] * P, weight[:, None] * T, rcond=None)[0]
        misfit = np.linalg.norm(T - P @ W, axis=1)
        weight = 1 / np.sqrt(np.maximum(misfit, 1e-3 * np.median(misfit) + 1e-14))
    return W, misfit
