r"""Fresh questions: the layer and the black box answer new sequences, and the layer must agree on every one.

The certificate looks at a layer and at an oracle, so it holds whoever made the layer. What it proves is a statement
about the distribution that was asked, with no assumption on the box:

    n independent sequences, all agree   =>   with probability 1 - delta over their draw, at most the fraction
                                              1 - delta^(1/n) of such sequences disagrees.

With n = 64 and delta = 1e-3 the fraction is 10.2 %. It says nothing about other sequences (longer, at another scale,
real text), so the sequences are a mixture: long and short, small and large tokens. Outputs are analytic in the tokens,
so in exact arithmetic two layers that differ as functions differ on almost every Gaussian sequence of a length at which
they differ at all; the fraction is what remains provable where agreement is up to a tolerance.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn.data.queries import QueryOracle
from attnlearn.layers.attention import AttentionLayer
from attnlearn.records import Certificate, Statement

PURPOSE = "certificate"

SEPARATE = 1e-6  # relative distance of two QK circuits: nearer heads trade their OV at errors below the usual `rtol`
ILL_CONDITIONED = 1e6  # condition number that lifts float64 rounding to 1e-10
RANK_TOLERANCE = 1e-9  # of the largest singular value of an OV circuit


class Kind(NamedTuple):
    """Sequences of one kind: how many, their tokens, and the standard deviation of an entry."""

    sequences: int
    tokens: int
    scale: float


# Each kind sees what the others miss: three large tokens make attention hard, thirty-two small ones leave it soft,
# and a single token shows the offset and the sum of the OV circuits alone.
MIXTURE = (Kind(36, 12, 1.0), Kind(12, 3, 3.0), Kind(12, 32, 0.3), Kind(4, 1, 1.0))


@dataclass(frozen=True)
class FreshQueryOptions:
    r"""What is asked and how closely it must agree.

    - `scale`: standard deviation of an entry of a token; the scales of `mixture` are multiples of it.
    - `rtol`: largest relative error allowed. `None`: $\max(10^{-6}, 10^3\epsilon)$ with the rounding $\epsilon$ of
      the oracle; $10^3$ is the conditioning at which a layer is usually read out of its answers.
    - `delta`: probability with which the statement about all such sequences may be wrong.
    - `mixture`: the kinds of fresh sequences; 64 in all.
    """

    scale: float = 1.0
    rtol: float | None = None
    delta: float = 1e-3
    mixture: tuple[Kind, ...] = MIXTURE

    def __post_init__(self):
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.rtol is not None and not self.rtol > 0:
            raise ValueError(f"rtol must be positive or None, got {self.rtol}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie between 0 and 1, got {self.delta}")
        if not self.mixture or min(min(kind) for kind in self.mixture) <= 0:
            raise ValueError(f"mixture must hold kinds of positive numbers, got {self.mixture}")

    @property
    def questions(self) -> int:
        """Number of fresh sequences, the user's own not counted."""
        return sum(kind.sequences for kind in self.mixture)


class _Answer(NamedTuple):
    """How one sequence was answered; the least attention weight is 0 for one token."""

    apart: float
    allowed: float
    size: float
    least_weight: float

    @property
    def agrees(self) -> bool:
        return self.apart <= self.allowed

    @property
    def error(self) -> float:
        return _ratio(self.apart, self.size)

    @property
    def limit(self) -> float:
        return _ratio(self.allowed, self.size)


def fresh_queries(
    layer: AttentionLayer,
    oracle: QueryOracle,
    key: np.random.Generator,
    options: FreshQueryOptions = FreshQueryOptions(),
) -> Certificate:
    r"""Asks fresh random sequences, and the oracle's own `activations` where it has any, and compares `layer`.

    The error of a sequence is $\max|F - \hat F| / \max|F - \hat c|$, over its rows and outputs, with the box $F$, the
    layer $\hat F$ and its offset $\hat c$: an offset, however large, hides nothing. (One token is measured by at least
    the smallest answer before it, because its answer is the bare offset where the OV circuits cancel.) A sequence
    agrees when the error is at most `rtol`, or when the difference is at most $10\tau$ with the declared noise
    $\tau$: 7 standard deviations, and 3 for what the noise did to the layer.

    **Guarantee.** With $n$ independent sequences that all agree, with probability $1-\delta$ over their draw at most
    the fraction $1-\delta^{1/n}$ of the sequences of this mixture disagrees: each kind $k$ disagrees with an unknown
    probability $q_k$, and $\prod(1-q_k)^{n_k} \le (1-q)^n$ with $q = \sum q_k n_k/n$ by the concavity of the
    logarithm (for one kind: Clopper and Pearson's bound at no failure). Assumes that `key` is independent of the
    layer and that the box is a function. Nothing is claimed about other sequences; on `activations` the errors are
    what was seen, no more.

    **Cost:** `options.questions` sequences (64), and one for each of `activations`, asked with the purpose
    "certificate". `passed` is decided by agreement on all sequences, given ones too; the statements on conditioning
    say how well a layer is determined by its answers.

    **Raises:** `Stop` from the oracle (budget, failure, contradiction); `ValueError` where the widths differ.
    """
    if layer.width != oracle.width:
        raise ValueError(f"the layer has width {layer.width} and the oracle {oracle.width}")
    answers, statements, asked = [], [], 0
    for name, batches in _questions(oracle, key, options):
        floor = min((answer.size for answer in answers), default=0.0)
        found = [answer for X in batches for answer in _compare(layer, oracle, X, options.rtol, floor)]
        answers += found
        asked += len(found)
        progress("certificate", asked, options.questions)
        statements.append(_agreement(name, found))
    statements.append(_coverage(options, all(answer.agrees for answer in answers[: options.questions])))
    statements += [*_separation(layer), *_stacked_outputs(layer), _visibility(answers, oracle.epsilon)]
    passed = all(answer.agrees for answer in answers)
    return Certificate(passed, max(answer.error for answer in answers), tuple(statements))


