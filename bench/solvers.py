"""Ours, and what one would do without it. A solver is a learner with a name; all of them go through `al.recover`."""

from dataclasses import dataclass
from typing import Any

import attnlearn as al

RATES = (1e-3, 3e-3, 1e-2, 2e-2, 3e-2)  # of Adam: trained side by side, the best on held-out sequences is kept
RTOL = 1.2e-4  # the student is trained in float32: its certificate allows what it allows for a float32 box
SEQUENCE = 20  # tokens in a sequence that Adam asks: about the longest that ours asks


@dataclass(frozen=True)
class Solver:
    """A learner under the name that it has in tables, and the error that its certificate allows."""

    name: str
    learner: al.learners.AbstractLearner
    rtol: float | None = None


def queries(name: str = "queries", rtol: float | None = None, **options: Any) -> Solver:
    """Ours; `options` are fields of `MultiHeadQueries`."""
    return Solver(name, al.learners.MultiHeadQueries(**options), rtol)


@dataclass(frozen=True)
class Student:
    """An Adam-trained student that is told the number of heads and their dimension; `steps` of `batch` sequences."""

    heads: int
    head_dim: int
    steps: int
    batch: int

    def on_fixed(self, name: str, tokens: int) -> Solver:
        """Trained on so many token rows, drawn again and again."""
        return self._solver(name, batch=self.batch, max_tokens=tokens)

    def on_fresh(self, name: str, tokens: int) -> Solver:
        """Trained on so many token rows, each seen once, in as many steps."""
        return self._solver(name, batch=max(1, tokens // (self.steps * SEQUENCE)))

    def _solver(self, name: str, **options: Any) -> Solver:
        learner = al.learners.GradientDescent(
            self.heads, self.head_dim, learning_rates=RATES, steps=self.steps, tokens=SEQUENCE, **options
        )
        return Solver(name, learner, RTOL)
