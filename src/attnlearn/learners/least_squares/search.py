r"""From random starts to the best fit: what is learned is kept, and one head at a time is replaced.

The objective has local minima. A run is started small, from the best of many random draws; when it stalls, one head
that is hardly missed is replaced by the best of many fresh ones. If that fails, scouts are sent: fits of a single head,
which the data determine $m$ times as well. Each ends at a mixture of true heads, so that from then on fresh heads are
drawn from the span of all heads met so far: far fewer dimensions than a circuit has entries.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from attnlearn.layers.features import Outer
from attnlearn.learners.least_squares import evidence
from attnlearn.learners.least_squares.problem import AbstractProblem, Fit
from attnlearn.learners.least_squares.thin import narrowed

INITIAL_LOGIT_STD = 1.0
SEARCH_STALL, SEARCH_STEPS = 3e-2, 80  # a run of the search: it is left early, since the next one starts from its end
THIN_STALL = 1e-2  # the same for circuits of low rank, whose runs begin slowly
POLISH_STALL, POLISH_STEPS = 1e-6, 60
AGREEMENT = 1e-3  # two losses closer than this, relatively, are the same minimum
FRUITLESS = 4  # resets in a row without a gain, where the noise is not known
FIRST_RESETS = 4  # at most, before scouts are sent
SCOUTS, SCOUTS_PER_HEAD = 24, 6  # at most so many
MET = 256  # heads remembered, the latest
STRANGERS = 0.1  # share of fresh heads that are drawn from everywhere
LOGIT_STDS = (1.0, 2.0, 4.0)  # of fresh heads from the span of those met
CANDIDATE_WORK = 1e9  # flops for comparing fresh draws with one another
FEWEST_CANDIDATES, MOST_CANDIDATES = 4, 64
SEARCH_WORK = 2e12  # flops after which a search gives up, if not told otherwise
CG_PER_RUN = 300


@dataclass(frozen=True)
class Effort:
    """How long to search: `restarts` of up to `resets` replaced heads each, the best of `candidates` draws each time.

    `None`: as many restarts as 2e12 floating-point operations allow, from 3 to 40; candidates by the problem's size,
    from 4 to 64, and 4 for the very first start: easy layers are found from any.
    """

    restarts: int | None = None
    resets: int = 8
    candidates: int | None = None


@dataclass
class Search:
    """A search at a fixed number of heads. `runs` tells of every run; `best` survives an interruption.

    `target`: the loss at which a fit is accepted. `noisy`: the noise is not known, so that two restarts which end at
    the same loss are taken for the answer.
    """

    problem: AbstractProblem
    heads: int
    rank: int | None
    key: np.random.Generator
    effort: Effort
    target: float
    noisy: bool
    runs: list[dict[str, Any]] = field(default_factory=list)
    best: Fit | None = None
    losses: list[float] = field(default_factory=list)
    met: list[np.ndarray] = field(default_factory=list)

    def solve(self, warm: Fit | None = None) -> Fit:
        """The best fit found; `agreed` and `reached` tell why the search ended. `warm`: a fit with one head less."""
        for restart in range(self.restarts):
            if restart == 1 and self.heads > 1:
                self._send_scouts()
            if restart == 0 and warm is not None:
                fit = self._run(self._with_fresh_head(warm.outer, None), "one more head")
            else:
                most = MOST_CANDIDATES if restart else FEWEST_CANDIDATES
                fit = self._run(self._start(self.heads, most), "start")
            last = restart or self.restarts == 1
            resets = self.effort.resets if last else min(FIRST_RESETS, self.effort.resets)
            self.losses.append(self._with_resets(fit, resets).loss)
            if self.reached or self.agreed:
                break
        assert self.best is not None
        return self.best

    @property
    def restarts(self) -> int:
        """Number of restarts allowed."""
        if self.effort.restarts is not None:
            return self.effort.restarts
        run = CG_PER_RUN * self.problem.work(self.heads, self.rank) * (1 + self.effort.resets)
        return int(np.clip(SEARCH_WORK / run, 3, 40))

    @property
    def reached(self) -> bool:
        """Whether the best fit is as good as the target."""
        return self.best is not None and self.best.loss < self.target

    @property
    def agreed(self) -> bool:
        """Whether the two best restarts ended at the same loss, where the noise is not known."""
        losses = sorted(self.losses)
        return self.noisy and len(losses) > 1 and losses[1] - losses[0] <= AGREEMENT * losses[1]

    def polish(self, fit: Fit) -> Fit:
        """The fit run to the end, unless it is exact already: a search leaves its runs early."""
        if fit.loss < evidence.CLEAN_LOSS:
            return fit
        end = self.problem.run(fit.outer, POLISH_STALL, POLISH_STEPS)
        self._note("polish", end)
        return end if end.loss <= fit.loss else fit

    def _with_resets(self, fit: Fit, resets: int) -> Fit:
        fruitless = 0
        for _ in range(resets):
            settled = self.noisy and (fruitless >= FRUITLESS or self._seen(fit.loss))
            if fit.loss < self.target or settled:
                break
            head = self._dispensable(fit.outer)
            attempt = self._run(self._with_fresh_head(fit.outer, head), f"head {head} anew")
            fruitless = 0 if attempt.loss < (1 - AGREEMENT) * fit.loss else fruitless + 1
            fit = min(fit, attempt, key=lambda one: one.loss)
        return fit

    def _seen(self, loss: float) -> bool:
        return any(abs(loss - other) <= AGREEMENT * other for other in self.losses)

    def _send_scouts(self) -> None:
        scouts = [self._run(self._start(1), "scout") for _ in range(min(SCOUTS, SCOUTS_PER_HEAD * self.heads))]
        for fit in (self.best, *scouts):
            self._meet(fit)

    def _meet(self, fit: Fit | None) -> None:
        if fit is not None and math.isfinite(fit.loss):
            self.met = [*self.met, *(one / np.linalg.norm(one) for one in fit.outer.circuits if np.any(one))][-MET:]

    def _run(self, outer: Outer, name: str) -> Fit:
        fit = self.problem.run(outer, SEARCH_STALL if self.rank is None else THIN_STALL, SEARCH_STEPS)
        self._note(name, fit)
        if self.met:
            self._meet(fit)
        return fit

    def _note(self, name: str, fit: Fit) -> None:
        figures = {"loss": fit.loss, "steps": fit.steps, "cg_iterations": fit.cg_iterations}
        self.runs.append({"run": name, "heads": fit.outer.heads, **figures})
        if fit.outer.heads == self.heads and (self.best is None or fit.loss < self.best.loss):
            self.best = fit

    def _start(self, heads: int, most: int = MOST_CANDIDATES) -> Outer:
        draws = [self._draw(heads) for _ in range(self._candidates(heads, most))]
        return self._best(jax.tree.map(lambda *leaves: np.stack(leaves), *draws))

    def _with_fresh_head(self, outer: Outer, head: int | None) -> Outer:
        """`outer` with a fresh `head` in the place of the old one, or with one head more: the best of many draws."""
        keep = [h for h in range(outer.heads) if h != head]
        place = outer.heads if head is None else head

        def joined(old: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.insert(old[keep], place, new[0], axis=0)

        draws = [self._draw(1) for _ in range(self._candidates(outer.heads))]
        return self._best(
            jax.tree.map(lambda *leaves: np.stack(leaves), *(jax.tree.map(joined, outer, draw) for draw in draws))
        )

    def _best(self, stack: Outer) -> Outer:
        winner = int(np.argmin(self.problem.objectives(stack)))
        return jax.tree.map(lambda leaf: leaf[winner], stack)

    def _candidates(self, heads: int, most: int = MOST_CANDIDATES) -> int:
        if self.effort.candidates is not None:
            return self.effort.candidates
        columns = heads * (self.problem.width[1] if self.rank is None else self.rank)
        affordable = CANDIDATE_WORK / (2 * float(self.problem.rows.count) * columns**2)
        return int(np.clip(affordable, FEWEST_CANDIDATES, most))

    def _draw(self, heads: int) -> Outer:
        """Random parameters: circuits with logits of a given standard deviation on whitened tokens."""
        full = Outer(np.stack([self._circuit() for _ in range(heads)]))
        if self.rank is None:
            return full
        d = self.problem.width[1]
        return replace(narrowed(full, self.rank), values=self.key.standard_normal((heads, d, self.rank)) / math.sqrt(d))

    def _circuit(self) -> np.ndarray:
        """A fresh head: from the span of the heads met, or, as long as there are none, from everywhere."""
        d_q, d, _ = self.problem.width
        if not self.met or self.key.random() < STRANGERS:
            if self.rank is None:
                return INITIAL_LOGIT_STD / math.sqrt(d_q * d) * self.key.standard_normal((d_q, d))
            thin = self.key.standard_normal((d_q, self.rank)) @ self.key.standard_normal((self.rank, d))
            return INITIAL_LOGIT_STD / math.sqrt(d_q * d * self.rank) * thin
        mixed = np.tensordot(self.key.standard_normal(len(self.met)), np.stack(self.met), axes=1)
        return self.key.choice(LOGIT_STDS) / np.linalg.norm(mixed) * mixed

    def _dispensable(self, outer: Outer) -> int:
        """A head, drawn with odds against what the fit loses when it only averages."""
        others = ~np.eye(outer.heads, dtype=bool)[:, :, None, None]
        stack = jax.tree.map(lambda leaf: np.repeat(leaf[None], outer.heads, axis=0), outer)
        averaging = replace(stack, queries=stack.queries * others)
        missed = 1 / np.clip(self.problem.objectives(averaging), 1e-300, 1e300)
        return int(self.key.choice(outer.heads, p=missed / missed.sum()))