def _questions(
    oracle: QueryOracle, key: np.random.Generator, options: FreshQueryOptions
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Names of the kinds with their batches (n, k, d), the user's own sequences last."""
    for sequences, tokens, scale in options.mixture:
        X = options.scale * scale * key.standard_normal((sequences, tokens, oracle.width))
        kind = f"{tokens} tokens" if tokens > 1 else "1 token, the offset and the sum rule"
        yield f"{kind}, scale {options.scale * scale:g}", [X]
    if oracle.activations is not None and len(oracle.activations):
        yield "given sequences", [np.asarray(x)[None] for x in oracle.activations]


def _compare(
    layer: AttentionLayer, oracle: QueryOracle, X: Float[np.ndarray, "n k d"], rtol: float | None, floor: float
) -> list[_Answer]:
    """How the sequences of one batch are answered; the layer sees them cast to the precision of the box.

    `floor`: least size that counts for an answer to one token, which is the bare offset where heads cancel.
    """
    X = X.astype(oracle.dtype).astype(np.float64)
    truth = oracle.ask(X, purpose=PURPOSE)
    if truth.shape[-1] != layer.width_out:
        raise ValueError(f"the layer has {layer.width_out} outputs and the oracle {truth.shape[-1]}")
    apart = np.abs(layer(X) - truth).max(axis=(1, 2))
    size = np.abs(truth - layer.offset).max(axis=(1, 2))
    size = np.maximum(size, floor) if X.shape[1] == 1 else size
    visible = np.asarray(layer.slots.visible(X.shape[1]))
    weights = np.where(visible, layer.maps(X), 1.0) if X.shape[1] > 1 else np.zeros((len(X), 1, 1, 1))
    least = weights.min(axis=(1, 2, 3), initial=1.0)
    rtol = max(1e-6, 1e3 * oracle.epsilon) if rtol is None else rtol
    allowed = np.maximum(rtol * size, 10 * oracle.noise)
    return [_Answer(*map(float, row)) for row in zip(apart, allowed, size, least, strict=True)]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (math.inf if part else 0.0)


def _agreement(name: str, answers: list[_Answer]) -> Statement:
    worst = max(answers, key=lambda answer: _ratio(answer.apart, answer.allowed))
    return Statement(
        f"agreement: {name}",
        f"The layer answers as the box does on {len(answers)} sequences: largest difference over largest answer.",
        "None: this is what was seen.",
        worst.error,
        worst.limit,
        all(answer.agrees for answer in answers),
    )


def _coverage(options: FreshQueryOptions, passed: bool) -> Statement:
    fraction = -math.expm1(math.log(options.delta) / options.questions)
    return Statement(
        "fraction of sequences",
        f"With probability {1 - options.delta:g}, at most this fraction of random sequences of these kinds disagrees.",
        "Gaussian sequences in the proportions asked, drawn independently of the layer. No claim on other sequences.",
        fraction if passed else 1.0,
        fraction,
        passed,
    )


def _visibility(answers: list[_Answer], epsilon: float) -> Statement:
    weight = max(answer.least_weight for answer in answers)
    return Statement(
        "visible attention",
        "Every score leaves a trace in some answer: the largest, over sequences, of the least attention weight.",
        "The sequences of two or more tokens in this certificate.",
        weight,
        epsilon,
        weight > epsilon,
    )


def _separation(layer: AttentionLayer) -> list[Statement]:
    scores = np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1)
    pairs = [(i, j) for i in range(layer.heads) for j in range(i)]
    if not pairs:
        return []
    norms = np.linalg.norm(scores, axis=(1, 2))
    apart = min(
        float(np.linalg.norm(scores[i] - scores[j]) / max(norms[i], norms[j], np.finfo(float).tiny)) for i, j in pairs
    )
    return [
        Statement(
            "separation of heads",
            "No two heads have the same scores, so the circuits are unique up to the order of the heads: "
            "smallest relative distance of two QK circuits with query biases.",
            "Exact arithmetic; every OV circuit differs from zero; sequences of three tokens or more.",
            apart,
            SEPARATE,
            apart > SEPARATE,
        )
    ]


def _stacked_outputs(layer: AttentionLayer) -> list[Statement]:
    """Condition number of the stacked row spaces of the OV circuits, where they can be independent."""
    _, values, rows = np.linalg.svd(layer.ov, full_matrices=False)
    kept = values > RANK_TOLERANCE * values.max(initial=0.0)
    if not kept.any() or kept.sum() > layer.width_out:
        return []
    spectrum = np.linalg.svd(rows[kept], compute_uv=False)
    condition = float(spectrum[0] / max(spectrum[-1], np.finfo(float).tiny))
    return [
        Statement(
            "independence of outputs",
            "The heads write to independent outputs, so each can be read alone: "
            "condition number of their stacked row spaces, by which errors of answers are enlarged.",
            f"Ranks cut at {RANK_TOLERANCE:g} of the largest singular value.",
            condition,
            ILL_CONDITIONED,
            condition < ILL_CONDITIONED,
        )
    ]
