r"""The error to expect on new sequences, from sequences that the learner has not seen (empirical Bernstein)."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer

CHUNK = 256  # sequences whose outputs are held at once


@dataclass(frozen=True)
class HoldOut:
    r"""Errors on held-out sequences.

    - `sequences`, `scalars`: how many sequences, and numbers in their labels.
    - `mean`: mean over sequences of the relative squared error, each counted as `limit` at most.
    - `standard_error`: of this mean.
    - `bound`: on its expectation, with probability $1 - \delta$.
    - `mean_square`: mean squared error of a number. With noise of variance $\sigma^2$ and a least-squares fit to $N_o$
        numbers with p unknowns, near $\sigma^2(1 + p/N_o)$: see `expected_mean_square`.
    - `mean_square_error`: standard error of that mean, from the scatter between sequences.
    - `largest`: largest error of a number over the largest label.
    """

    sequences: int
    scalars: int
    mean: float
    standard_error: float
    bound: float
    limit: float
    delta: float
    mean_square: float
    mean_square_error: float
    largest: float


def holdout(layer: AttentionLayer, examples: Examples, delta: float = 0.05, limit: float = 1.0) -> HoldOut:
    r"""Bounds the expected relative squared error of `layer` on new sequences.

    The loss of a sequence is $\ell = \min(|F(X) - Y|^2 / |Y|^2, b)$ over its labels, with b = `limit`: what is worse
    than answering 0 counts as 1 by default. (0 where error and labels are both zero; b where the labels alone are.)

    **Guarantee.** With probability $1 - \delta$ over n sequences drawn independently from one distribution, and
    independently of the layer,

    $$\mathbb E\,\ell \le \bar\ell + \sqrt{\frac{2 V \ln(2/\delta)}{n}} + \frac{7 b \ln(2/\delta)}{3(n - 1)}$$

    with the mean $\bar\ell$ and the sample variance V (theorem 4 of [@maurer2009]). Certain under that assumption; the
    clipping makes losses bounded, so nothing is assumed of tokens or noise. By Markov's inequality a new sequence has a
    relative squared error of b or more with probability at most the bound divided by b.

    **Raises:** `ValueError` for fewer than two sequences, or figures out of range.
    """
    if not 0 < delta < 1 or not limit > 0:
        raise ValueError(f"delta must lie between 0 and 1 and limit be positive, got {delta=}, {limit=}")
    if len(examples) < 2:
        raise ValueError(f"a variance wants at least two held-out sequences, got {len(examples)}")
    parts = [_sums(layer, part) for part in examples.chunks(CHUNK)]
    errors, sizes, counts = np.concatenate([part[:3] for part in parts], axis=1)
    relative = np.divide(errors, sizes, out=np.where(errors > 0, np.inf, 0.0), where=sizes > 0)
    losses = np.minimum(relative, limit)
    n, log = len(losses), math.log(2 / delta)
    spread = float(losses.var(ddof=1))
    bound = losses.mean() + math.sqrt(2 * spread * log / n) + 7 * limit * log / (3 * (n - 1))
    square = errors.sum() / counts.sum()
    scatter = np.std(errors - square * counts, ddof=1) * math.sqrt(n) / counts.sum()
    worst = max(part[3].max() for part in parts) / max(max(part[4].max() for part in parts), np.finfo(float).tiny)
    return HoldOut(
        sequences=n,
        scalars=int(counts.sum()),
        mean=float(losses.mean()),
        standard_error=math.sqrt(spread / n),
        bound=min(float(bound), limit),
        limit=limit,
        delta=delta,
        mean_square=float(square),
        mean_square_error=float(scatter),
        largest=float(worst),
    )


def expected_mean_square(noise: float, unknowns: int, scalars: int) -> float:
    r"""$\sigma^2(1 + p/N_o)$: the mean squared error of a new noisy number after a least-squares fit, to first order.

    For new sequences like those fitted; `unknowns` is p, the rank of the Jacobian, and `scalars` $N_o$, the numbers
    that were fitted. Exact on average where the new sequences are the fitted ones with new noise.
    """
    return noise**2 * (1 + unknowns / scalars)


def _sums(layer: AttentionLayer, part: Examples) -> Float[np.ndarray, "5 n"]:
    """A sequence's sums of squares of errors and labels, number of labels, largest error and largest label."""
    inputs, targets = part.inputs, part.targets
    answered = np.asarray(inputs.answered())[:, :, None]
    outputs = np.asarray(layer(inputs.X, inputs.present, inputs.rows)).reshape(targets.shape)
    errors, labels = np.where(answered, outputs - targets, 0.0), np.where(answered, targets, 0.0)
    counts = answered.sum(axis=(1, 2)) * targets.shape[2]
    sums = [np.square(array).sum(axis=(1, 2)) for array in (errors, labels)]
    return np.stack([*sums, counts, np.abs(errors).max(axis=(1, 2)), np.abs(labels).max(axis=(1, 2))])
