"""A model fitted to examples: the search at one number of heads, and the choice among numbers of heads and slots."""

import math
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.features import Batch
from attnlearn.learners.least_squares import evidence
from attnlearn.learners.least_squares.frame import Frame, Model
from attnlearn.learners.least_squares.passes import Form
from attnlearn.learners.least_squares.problem import AbstractProblem, Fit, Resident, Streamed
from attnlearn.learners.least_squares.search import Effort, Search

FEWER_IS_WORSE = 2  # numbers of heads in a row that did not help, after which no more are tried
SKETCH = Effort(restarts=2, resets=4)  # for numbers of heads that are only compared
GLANCE = Effort(restarts=1, resets=4)  # for slots that are only compared
DECISIVE = 10.0  # difference of the criterion above which another number of heads is suspected


@dataclass(frozen=True)
class Work:
    """Where the sums over examples are made: chunks of so many sequences (`None`: all at once) and on what."""

    chunk: int | None = None
    executor: Executor | None = None
    devices: int = 1
    whiten: bool = True


@dataclass
class Fitted:
    """What one number of heads came to. `counts`: observed numbers and unknowns."""

    model: Model
    search: Search
    fit: Fit
    counts: tuple[int, int]
    floor: float

    @property
    def criterion(self) -> float:
        """BIC of the fit."""
        return evidence.criterion(self.fit.loss, self.counts, self.floor)

    @property
    def settled(self) -> bool:
        """Whether the search ended with an answer: at its target, or with two starts that agree."""
        return self.search.reached or self.search.agreed


@dataclass
class Fitting:
    """Examples with a model, in their frame. `tried` keeps everything that was fitted, also after an interruption."""

    examples: Examples
    model: Model
    noise: float | None
    effort: Effort
    work: Work
    key: np.random.Generator
    tried: list[Search] = field(default_factory=list)

    def __post_init__(self):
        self.frame = Frame.of(self._pieces(), self.model, self.work.whiten)
        self.problem = self._problem()

    def _pieces(self) -> Iterable[Examples]:
        return [self.examples] if self.work.chunk is None else self.examples.chunks(self.work.chunk)

    def _problem(self) -> AbstractProblem:
        form = Form(self.model.slots.normaliser, self.model.offset)
        if self.work.chunk is None:
            return Resident(form, self.frame.batch(self.examples, self.model), self.work.devices)
        return Streamed(form, self._batches, self.work.executor)

    def _batches(self) -> Iterable[Batch]:
        for piece in self._pieces():
            yield self.frame.batch(piece, self.model).padded(min(self.work.chunk or 1, len(self.examples)))

    def layer(self, fit: Fit) -> AttentionLayer:
        """The fit in the user's coordinates."""
        return self.frame.layer(fit.outer, fit.W, self.model)

    def unknowns(self, heads: int) -> int:
        """Degrees of freedom with so many heads."""
        return evidence.unknowns(self.model, heads, self.problem.width)

    def at(self, heads: int, warm: Fit | None = None, effort: Effort | None = None) -> Fitted:
        """The best fit with so many heads, run to its end; `warm`: one with a head less to begin with."""
        counts = self.problem.scalars, self.unknowns(heads)
        floor = evidence.floor_loss(self.examples.dtype)
        target = floor
        if self.noise:
            target = max(floor, evidence.noise_loss(float(self.noise), counts, self.problem.mean_square))
        rank = self.model.head_dim
        rank = None if rank is None else min(rank, self.problem.width[1])
        search = Search(self.problem, heads, rank, self.key, effort or self.effort, target, self.noise is None)
        self.tried.append(search)
        fit = search.polish(search.solve(warm))
        return Fitted(self.model, search, fit, counts, floor)

    def choose_heads(self, most: int | None = None) -> list[Fitted]:
        """Fits with 1, 2, ... heads, until more do not help; `best` of them is the answer."""
        found: list[Fitted] = []
        heads = 1
        while self.unknowns(heads) <= self.problem.scalars and heads <= (most or math.inf):
            found.append(self.at(heads, found[-1].fit if found else None, SKETCH))
            useless = heads - best(found).search.heads >= FEWER_IS_WORSE
            if found[-1].search.reached or useless:
                break
            heads += 1
        chosen = best(found)
        if not chosen.settled:
            found[found.index(chosen)] = self.at(chosen.search.heads)
        return found

    def pruned(self, fitted: Fitted) -> Fitted:
        """The fit without heads that it does not need, one after the other."""
        while fitted.search.heads > 1:
            outer, m = fitted.fit.outer, fitted.search.heads
            without = [jax.tree.map(lambda leaf: np.delete(leaf, h, axis=0), outer) for h in range(m)]  # noqa: B023
            stack = jax.tree.map(lambda *leaves: np.stack(leaves), *without)
            losses = self.problem.objectives(stack)
            h = int(np.argmin(losses))
            counts = fitted.counts[0], self.unknowns(m - 1)
            # the selection ridge leaves a loss of its own: what is left after a run decides
            if evidence.criterion(float(losses[h]), counts, max(fitted.floor, 1e-5)) > evidence.criterion(
                fitted.fit.loss, fitted.counts, max(fitted.floor, 1e-5)
            ):
                break
            search = replace(fitted.search, heads=m - 1, runs=[], best=None, losses=[])
            fit = search.polish(self.problem.run(without[h], 1e-3, 80))
            smaller = Fitted(self.model, search, fit, counts, fitted.floor)
            self.tried.append(search)
            if smaller.criterion > fitted.criterion:
                break
            search.losses, search.best = fitted.search.losses, fit
            fitted = smaller
        return fitted


def best(found: list[Fitted]) -> Fitted:
    """The fit that the criterion prefers; of those that fit exactly, the one with the fewest unknowns."""
    exact = [one for one in found if one.fit.loss <= one.floor]
    return min(exact, key=lambda one: one.counts[1]) if exact else min(found, key=lambda one: one.criterion)
