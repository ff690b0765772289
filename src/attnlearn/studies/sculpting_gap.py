"""Can the gap be believed? Random problems: the gap of the hull beside its true error, and where the gap peaks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting import Sculpting
from attnlearn.records import Study
from attnlearn.studies.sculpted import Question, sculpted, study

QUESTION = "How far is the hull from the true heads where its gap is good, fair, or small?"
CLOSE = 5.0  # degrees


def random_problems(count: int, seed: int = 0) -> list[Planted]:
    """Problems of one to three heads, widths 6 to 10, two to six tokens, norms 3 to 8, 20,000 to 100,000 examples."""
    key = np.random.default_rng(seed)
    return [
        Planted(
            heads=int(key.integers(1, 4)),
            width=int(key.integers(6, 11)),
            tokens=int(key.integers(2, 7)),
            norm=float(np.round(key.uniform(3, 8), 2)),
            examples=int(key.choice([20_000, 40_000, 100_000])),
            seed=1000 + number,
        )
        for number in range(count)
    ]


def sculpting_gap(problems: Sequence[Planted] | None = None) -> Study:
    """Whether the gap tells a good hull from a bad one, on 120 random problems whose number of heads is not told."""
    problems = random_problems(120) if problems is None else problems
    question = Question("sculpting-gap", QUESTION, _answer)
    return study(question, problems, lambda problem: sculpted(problem, Sculpting(polish=None)))


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    carving = Sculpting().carving
    reached = [row for row in rows if row["gap"] is not None]
    words = []
    for name, low, high in (
        ("good", carving.good, np.inf),
        ("fair", carving.fair, carving.good),
        ("smaller", 0.0, carving.fair),
    ):
        there = [row for row in reached if low <= row["gap"] < high]
        counted = [row for row in there if row["counted"] == row["heads"]]
        close = sum(row["angle"] <= CLOSE for row in counted)
        words.append(
            f"{len(there)} {name} gaps: {len(counted)} at the true number of heads, "
            f"{close} of these hulls within {CLOSE:g} degrees."
        )
    return f"{len(reached)} of {len(rows)} problems gave a hull. {' '.join(words)}"
