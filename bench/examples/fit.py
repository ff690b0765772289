"""One solver on one set of examples: where it is run and judged, and the words for what came out."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from rich.table import Table

import attnlearn as al
from bench.clock import Clocked
from bench.examples.planted import SOLVER, Planted
from bench.trial import quartiles

TARGET = 1e-6  # of the worst head, Θ and W: a success
HELD_OUT = 64  # sequences that no solver sees
COLUMNS = "problem, solver, runs, status, solved, each setting, median error, worst error, worst held out"
COLUMNS += ", seconds to target, most seconds, compiling, more"


@dataclass(frozen=True)
class Run:
    """What a solver went through: layers with the seconds until each, compilation apart; the last is its answer.

    `setting` is one of several that it was given, of which the best counts.
    """

    layers: Sequence[tuple[float, al.AttentionLayer | None]]
    setting: str = ""
    status: str = ""
    evidence: str = ""
    compile_seconds: float = 0.0


class Solver(Protocol):
    """Anything that learns a layer from examples, once or in several settings."""

    @property
    def name(self) -> str: ...

    def runs(self, examples: al.Examples, key: np.random.Generator) -> Iterable[Run]: ...


@dataclass(frozen=True)
class Ours:
    """A learner of the library under the name that it has in tables. Its time is that of its whole run."""

    learner: al.learners.AbstractLearner
    name: str = "ours"

    def runs(self, examples: al.Examples, key: np.random.Generator) -> Iterator[Run]:
        learned = Clocked(self.learner).learn(examples, key)
        layers = [(learned.cost.seconds, learned.layer)]
        yield Run(layers, "", learned.status.name, learned.evidence, learned.cost.compile_seconds)


def ours(problem: Planted) -> Ours:
    """Variable projection, told the heads, their rank where it is low, the slots, that there are no biases, and
    that outputs are exact where they are; it is never told how large a noise is."""
    return Ours(
        al.learners.VariableProjection(
            heads=problem.heads,
            head_dim=problem.rank,
            slots=problem.slots,
            query_bias=False,
            offset=False,
            noise=None if problem.noise else 0.0,
        )
    )


@dataclass(frozen=True)
class Fit:
    """What one run reached on one problem with one seed, and what it took.

    `qk`, `ov`: relative Frobenius errors of the worst head after the best permutation, infinite where there is no
    layer; NaN where heads cannot be compared (no softmax). `held_out`: root mean square error over that of the outputs
    on fresh sequences of the same law, without noise. `seconds`: of the whole run, `to_target`: until the first look
    at which both circuits were within `TARGET`, infinite where none was; both without compilation. `figures`: what
    else a benchmark measured.
    """

    problem: str
    solver: str
    setting: str
    seed: int
    status: str
    evidence: str
    qk: float
    ov: float
    held_out: float
    seconds: float
    to_target: float
    compile_seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """The larger error of the two circuits."""
        return max(self.qk, self.ov)

    @property
    def solved(self) -> bool:
        """Within the target, by the held-out error where heads cannot be compared."""
        return (self.held_out if np.isnan(self.error) else self.error) <= TARGET

    @property
    def told(self) -> str:
        """One line, while a benchmark runs."""
        rest = "".join(f" | {name} {value:.3g}" for name, value in self.figures.items())
        named = self.solver + f", {self.setting}" * bool(self.setting)
        return (
            f"{self.problem} | {named} | seed {self.seed} | {self.status or 'ended'} | error {self.error:.1e} "
            f"| held out {self.held_out:.1e} | {self.seconds:.2f} s, to target {self.to_target:.2f} s{rest}"
        )

    @staticmethod
    def table(fits: "list[Fit]") -> Table:
        """One row for each problem and solver; of several settings the best of each seed."""
        table = Table(*COLUMNS.split(", "))
        for problem, solver in dict.fromkeys((fit.problem, fit.solver) for fit in fits):
            every = chosen(fits, problem, solver)
            own = best(every)
            counts = Counter(fit.setting for fit in every if fit.solved)
            settings = dict.fromkeys(fit.setting for fit in every if fit.setting)
            table.add_row(
                problem,
                solver,
                str(len(own)),
                "\n".join(f"{n} {status}" for status, n in Counter(fit.status for fit in own).most_common() if status),
                f"{sum(fit.solved for fit in own)}",
                "\n".join(f"{setting}: {counts[setting]}" for setting in settings),
                f"{np.median([fit.error for fit in own]):.1e}",
                f"{max(fit.error for fit in own):.1e}",
                f"{max(fit.held_out for fit in own):.1e}",
                quartiles([fit.to_target for fit in own]),
                f"{max(fit.seconds for fit in own):.2f}",
                f"{np.median([fit.compile_seconds for fit in own]):.1f}",
                "\n".join(f"{name} {np.median([fit.figures[name] for fit in own]):.3g}" for name in own[0].figures),
            )
        return table


def fits(problem: Planted, solver: Solver, seed: int) -> Iterator[Fit]:
    """Runs the solver on the examples of one seed and judges all that it went through."""
    for run in runs(problem, solver, seed):
        yield judged(problem, solver.name, seed, run)


def runs(problem: Planted, solver: Solver, seed: int) -> Iterable[Run]:
    """The solver on the examples of one seed, with a key of its own."""
    return solver.runs(problem.examples(seed), np.random.default_rng([seed, SOLVER]))


def judged(problem: Planted, solver: str, seed: int, run: Run) -> Fit:
    """The errors of the last layer of a run, and when the first came within the target."""
    truth = problem.layer(seed)
    seconds, layer = run.layers[-1]
    qk, ov = errors(layer, truth)
    return Fit(
        problem=problem.name,
        solver=solver,
        setting=run.setting,
        seed=seed,
        status=run.status,
        evidence=run.evidence,
        qk=qk,
        ov=ov,
        held_out=held_out_error(layer, problem, seed),
        seconds=seconds,
        to_target=next((at for at, layer in run.layers if max(errors(layer, truth)) <= TARGET), np.inf),
        compile_seconds=run.compile_seconds,
    )


def errors(layer: al.AttentionLayer | None, truth: al.AttentionLayer) -> tuple[float, float]:
    """Errors of Θ and W of the worst head; NaN for normalisers whose heads cannot be compared."""
    if not truth.slots.simplex:
        return np.nan, np.nan
    if layer is None:
        return np.inf, np.inf
    apart = al.distance(layer, truth)
    return apart.qk, apart.ov


def held_out_error(layer: al.AttentionLayer | None, problem: Planted, seed: int) -> float:
    """Root mean square error on fresh sequences over that of the outputs."""
    if layer is None:
        return np.inf
    X = problem.inputs(seed, HELD_OUT, draw=1)
    outputs = problem.layer(seed)(X)
    return float(np.linalg.norm(layer(X) - outputs) / np.linalg.norm(outputs))


def chosen(fits: Iterable[Fit], problem: str, solver: str) -> list[Fit]:
    """The fits of one problem and solver."""
    return [fit for fit in fits if (fit.problem, fit.solver) == (problem, solver)]


def best(fits: Iterable[Fit]) -> list[Fit]:
    """Of every seed the setting that reached the target first, or else came nearest."""
    found: dict[int, Fit] = {}
    for fit in sorted(fits, key=lambda fit: (fit.to_target, fit.error)):
        found.setdefault(fit.seed, fit)
    return [found[seed] for seed in sorted(found)]
