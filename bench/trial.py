"""One solver on one problem: the only place where something is run and timed, and the words for what came out."""

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import attnlearn as al
from bench.clock import Clocked
from bench.objectives import errors
from bench.solvers import Solver

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
    """A question, the trials that answer it (a few small ones when `tiny`), and what is claimed of them."""

    question: str
    trials: Callable[[bool], Iterator[Trial]]
    claims: Callable[[list[Trial]], list[Claim]]


def worst(trials: Iterable[Trial], figure: str) -> float:
    """The largest value of one field over the trials."""
    return max(getattr(trial, figure) for trial in trials)


def starting(trials: Iterable[Trial], problem: str, solver: str = "") -> list[Trial]:
    """The trials whose problem and solver start with these words."""
    return [trial for trial in trials if trial.problem.startswith(problem) and trial.solver.startswith(solver)]


def by_problem(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """The trials of every problem, in the order of their first appearance."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.problem, []).append(trial)
    return groups
