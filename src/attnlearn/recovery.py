"""Recover a layer: a learner for the source, then the certificate.

Only here does `Status.RECOVERED` arise: the learner finished and its certificate passed, from fresh questions to a
black box, or from what the examples themselves and held-out ones prove.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from attnlearn._status import Status, Stop
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.fresh_queries import PURPOSE, FreshQueryOptions, fresh_queries
from attnlearn.certify.from_examples import ExamplesOptions, examples_certificate
from attnlearn.data.examples import Examples
from attnlearn.data.queries import QueryOracle
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Slots
from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.learners.least_squares import VariableProjection
from attnlearn.learners.queries import MultiHeadQueries
from attnlearn.records import Certificate, Cost, Ledger, Phase, Statement

BOX_OPTIONS = ("rtol",)
EXAMPLE_OPTIONS = ("rtol", "delta", "held_out")


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
    source: QueryOracle | Examples,
    heads: int | None = None,
    slots: Slots | tuple[Slots, ...] | str | None = None,
    learner: AbstractLearner | str = "auto",
    seed: int = 0,
    **options: Any,
) -> Recovery:
    r"""Recovers the attention layer behind `source` and certifies it.

    **Arguments:**

    - `source`: a `QueryOracle` (`al.QueryOracle(fn, width)`, `al.pretrained("minilm")`, `al.oracles.from_torch(...)`),
        or `Examples`.
    - `heads`: expected number of heads, if known; found otherwise.
    - `slots`: normaliser and mask, if known; by default softmax. The mask of a box is found; for examples give
        candidates, or `"auto"`.
    - `learner`: `"auto"` or a learner object. For a `QueryOracle` auto is `al.learners.MultiHeadQueries`, for
        `Examples` `al.learners.VariableProjection`.
    - `seed`: of all randomness; the same seed asks the same questions.
    - `options`: fields of the learner (`head_dim`, `amplitude`, `noise`, ...), and of the certificate: `rtol`, the
        relative error that it allows; for examples `held_out`, `Examples` that the learner does not see or the share
        of `source` to hold out, and `delta`, the probability with which the bound on their error may be wrong.

    **Guarantee.** With status `RECOVERED` the certificate passed; the statements of `certificate` say what that
    proves. A black box agreed with the layer on 64 fresh sequences. On examples the residual is zero, or noise, and
    they determine the layer up to its symmetries, locally. On every other status `layer` is the best so far or `None`.

    **Cost:** see the learner. For a box, 64 sequences and one for each of `source.activations` for the certificate;
    with a budget these are reserved before learning starts. For examples, a decomposition of the Jacobian.

    **Raises:** `TypeError`, `ValueError` for wrong use only. A box that fails, contradicts itself or runs out of
    budget, and examples that no layer explains, give a status.
    """
    if not isinstance(source, QueryOracle | Examples):
        raise TypeError(
            f"source must be a QueryOracle or Examples, got {type(source).__name__}: wrap a function as "
            "al.QueryOracle(fn, width), a layer as al.oracles.from_layer(layer), arrays as al.Examples(X, Y)"
        )
    _refuse_other_source(learner, source)
    of_judge = BOX_OPTIONS if isinstance(source, QueryOracle) else EXAMPLE_OPTIONS
    judging = {name: options.pop(name) for name in of_judge if name in options}
    kind = MultiHeadQueries if isinstance(source, QueryOracle) else VariableProjection
    known = {"heads": heads} | ({} if slots is None else {"slots": slots})
    learner = _chosen(learner, kind, known, options, of_judge)
    if isinstance(source, QueryOracle):
        return _from_queries(source, learner, seed, FreshQueryOptions(scale=getattr(learner, "scale", 1.0), **judging))
    return _from_examples(source, learner, seed, judging)


def _from_queries(source: QueryOracle, learner: AbstractLearner, seed: int, judge: FreshQueryOptions) -> Recovery:
    source.reserve(PURPOSE, judge.questions + _given_sequences(source))
    try:
        learned = learner.learn(source, np.random.default_rng(seed))
        status, certificate, evidence = _certified(
            learned, lambda layer: fresh_queries(layer, source, np.random.default_rng([seed, 1]), judge)
        )
    finally:
        source.release(PURPOSE)
    return _recovery(learned, status, certificate, evidence, source.ledger)


def _from_examples(source: Examples, learner: AbstractLearner, seed: int, judging: dict[str, Any]) -> Recovery:
    held_out = judging.pop("held_out", None)
    if isinstance(held_out, float | np.floating):
        source, held_out = source.split(float(held_out), np.random.default_rng([seed, 2]))
    if not isinstance(held_out, Examples | None):
        raise TypeError(f"held_out must be Examples, or a share between 0 and 1 of the source, got {held_out!r}")
    if held_out is not None and (held_out.width, held_out.width_out) != (source.width, source.width_out):
        raise ValueError(
            f"held_out maps width {held_out.width} to {held_out.width_out}, "
            f"the source {source.width} to {source.width_out}"
        )
    free = ("qk", "ov", *(name for name in ("query_bias", "offset") if getattr(learner, name, True)))
    options = ExamplesOptions(
        noise=getattr(learner, "noise", None),
        unknowns=Unknowns(free, getattr(learner, "head_dim", None)),
        held_out=held_out,
        **judging,
    )
    learned = learner.learn(source, np.random.default_rng(seed))
    status, certificate, evidence = _certified(learned, lambda layer: examples_certificate(layer, source, options))
    return _recovery(learned, status, certificate, evidence, None)


def _recovery(
    learned: Learned, status: Status, certificate: Certificate | None, evidence: str, ledger: Ledger | None
) -> Recovery:
    return Recovery(learned.layer, status, learned.cost, certificate, learned.phases, ledger, evidence, learned.arrays)


def _given_sequences(source: QueryOracle) -> int:
    """How many sequences of its own the source brings; refuses bad ones before anything is learned."""
    given = [] if source.activations is None else [np.asarray(x) for x in source.activations]
    for x in given:
        if x.ndim != 2 or x.shape[1] != source.width or not len(x) or not np.isfinite(x).all():
            raise ValueError(f"source.activations must be finite arrays (k, {source.width}), got one of {x.shape}")
    return len(given)


def _refuse_other_source(learner: AbstractLearner | str, source: QueryOracle | Examples) -> None:
    """A learner says what it learns from as `AbstractLearner[...]`."""
    named = [kind for base in getattr(type(learner), "__orig_bases__", ()) for kind in get_args(base)]
    wanted = [kind for kind in named if isinstance(kind, type)]
    if wanted and not isinstance(source, tuple(wanted)):
        names = " or ".join(kind.__name__ for kind in wanted)
        raise TypeError(f"{type(learner).__name__} learns from {names}, and source is {type(source).__name__}")


def _chosen(
    learner: AbstractLearner | str,
    kind: type[AbstractLearner],
    known: dict[str, Any],
    options: dict[str, Any],
    of_judge: tuple[str, ...],
) -> AbstractLearner:
    if isinstance(learner, AbstractLearner):
        given = [*options, *(name for name, value in known.items() if value is not None)]
        if given:
            raise TypeError(f"{', '.join(given)}: set these as fields of the {type(learner).__name__} that was passed")
        return learner
    if learner != "auto":
        raise TypeError(f"learner must be 'auto' or a learner object, got {learner!r}: see al.learners")
    names = set(inspect.signature(kind).parameters)
    unknown = sorted(set(options) - names)
    if unknown:
        raise TypeError(f"unknown option {', '.join(unknown)}; known are {', '.join(sorted({*of_judge, *names}))}")
    return kind(**known, **options)


def _certified(
    learned: Learned, certify: Callable[[AttentionLayer], Certificate]
) -> tuple[Status, Certificate | None, str]:
    """The final status: promotion to `RECOVERED` when the certificate passes."""
    if learned.status is not Status.LEARNED or learned.layer is None:
        return learned.status, None, learned.evidence
    try:
        certificate = certify(learned.layer)
    except Stop as stop:
        return stop.status, None, f"The layer was learned; its certificate stopped. {stop.evidence}"
    except KeyboardInterrupt:
        return Status.INTERRUPTED, None, "The layer was learned; the certificate was not finished."
    if certificate.passed:
        return Status.RECOVERED, certificate, learned.evidence
    failed = [statement for statement in certificate.statements if not statement.holds]
    return Status.NOT_CERTIFIED, certificate, f"{_failures(failed)} {learned.evidence}".strip()


def _failures(failed: list[Statement]) -> str:
    agreements = [s for s in failed if s.name.startswith("agreement")]
    worst = "; ".join(f"{s.name}: {s.value:.1e} where {s.limit:.1e} is allowed" for s in agreements or failed)
    if agreements:
        return f"Relative error on fresh sequences, {worst}. An error that you accept is given as rtol."
    return f"What failed: {worst}."
