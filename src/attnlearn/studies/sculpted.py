"""One run of sculpting on a planted problem, phase by phase beside the truth; what all studies of it share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn._status import Status
from attnlearn.data.distributions import Planted
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.matching import distance
from attnlearn.learners._base import Learned
from attnlearn.learners.sculpting import Sculpting
from attnlearn.records import Study
from attnlearn.studies.points import each

FRESH = 2000  # examples without noise on which a learned layer is judged


def sculpted(problem: Planted, learner: Sculpting | None = None) -> dict[str, Any]:
    """A row of a table: the problem, and what each phase came to; `None` where a phase was not reached."""
    examples = problem.draw()
    learner = Sculpting(heads=problem.heads) if learner is None else learner
    start = time.perf_counter()
    learned = learner.learn(examples, np.random.default_rng(0))
    seconds = time.perf_counter() - start
    return asdict(problem) | {"seconds": seconds} | phases(learned, examples) | _judged(learned, problem)


def phases(learned: Learned, examples: Examples) -> dict[str, Any]:
    """What each phase says of itself, and how far it is from the truth of `examples`."""
    if learned.status is Status.INTERRUPTED:  # a study is stopped as a whole
        raise KeyboardInterrupt
    told = {phase.name: phase.figures for phase in learned.phases}
    assert examples.truth is not None  # planted
    ov_sum = np.sum(examples.truth.ov, axis=0)
    point, directions = (learned.arrays.get(name) for name in ("hull_point", "hull_directions"))
    apart, angle = (None, None) if point is None else hull_errors(point, directions, examples.truth)
    crude = {
        name: _relative(learned.arrays.get(f"crude_{name}"), ov_sum) for name in ("paper", "off_diagonal", "slice")
    }
    return {
        "status": learned.status.name,
        "crude": crude,
        "score": told.get("ov_sum", {}).get("score"),
        "ov_sum": _relative(learned.arrays.get("ov_sum"), ov_sum),
        "accepted": told.get("certificates", {}).get("accepted"),
        "gap": told.get("hull", {}).get("gap"),
        "gaps": told.get("hull", {}).get("gaps"),
        "counted": told.get("hull", {}).get("heads"),
        "distance": apart,
        "angle": angle,
        "faithful": told.get("faithful", {}).get("error"),
        "sharpened": told.get("sharpened", {}).get("error"),
        "trusted": told.get("faithful", {}).get("trusted", False),
        "start": told.get("polished", {}).get("start"),
    }


def _judged(learned: Learned, problem: Planted) -> dict[str, Any]:
    """Errors of the learned layer: of its circuits, and of its outputs on fresh examples without noise."""
    if learned.layer is None:
        return {"qk": None, "ov": None, "polished": None}
    fresh = problem.held_out(FRESH)
    apart = distance(learned.layer, problem.layer())
    outputs = np.asarray(learned.layer(fresh.X))
    error = float(np.linalg.norm(outputs - fresh.Y) / np.linalg.norm(fresh.Y))
    # infinite where heads ran together: no number
    qk, ov = (one if np.isfinite(one) else None for one in (apart.qk, apart.ov))
    return {"qk": qk, "ov": ov, "polished": error}


def hull_errors(
    point: Float[np.ndarray, "d d"], directions: Float[np.ndarray, "n d d"] | None, truth: AttentionLayer
) -> tuple[float, float]:
    """The worst relative distance of a true head from the hull, and the largest angle, in degrees, between the span of
    the hull and that of the true heads."""
    V = np.zeros((0, point.size)) if directions is None else directions.reshape(-1, point.size)
    heads = np.asarray(truth.qk).reshape(truth.heads, -1)
    off = heads - point.ravel()
    off -= off @ V.T @ V
    bases = [np.linalg.qr(np.asarray(span).T)[0] for span in (np.r_[point.reshape(1, -1), V], heads)]
    cosines = np.clip(np.linalg.svd(bases[0].T @ bases[1], compute_uv=False), 0, 1)
    worst = float((np.linalg.norm(off, axis=1) / np.linalg.norm(heads, axis=1)).max())
    return worst, float(np.degrees(np.arccos(cosines.min())))


class Question(NamedTuple):
    """Name and question of a study of problems, and how its rows become an answer."""

    name: str
    asked: str
    answer: Callable[[Sequence[dict[str, Any]]], str]


def study(question: Question, points: Sequence[Any], work: Callable[[Any], dict[str, Any]]) -> Study:
    """The record with a row for every point, which holds a planted problem; the design is their number."""
    rows, seconds = each(question.name, points, points, work)
    design = {"problems": len(rows), "fresh_examples": FRESH}
    return Study(question.name, question.asked, question.answer(rows), design, rows, seconds)


def _relative(found: np.ndarray | None, true: np.ndarray) -> float | None:
    return None if found is None else float(np.linalg.norm(found - true) / np.linalg.norm(true))
