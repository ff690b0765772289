"""`python -m bench NAME`: runs a benchmark, prints its tables and writes `bench/results/NAME.json`."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from attnlearn import records
from bench import BENCHMARKS
from bench.machine import machine
from bench.trial import Benchmark, Claim, Trial

RESULTS = Path(__file__).parent / "results"
COLUMNS = "problem, solver, runs, status, heads right, Θ worst, Θ median, W, bias, offset, output"
COLUMNS += ", calls, tokens, seconds, compiling"
app = typer.Typer(add_completion=False)
console = Console(width=None if Console().is_terminal else 200)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="Benchmark to run.")] = "",
    list_all: Annotated[bool, typer.Option("--list", help="Name the benchmarks and what each asks.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few small problems; nothing is written.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the tables of the last run; nothing is run.")] = False,
) -> None:
    """Runs one benchmark from a checkout. Exit code 1: a target was missed."""
    if list_all or not name:
        for known, benchmark in BENCHMARKS.items():
            console.print(f"[bold]{known}[/bold]: {benchmark.question}", highlight=False)
        return
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    trials, claims = read(name) if show else run(BENCHMARKS[name], tiny)
    console.print(summary(trials), judged(claims))
    if not (tiny or show):
        write(name, trials, claims)
    raise typer.Exit(int(any(claim.holds is False for claim in claims)))


def run(benchmark: Benchmark, tiny: bool) -> tuple[list[Trial], list[Claim]]:
    """All trials, each told as it ends, and the claims about them."""
    trials = []
    for trial in benchmark.trials(tiny):
        trials.append(trial)
        told = f"{trial.problem} | {trial.solver} | seed {trial.seed} | {trial.status} | Θ {trial.qk:.1e}"
        console.print(f"{told} | {trial.calls} calls | {trial.seconds:.1f} s", highlight=False)
    return trials, benchmark.claims(trials)


def write(name: str, trials: list[Trial], claims: list[Claim]) -> None:
    """The record of a run: the machine and the versions, every trial with its seed, and the claims."""
    record = {
        "benchmark": name,
        "question": BENCHMARKS[name].question,
        "machine": machine(),
        "versions": records.versions(),
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in claims],
        "trials": trials,
    }
    RESULTS.mkdir(exist_ok=True)
    text = records.to_json(record) + "\n"
    records.write_whole(RESULTS / f"{name}.json", lambda path: path.write_text(text, encoding="utf-8"))


def read(name: str) -> tuple[list[Trial], list[Claim]]:
    """What `write` wrote; the claims are made again from the trials."""
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    trials = [Trial(**{field: _number(value) for field, value in trial.items()}) for trial in record["trials"]]
    return trials, BENCHMARKS[name].claims(trials)


def _number(value: Any) -> Any:
    """JSON has no infinity: records write it as a word."""
    return float(value) if value in ("inf", "nan") else value


def summary(trials: list[Trial]) -> Table:
    """One row for each problem and solver: worst errors, median costs, quartiles of the time."""
    table = Table(*COLUMNS.split(", "))
    for problem, solver in dict.fromkeys((trial.problem, trial.solver) for trial in trials):
        own = [trial for trial in trials if (trial.problem, trial.solver) == (problem, solver)]
        status = "\n".join(f"{n} {status}" for status, n in Counter(trial.status for trial in own).most_common())
        heads = f"{sum(trial.heads == trial.true_heads for trial in own)} of {len(own)}"
        figures = ("qk", "qk_median", "ov", "query_bias", "offset", "output")
        errors = [f"{max(getattr(trial, figure) for trial in own):.1e}" for figure in figures]
        costs = [f"{np.median([getattr(trial, figure) for trial in own]):.0f}" for figure in ("calls", "tokens")]
        low, middle, high = np.quantile([trial.seconds for trial in own], (0.25, 0.5, 0.75))
        seconds = f"{middle:.2f}" if len(own) == 1 else f"{middle:.2f} ({low:.2f}-{high:.2f})"
        compiling = f"{np.median([trial.compile_seconds for trial in own]):.1f}"
        table.add_row(problem, solver, str(len(own)), status, heads, *errors, *costs, seconds, compiling)
    return table


def judged(claims: list[Claim]) -> Table:
    """Every claim beside its target."""
    table = Table("claim", "measured", "target", "holds")
    for claim in claims:
        target = "" if claim.target is None else f"{claim.relation} {claim.target:g}"
        table.add_row(claim.what, f"{claim.measured:.4g}", target, {True: "yes", False: "NO", None: ""}[claim.holds])
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench")
