"""Where does sculpting work beyond the problems that it was tried on first, and what do certificates a head add?

Seeds at which the hull was missed, three heads at width 8, twelve tokens, noise of 2 to 20 %, correlated heads: the
faithful error, the error after sharpening, and the circuits after a polish.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting import Sculpting, Sharpening
from attnlearn.records import Study
from attnlearn.studies.sculpted import Question, sculpted, study

QUESTION = "Which of the hard problems does the hull reach, which does sharpening, which the polish?"
CENTRE = (2, 8, 4, 4.0, 40_000)
GROUPS: dict[str, tuple[Planted, ...]] = {
    "missed seeds": (
        Planted(*CENTRE, 0),
        Planted(2, 8, 4, 6.0, 60_000, 0),
        Planted(2, 8, 3, 4.0, 100_000, 0),
        Planted(2, 6, 4, 4.0, 40_000, 0),
    ),
    "three heads, width 8": (
        Planted(3, 8, 2, 4.0, 400_000, 0),
        Planted(3, 8, 2, 4.0, 400_000, 1),
        Planted(3, 8, 3, 4.0, 200_000, 0),
    ),
    "twelve tokens": (
        Planted(2, 6, 12, 6.0, 20_000, 0),
        Planted(2, 8, 12, 6.0, 30_000, 0),
        Planted(2, 8, 12, 12.0, 100_000, 0),
    ),
    "noise": tuple(Planted(*CENTRE, seed, noise=noise) for noise in (0.02, 0.05, 0.1, 0.2) for seed in (1, 2)),
    "correlated": tuple(Planted(*CENTRE, seed, correlation=rho) for rho in (0.5, 0.9, 0.99) for seed in (1, 2)),
}


def sculpting_region(groups: dict[str, tuple[Planted, ...]] | None = None) -> Study:
    """Which hard problems the hull reaches, which sharpening, and which the polish."""
    points = [(name, one) for name, some in (groups or GROUPS).items() for one in some]
    return study(Question("sculpting-region", QUESTION, _answer), points, _row)


def _row(point: tuple[str, Planted]) -> dict[str, Any]:
    name, problem = point
    return {"group": name} | sculpted(problem, Sculpting(heads=problem.heads, sharpening=Sharpening()))


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    words = []
    for name in dict.fromkeys(row["group"] for row in rows):
        some = [row for row in rows if row["group"] == name]
        hull = sum(row["trusted"] for row in some)
        sharp = sum(row["sharpened"] is not None and row["sharpened"] <= 0.01 + 1.1 * row["noise"] for row in some)
        polished = sum(row["qk"] is not None and row["qk"] <= 1e-10 + 0.5 * row["noise"] for row in some)
        words.append(f"{name}: hull trusted {hull}, sharpened {sharp}, polished {polished} of {len(some)}")
    worst = np.max([row["seconds"] for row in rows])
    return f"{'; '.join(words)}; at most {worst:.0f} s."
