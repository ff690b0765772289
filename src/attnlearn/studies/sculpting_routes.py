"""What is the hull worth? The faithful route, the polished one, and plain least squares from random starts."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from attnlearn.data.distributions import Planted
from attnlearn.learners.sculpting.marquardt import Start, marquardt
from attnlearn.learners.sculpting.polish import LeastSquares
from attnlearn.learners.sculpting.rows import Rows, relative_error
from attnlearn.records import Study
from attnlearn.studies.sculpted import Question, sculpted, study

QUESTION = "How do the faithful route, the polished route and least squares from random starts compare?"
SHAPES = ((1, 6, 6, 6.0, 10_000), (2, 8, 4, 4.0, 40_000), (3, 10, 2, 4.0, 200_000), (4, 8, 4, 6.0, 40_000))
SEEDS, STARTS = (0, 1, 2), 8
EXACT = 1e-6


def sculpting_routes(problems: Sequence[Planted] | None = None, starts: int = STARTS) -> Study:
    """What the hull is worth beside least squares from random starts."""
    problems = [Planted(*shape, seed) for shape in SHAPES for seed in SEEDS] if problems is None else problems
    question = Question("sculpting-routes", QUESTION, _answer)
    return study(question, problems, lambda problem: sculpted(problem) | {"plain": _plain(problem, starts)})


def _plain(problem: Planted, starts: int) -> dict[str, Any]:
    """Levenberg–Marquardt in all coordinates from random starts of norm 1: how often exact, and how long one takes."""
    key, settings = np.random.default_rng(problem.seed), LeastSquares(restarts=starts)
    examples = problem.draw()
    index = key.choice(examples.answers, settings.search_rows + 2000, replace=False)
    rows = Rows.of(np.asarray(examples.X), np.asarray(examples.Y), index)
    fit, held_out = rows.part(slice(2000, None)), rows.part(slice(0, 2000))
    begin = time.perf_counter()
    fits = [marquardt(fit, Start(t), settings.steps) for _, t in settings.random(problem.heads, problem.width, key)]
    seconds = (time.perf_counter() - begin) / starts
    errors = [relative_error(held_out, one.thetas, one.W) for one in fits]
    return {"starts": starts, "exact": sum(one <= EXACT for one in errors), "best": min(errors), "seconds": seconds}


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    trusted = sum(row["trusted"] for row in rows)
    polished = sum(row["qk"] is not None and row["qk"] <= 1e-10 for row in rows)
    exact, starts = sum(row["plain"]["exact"] for row in rows), sum(row["plain"]["starts"] for row in rows)
    seconds = np.median([row["plain"]["seconds"] for row in rows])
    return (
        f"Of {len(rows)} problems the hull was trusted on {trusted} and the polished circuits exact on {polished}; "
        f"{exact} of {starts} runs from random starts were exact too, at {seconds:.2g} s a run against "
        f"{np.median([row['seconds'] for row in rows]):.2g} s for sculpting."
    )
