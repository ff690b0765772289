r"""Thin circuits, learned wide first and then narrowed.

Scores are linear in a full circuit $\Theta_i$ and only bilinear in the factors of a thin one, $Q_iK_i^\top$, whose runs
from random factors crawl along curved valleys. A few steps with full circuits find most of what thin ones need, also
where full circuits have more unknowns than the labels have numbers: steps that end early are a regularisation.
"""

from dataclasses import replace

import numpy as np

from attnlearn.layers.features import Outer
from attnlearn.learners.least_squares.problem import AbstractProblem

FULL_STEPS, WIDE_STEPS = 2, 5  # of Levenberg–Marquardt with full circuits, then with circuits of one and a half ranks
WIDER = 1.5
NO_STALL = 0.0  # these runs end by their number of steps


def narrowed(outer: Outer, rank: int) -> Outer:
    """The nearest circuits of that rank, their two factors balanced."""
    left, values, right = np.linalg.svd(outer.circuits, full_matrices=False)
    roots = np.sqrt(values[:, None, :rank])
    return replace(outer, queries=left[:, :, :rank] * roots, keys=np.swapaxes(right[:, :rank], 1, 2) * roots)


def descend(problem: AbstractProblem, full: Outer, rank: int) -> Outer:
    """Thin circuits to start from, by way of the `full` ones and of wider ones."""
    wide = narrowed(problem.run(full, NO_STALL, FULL_STEPS).outer, int(WIDER * rank))
    return narrowed(problem.run(wide, NO_STALL, WIDE_STEPS).outer, rank)
