"""Does sculpting reach its numbers from random examples alone, whatever the seed?

Four problems, ten seeds each: the relative error on held-out rows of the layer restricted to the hull (faithful), the
errors of the circuits after the last fit (polished), and the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attnlearn.data.distributions import Planted
from attnlearn.records import Study
from attnlearn.studies.sculpted import Question, sculpted, study

QUESTION = "On how many seeds do the faithful and the polished layer reach their limits?"


@dataclass(frozen=True)
class Row:
    """One problem, and the faithful error that is asked of it."""

    problem: Planted
    faithful: float


ROWS = (
    Row(Planted(1, 6, 6, 6.0, 10_000, 0), 1e-3),
    Row(Planted(2, 8, 4, 4.0, 40_000, 0), 0.1),
    Row(Planted(3, 10, 2, 4.0, 400_000, 0), 0.06),
    Row(Planted(2, 8, 4, 4.0, 40_000, 0, noise=0.01), 0.1),
)


def sculpting_seeds(rows: Sequence[Row] = ROWS, seeds: Sequence[int] = tuple(range(10))) -> Study:
    """Whether sculpting reaches its numbers on ten seeds of four problems."""
    points = [replace(row, problem=replace(row.problem, seed=seed)) for row in rows for seed in seeds]
    question = Question("sculpting-seeds", QUESTION, lambda table: _answer(table, len(seeds)))
    return study(question, points, lambda point: sculpted(point.problem) | {"limit": point.faithful})


def _answer(table: Sequence[dict[str, Any]], seeds: int) -> str:
    words = []
    for first in range(0, len(table), seeds):
        rows = table[first : first + seeds]
        one = rows[0]
        name = f"({one['heads']}, {one['width']}, {one['tokens']}, {one['norm']:g}, {one['examples']:,})"
        reached = sum(row["trusted"] and row["faithful"] <= row["limit"] for row in rows)
        noise = f" with noise {one['noise']:g}" if one["noise"] else ""
        polished = max(np.inf if row["qk"] is None else row["qk"] for row in rows)
        slowest = max(row["seconds"] for row in rows)
        words.append(
            f"{name}{noise}: faithful error at most {one['limit']:g} on {reached} of {seeds}, worst QK circuit after "
            f"the polish {polished:.1g}, at most {slowest:.0f} s."
        )
    return " ".join(words)
