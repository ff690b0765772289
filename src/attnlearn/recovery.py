"""Recover a layer: a learner for the source, then the certificate.

Only here does `Status.RECOVERED` arise: the learner finished and fresh questions agree with what it learned.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attnlearn._status import Status, Stop
from attnlearn.certify.fresh_queries import PURPOSE, FreshQueryOptions, fresh_queries
from attnlearn.data.queries import QueryOracle
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Slots
from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.learners.queries import MultiHeadQueries
from attnlearn.records import Certificate, Cost, Ledger, Phase


@dataclass(frozen=True)
class Recovery:
    """What `recover` returns.

    `layer`: the layer learned, or the best so far, or `None`; `status`: `RECOVERED` and nothing else is success;
    `cost` of learning alone; `certificate`: `None` when learning did not finish; `phases` of the learner; `ledger`:
    everything that was asked, the certificate with it; `evidence`: the figures behind the status; `arrays`: what
    single stages had learned.
    """

    layer: AttentionLayer | None
    status: Status
    cost: Cost
    certificate: Certificate | None = field(repr=False)
    phases: tuple[Phase, ...] = field(repr=False)
    ledger: Ledger | None = field(repr=False)
    evidence: str = ""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)


def recover(
    source: QueryOracle,
    heads: int | None = None,
    slots: Slots | None = None,
    learner: AbstractLearner | str = "auto",
    seed: int = 0,
    **options: Any,
) -> Recovery:
    r"""Recovers the attention layer behind `source` and certifies it.

    **Arguments:**

    - `source`: a `QueryOracle` (`al.QueryOracle(fn, width)`, `al.pretrained("minilm")`, `al.oracles.from_torch(...)`).
    - `heads`: expected number of heads, if known; found otherwise.
    - `slots`: normaliser and mask, if known; by default softmax, and the mask is found.
    - `learner`: `"auto"` or a learner object. For a `QueryOracle` auto is `al.learners.MultiHeadQueries`.
    - `seed`: of all randomness; the same seed asks the same questions.
    - `options`: fields of the learner (`head_dim`, `amplitude`, `economy`, ...), and `rtol`: the relative error that
        the certificate allows ($10^{-6}$, or 1000 roundings of a float32 box).

    **Guarantee.** With status `RECOVERED` the layer agreed with the box on 64 fresh sequences; the statements of
    `certificate` say what that proves. On every other status `layer` is the best so far or `None`.

    **Cost:** see the learner; 64 sequences, and one for each of `source.activations`, for the certificate. With a
    budget these are reserved before learning starts.

    **Raises:** `TypeError`, `ValueError` for wrong use only. A box that fails, contradicts itself or runs out of
    budget gives a status.
    """
    if not isinstance(source, QueryOracle):
        raise TypeError(
            f"source must be a QueryOracle, got {type(source).__name__}: wrap a function as "
            "al.QueryOracle(fn, width), a layer as al.oracles.from_layer(layer)"
        )
    rtol = options.pop("rtol", None)
    learner = _chosen(learner, {"heads": heads, "slots": slots}, options)
    judge = FreshQueryOptions(rtol=rtol, scale=getattr(learner, "scale", 1.0))
    source.reserve(PURPOSE, judge.questions + _given_sequences(source))
    try:
        learned = learner.learn(source, np.random.default_rng(seed))
        status, certificate, evidence = _certified(learned, source, judge, np.random.default_rng([seed, 1]))
    finally:
        source.release(PURPOSE)
    return Recovery(
        learned.layer,
        status,
        learned.cost,
        certificate,
        learned.phases,
        source.ledger,
        evidence,
        learned.arrays,
    )


def _given_sequences(source: QueryOracle) -> int:
    """How many sequences of its own the source brings; refuses bad ones before anything is learned."""
    given = [] if source.activations is None else [np.asarray(x) for x in source.activations]
    for x in given:
        if x.ndim != 2 or x.shape[1] != source.width or not len(x) or not np.isfinite(x).all():
            raise ValueError(f"source.activations must be finite arrays (k, {source.width}), got one of {x.shape}")
    return len(given)


def _chosen(learner: AbstractLearner | str, known: dict[str, Any], options: dict[str, Any]) -> AbstractLearner:
    if isinstance(learner, AbstractLearner):
        given = [*options, *(name for name, value in known.items() if value is not None)]
        if given:
            raise TypeError(f"{', '.join(given)}: set these as fields of the {type(learner).__name__} that was passed")
        return learner
    if learner != "auto":
        raise TypeError(f"learner must be 'auto' or a learner object, got {learner!r}: see al.learners")
    names = set(inspect.signature(MultiHeadQueries).parameters)
    unknown = sorted(set(options) - names)
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}; known are rtol, {', '.join(sorted(names))}")
    return MultiHeadQueries(**known, **options)


def _certified(
    learned: Learned, source: QueryOracle, judge: FreshQueryOptions, key: np.random.Generator
) -> tuple[Status, Certificate | None, str]:
    """The final status: promotion to `RECOVERED` when the certificate passes."""
    if learned.status is not Status.LEARNED or learned.layer is None:
        return learned.status, None, learned.evidence
    try:
        certificate = fresh_queries(learned.layer, source, key, judge)
    except Stop as stop:
        return stop.status, None, f"The layer was learned; its certificate stopped. {stop.evidence}"
    except KeyboardInterrupt:
        return Status.INTERRUPTED, None, "The layer was learned; the certificate was not finished."
    if certificate.passed:
        return Status.RECOVERED, certificate, learned.evidence
    failed = [s for s in certificate.statements if s.name.startswith("agreement") and not s.holds]
    worst = "; ".join(f"{s.name}: {s.value:.1e} where {s.limit:.1e} is allowed" for s in failed)
    evidence = f"Relative error on fresh sequences, {worst}. An error that you accept is given as rtol."
    return Status.NOT_CERTIFIED, certificate, f"{evidence} {learned.evidence}".strip()
