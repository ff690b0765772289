"""Why does the number of heads hurt? Layers whose heads nearly cancel, learned by sculpting and by least squares.

For every number of heads: the size of what the heads hide together, the examples below which no algorithm can tell it
from nothing under the label noise, how many rows sculpting accepts, how often least squares from a random start ends
exactly without noise, and how much of the hidden part it finds with noise.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from attnlearn.data.cancelling_heads import CancellingHeads
from attnlearn.data.distributions import cube, labelled
from attnlearn.learners.sculpting import Sculpting
from attnlearn.learners.sculpting.marquardt import Start, marquardt
from attnlearn.learners.sculpting.polish import LeastSquares
from attnlearn.learners.sculpting.rows import Rows, relative_error
from attnlearn.records import Study
from attnlearn.studies.points import each
from attnlearn.studies.sculpted import phases
from attnlearn.theory import examples_to_tell_apart

QUESTION = "How do sculpting's acceptance and the failures of least squares grow with heads that nearly cancel?"
EXACT, FOUND = 1e-6, 0.5  # errors over the size of the hidden part, up to which it is exact and counts as found


@dataclass(frozen=True)
class Design:
    """The layers: all but their heads and seeds; examples; rows of a fit, random starts and the labels' noise."""

    heads: tuple[int, ...] = (2, 3, 4, 5)
    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 8
    norm: float = 8.0
    lowest: float = 4.0
    generic: float = 0.1
    tokens: int = 4
    examples: int = 20_000
    rows: int = 1500
    starts: int = 4
    noise: float = 0.1


def sculpting_hardness(design: Design = Design()) -> Study:
    """How the number of heads hurts where they nearly cancel."""
    points = [(heads, seed) for heads in design.heads for seed in design.seeds]
    rows, seconds = each("sculpting-hardness", design, points, lambda point: _point(*point, design))
    return Study("sculpting-hardness", QUESTION, _answer(rows, design), asdict(design), rows, seconds)


class _Problem(NamedTuple):
    """Tokens, the labels that are fitted, the same without noise, and the hidden part of these."""

    X: np.ndarray
    Y: np.ndarray
    exact: np.ndarray
    hidden: np.ndarray


def _point(heads: int, seed: int, design: Design) -> dict[str, Any]:
    planted = CancellingHeads(heads, design.width, design.norm, seed, design.lowest, generic=design.generic)
    layer = planted.layer()
    X = cube(np.random.default_rng([seed, 1]), design.examples, design.tokens, design.width)
    examples = labelled(layer, X)
    exact = np.asarray(examples.Y)
    hidden = exact - np.asarray(planted.common()(X))
    noisy = np.asarray(labelled(layer, X, design.noise, np.random.default_rng([seed, 2])).Y)
    size = float(np.sqrt(np.square(hidden).sum(axis=(1, 2)).mean()))
    told = phases(Sculpting(heads=heads, polish=None).learn(examples, np.random.default_rng(seed)), examples)
    return {
        "heads": heads,
        "seed": seed,
        "hidden": size / float(np.sqrt(np.square(exact).sum(axis=(1, 2)).mean())),
        "examples_needed": examples_to_tell_apart(size, design.noise * float(np.std(exact))),
        **{name: told[name] for name in ("status", "score", "accepted", "gap", "angle", "faithful")},
        "not_exact": _fits(_Problem(X, exact, exact, hidden), (heads, seed), design, EXACT),
        "not_found": _fits(_Problem(X, noisy, exact, hidden), (heads, seed), design, FOUND),
    }


def _fits(problem: _Problem, which: tuple[int, int], design: Design, allowed: float) -> float:
    """The share of random starts of least squares whose error on other rows is above `allowed`, where 1 is the size of
    the hidden part there."""
    heads, seed = which
    key, settings = np.random.default_rng([seed, 3]), LeastSquares(restarts=design.starts)
    index = key.choice(problem.X.shape[0] * problem.X.shape[1], 2 * design.rows, replace=False)
    fit = Rows.of(problem.X, problem.Y, index[: design.rows])
    other = Rows.of(problem.X, problem.exact, index[design.rows :])
    hidden = Rows.of(problem.X, problem.hidden, index[design.rows :])
    errors = []
    for _, thetas in settings.random(heads, design.width, key):
        fitted = marquardt(fit, Start(thetas), settings.steps)
        errors.append(relative_error(other, fitted.thetas, fitted.W) * float(np.sqrt(other.square / hidden.square)))
    return sum(one > allowed for one in errors) / len(errors)


def _answer(rows: Sequence[dict[str, Any]], design: Design) -> str:
    words = []
    for heads in sorted({row["heads"] for row in rows}):
        some = [row for row in rows if row["heads"] == heads]
        accepted = np.median([row["accepted"] or 0.0 for row in some])
        failed = [100 * np.mean([row[kind] for row in some]) for kind in ("not_exact", "not_found")]
        words.append(
            f"{heads}: hidden part {np.median([row['hidden'] for row in some]):.2g}, accepted {accepted:.2g}, "
            f"gap {np.median([row['gap'] or 1.0 for row in some]):.2g}, {failed[0]:.0f} % of the runs of least squares "
            f"not exact, {failed[1]:.0f} % with noise miss the hidden part"
        )
    return f"By the number of heads, the noise {design.noise:g} of the labels: {'; '.join(words)}."
