"""One solver on one problem: the only place where something is run and timed, and the words for what came out."""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import attnlearn as al
from bench.clock import Clocked
from bench.objectives import errors
from bench.solvers import Solver

COLUMNS = "problem, solver, runs, status, heads right, Θ worst, Θ median, W, bias, offset, output"
COLUMNS += ", calls, tokens, seconds, compiling"
RELATIONS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True)
class Problem:
    """A black box, made anew for every trial from the seed; `source(seed).truth` is the hidden layer."""

    name: str
    source: Callable[[int], al.QueryOracle]


@dataclass(frozen=True)
class Trial:
    """What one solver reached on one problem with one seed, and what it spent.

    `dtype` and `noise` are those of the box.
    `status` and `evidence` are those of `al.recover`. `heads`: distinct heads, found and true. Errors as in
    `objectives.errors`, infinite where no layer was learned or the numbers of heads differ. `calls` (sequences) and
    `tokens` are those of learning, without the certificate's; `seconds` are those of learning without compilation.
    """

    problem: str
    dtype: str
    noise: float
    solver: str
    seed: int
    status: str
    evidence: str
    heads: int
    true_heads: int
    qk: float
    qk_median: float
    ov: float
    query_bias: float
    offset: float
    output: float
    calls: int
    tokens: int
    seconds: float
    compile_seconds: float

    @property
    def recovered(self) -> bool:
        return self.status == al.Status.RECOVERED.name

    @property
    def told(self) -> str:
        """One line, while a benchmark runs."""
        told = f"{self.problem} | {self.solver} | seed {self.seed} | {self.status} | Θ {self.qk:.1e}"
        return f"{told} | {self.calls} calls | {self.seconds:.1f} s"

    @staticmethod
    def table(trials: "list[Trial]") -> Table:
        """One row for each problem and solver: worst errors, median costs, quartiles of the time."""
        table = Table(*COLUMNS.split(", "))
        for problem, solver in dict.fromkeys((trial.problem, trial.solver) for trial in trials):
            own = [trial for trial in trials if (trial.problem, trial.solver) == (problem, solver)]
            status = "\n".join(f"{n} {status}" for status, n in Counter(trial.status for trial in own).most_common())
            heads = f"{sum(trial.heads == trial.true_heads for trial in own)} of {len(own)}"
            figures = ("qk", "qk_median", "ov", "query_bias", "offset", "output")
            errors = [f"{max(getattr(trial, figure) for trial in own):.1e}" for figure in figures]
            costs = [f"{np.median([getattr(trial, figure) for trial in own]):.0f}" for figure in ("calls", "tokens")]
            seconds = quartiles([trial.seconds for trial in own])
            compiling = f"{np.median([trial.compile_seconds for trial in own]):.1f}"
            table.add_row(problem, solver, str(len(own)), status, heads, *errors, *costs, seconds, compiling)
        return table


def measure(problem: Problem, solver: Solver, seed: int) -> Trial:
    """Runs the solver through `al.recover` and judges what it returns."""
    oracle = problem.source(seed)
    result = al.recover(oracle, learner=Clocked(solver.learner), seed=seed, rtol=solver.rtol)
    assert oracle.truth is not None, f"{problem.name} has no truth to judge by"
    reached = errors(result.layer, oracle.truth)
    return Trial(
        problem.name,
        oracle.dtype.name,
        oracle.noise,
        solver.name,
        seed,
        result.status.name,
        result.evidence,
        **reached,
        calls=result.cost.calls,
        tokens=result.cost.tokens,
        seconds=result.cost.seconds,
        compile_seconds=result.cost.compile_seconds,
    )


@dataclass(frozen=True)
class Claim:
    """A measured number beside its target: `measured relation target`; `target` is `None` for what is only reported."""

    what: str
    measured: float
    relation: str = "<="
    target: float | None = None

    @property
    def holds(self) -> bool | None:
        return None if self.target is None else bool(RELATIONS[self.relation](self.measured, self.target))


@dataclass(frozen=True)
class Benchmark:
    """A question, the trials that answer it (a few small ones when `tiny`), and what is claimed of them.

    `kind` is the word for a trial, a frozen record with a `problem`, a `solver`, a line `told` and a `table` of many.
    `picture` draws the trials.
    """

    question: str
    trials: Callable[[bool], Iterator[Any]]
    claims: Callable[[list[Any]], list[Claim]]
    kind: type[Any] = Trial
    picture: Callable[[list[Any]], Figure] | None = None


def quartiles(seconds: Iterable[float]) -> str:
    """Median and quartiles of the times of those that got there."""
    finite = [one for one in seconds if np.isfinite(one)]
    if not finite:
        return "-"
    low, middle, high = np.quantile(finite, (0.25, 0.5, 0.75))
    return f"{middle:.2f}" if len(finite) == 1 else f"{middle:.2f} ({low:.2f}-{high:.2f})"


def worst(trials: Iterable[Any], figure: str) -> float:
    """The largest value of one field over the trials."""
    return max(getattr(trial, figure) for trial in trials)


def starting(trials: Iterable[Trial], problem: str, solver: str = "") -> list[Trial]:
    """The trials whose problem and solver start with these words."""
    return [trial for trial in trials if trial.problem.startswith(problem) and trial.solver.startswith(solver)]


def by_problem(trials: Iterable[Any]) -> dict[str, list[Any]]:
    """The trials of every problem, in the order of their first appearance."""
    groups: dict[str, list[Any]] = {}
    for trial in trials:
        groups.setdefault(trial.problem, []).append(trial)
    return groups
