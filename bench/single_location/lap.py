"""One solver in one round on one experiment: what it took, and whether it went where the others went."""

from dataclasses import dataclass

import numpy as np
from rich.table import Table

from bench.trial import quartiles

COLUMNS = "problem, solver, dtype, runs, steps, rounds, at the same state, furthest apart, allowed"
COLUMNS += ", µs a step of all runs, seconds, compiling"


@dataclass(frozen=True)
class Lap:
    """What `steps` steps of `runs` runs took, logs and all.

    `seed` counts the rounds. `apart`: what the benchmark measured of where the runs are, at most `allowed` if they are
    where they should be. `seconds` are without compilation, and NaN for runs that are elsewhere; `compile_seconds` are
    those of the first call, which is in no round.
    """

    problem: str
    solver: str
    seed: int
    dtype: str
    runs: int
    steps: int
    apart: float
    allowed: float
    seconds: float
    compile_seconds: float

    @property
    def agrees(self) -> bool:
        return self.apart <= self.allowed

    @property
    def status(self) -> str:
        return "AGREES" if self.agrees else "ELSEWHERE"

    @property
    def step_time(self) -> float:
        """Microseconds that a step of all runs took."""
        return 1e6 * self.seconds / self.steps

    @property
    def told(self) -> str:
        """One line, while a benchmark runs."""
        told = f"{self.problem} | {self.solver} | round {self.seed} | {self.status}, apart {self.apart:.1e}"
        return f"{told} | {self.step_time:.2f} µs a step of {self.runs} runs | {self.seconds:.2f} s"

    @staticmethod
    def table(laps: "list[Lap]") -> Table:
        """One row for each problem and solver: median and quartiles of the times over the rounds."""
        table = Table(*COLUMNS.split(", "))
        for problem, solver in dict.fromkeys((lap.problem, lap.solver) for lap in laps):
            own = [lap for lap in laps if (lap.problem, lap.solver) == (problem, solver)]
            sizes = [own[0].dtype, str(own[0].runs), f"{own[0].steps:,}", str(len(own))]
            agree = f"{sum(lap.agrees for lap in own)} of {len(own)}"
            apart = [f"{max(lap.apart for lap in own):.1e}", f"{own[0].allowed:.1e}"]
            times = [quartiles([lap.step_time for lap in own]), quartiles([lap.seconds for lap in own])]
            table.add_row(
                problem, solver, *sizes, agree, *apart, *times, f"{np.median([lap.compile_seconds for lap in own]):.1f}"
            )
        return table
