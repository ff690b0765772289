"""Puts what was learned beside the truth, where there is one, and makes the record of a run.

This is the only room that reads `.truth`, and it comes after learning: nothing goes back to a learner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attnlearn import records
from attnlearn.data import Examples, QueryOracle
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.matching import distance
from attnlearn.layers.symmetries import canonical

_RANK_TOLERANCE = 1e-9  # of the largest singular value: above the rounding of a product of two float64 factors
_STAGE_ARRAYS = {"offset", "ov_sum", "atoms", "directions", "ov"}  # a whole layer holds these itself
_SENTENCES, _PIECES = 3, 20  # shown: so many sentences, of at most so many word pieces where there are such


@dataclass(frozen=True)
class Run:
    """What was asked of `recover`: the words for source and learner, the seed, and what was given in advance."""

    source: str
    learner: str = "auto"
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def record_of(result: Any, source: QueryOracle | Examples, run: Run) -> tuple[records.Record, dict[str, np.ndarray]]:
    """The record of `result`, which `recover` returned for `source`, and the arrays that belong beside it.

    Where `source.truth` is a layer, the learned layer is judged by `distance` and by its attention maps on a few
    short sequences: of an oracle's `activations`, arrays (k, d) with their word pieces in `tokens`, or of the examples.
    """
    examples = isinstance(source, Examples)
    record = records.Record(
        source=run.source,
        status=result.status.name,
        sentence=result.status.value,
        evidence=result.evidence,
        seed=run.seed,
        learner=run.learner,
        options=run.options,
        examples=len(source) if examples else None,
        dtype=np.dtype(source.dtype).name,
        noise=0.0 if examples else source.noise,
        width=source.width,
        width_out=source.width_out,
        cost=result.cost,
        ledger=result.ledger,
        phases=tuple(result.phases),
        certificate=result.certificate,
        conditioning=_conditioning(result),
    )
    if result.layer is None:
        return record, dict(result.arrays)
    arrays = {name: value for name, value in result.arrays.items() if name not in _STAGE_ARRAYS}
    return _described(record, arrays, result.layer, source)


def _described(
    record: records.Record, arrays: dict[str, np.ndarray], layer: AttentionLayer, source: QueryOracle | Examples
) -> tuple[records.Record, dict[str, np.ndarray]]:
    """The record with everything that a learned layer and, where it is known, the true one can tell."""
    heads, spectra = head_table(layer)
    sentences, tokens = _examples(source) if isinstance(source, Examples) else _sentences(source)
    record = replace(
        record,
        width_out=layer.width_out,
        slots=_slots(layer),
        heads=heads,
        floor=records.floor(heads, layer.width, layer.width_out),
        sentences=tokens,
    )
    arrays = spectra | arrays | {f"maps_learned_{n}": np.asarray(layer.maps(X)) for n, X in enumerate(sentences)}
    return (record, arrays) if source.truth is None else _judged(record, arrays, (layer, source.truth, sentences))


def _judged(
    record: records.Record, arrays: dict[str, np.ndarray], pair: tuple[AttentionLayer, AttentionLayer, list[np.ndarray]]
) -> tuple[records.Record, dict[str, np.ndarray]]:
    """The record with the errors of the learned layer against the true one, head by head and on the sentences."""
    layer, truth, sentences = pair
    apart = distance(layer, truth)
    judgement = records.Judgement(canonical(truth).heads, apart.qk, apart.ov, apart.query_bias, apart.offset)
    if sorted(apart.permutation) != list(range(layer.heads)):
        return replace(record, judgement=judgement), arrays  # some head has no partner to stand beside
    matched = sorted(apart.per_head, key=lambda one: one.matched)
    heads = tuple(
        replace(head, qk_error=one.qk, ov_error=one.ov) for head, one in zip(record.heads, matched, strict=True)
    )
    order = [one.head for one in matched]
    true = {f"maps_true_{n}": np.asarray(truth.maps(X))[order] for n, X in enumerate(sentences)}
    if sentences:
        maps = max(np.max(np.abs(arrays[f"maps_learned_{n}"] - true[f"maps_true_{n}"])) for n in range(len(sentences)))
        apart_by = [(np.max(np.abs(layer(X) - truth(X))), np.max(np.abs(truth(X)))) for X in sentences]
        outputs = max(float(error / (largest or 1.0)) for error, largest in apart_by)
        judgement = replace(judgement, maps=float(maps), outputs=outputs)
    return replace(record, heads=heads, judgement=judgement), arrays | true


def head_table(layer: AttentionLayer) -> tuple[tuple[records.Head, ...], dict[str, np.ndarray]]:
    """Norms and numeric ranks of every head, and the singular values (heads, n) that they come from."""
    qk, ov = (np.linalg.svd(circuit, compute_uv=False) for circuit in (layer.qk, layer.ov))
    ranks = [np.sum(values > _RANK_TOLERANCE * values[:, :1], axis=1) for values in (qk, ov)]
    columns = np.linalg.norm(qk, axis=1), np.linalg.norm(ov, axis=1), np.linalg.norm(layer.query_bias, axis=1)
    heads = tuple(
        records.Head(float(a), float(b), float(c), int(r), int(s))
        for a, b, c, r, s in zip(*columns, *ranks, strict=True)
    )
    return heads, {"spectrum_qk": qk, "spectrum_ov": ov}


def _sentences(oracle: QueryOracle) -> tuple[list[np.ndarray], tuple[tuple[str, ...], ...]]:
    """The first sentences that are short enough to show, or the shortest where none is; with their word pieces."""
    if oracle.activations is None or oracle.tokens is None:
        return [], ()
    pairs = list(zip(oracle.activations, oracle.tokens, strict=True))
    short = [pair for pair in pairs if len(pair[1]) <= _PIECES] or sorted(pairs, key=lambda pair: len(pair[1]))
    shown = short[:_SENTENCES]
    return [np.asarray(X, np.float64) for X, _ in shown], tuple(tuple(map(str, pieces)) for _, pieces in shown)


def _examples(examples: Examples) -> tuple[list[np.ndarray], tuple[tuple[str, ...], ...]]:
    """The first examples, their tokens named by their numbers, where they are short enough to show."""
    part = next(examples.chunks(_SENTENCES))
    present = np.ones(part.X.shape[:2], bool) if part.mask is None else part.mask
    shown = [X[there] for X, there in zip(part.X, present, strict=True) if there.sum() <= _PIECES]
    return shown, tuple(tuple(str(token + 1) for token in range(len(X))) for X in shown)


def _slots(layer: AttentionLayer) -> dict[str, str]:
    """The slots by the names of their values."""
    values = {"normaliser": layer.slots.normaliser, "mask": layer.slots.mask}
    return {name: "none" if value is None else type(value).__name__ for name, value in values.items()}


def _conditioning(result: Any) -> dict[str, float]:
    """Condition numbers, of the result or among the figures of its phases, there under the name of the phase."""
    found = dict(getattr(result, "conditioning", {}))
    for phase in result.phases:
        for name, value in phase.figures.items():
            if name.startswith("cond") and isinstance(value, (int, float)):
                own = name.removeprefix("conditioning").removeprefix("cond").strip("_").replace("_", " ")
                found[f"{phase.name}: {own}" if own else phase.name] = float(value)
    return found
