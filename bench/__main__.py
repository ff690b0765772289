"""`python -m bench NAME`: runs a benchmark, prints its tables and writes `bench/results/NAME.json`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from attnlearn import records
from bench import BENCHMARKS
from bench.machine import machine
from bench.trial import Benchmark, Claim

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parent.parent / "docs" / "figures"
app = typer.Typer(add_completion=False)
console = Console(width=None if Console().is_terminal else 200)


@app.command()
def main(
    name: Annotated[str, typer.Argument(help="Benchmark to run.")] = "",
    list_all: Annotated[bool, typer.Option("--list", help="Name the benchmarks and what each asks.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="A few small problems; nothing is written.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the tables of the last run; nothing is run.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="As --show, and draw docs/figures/NAME.png anew.")] = False,
) -> None:
    """Runs one benchmark from a checkout. Exit code 1: a target was missed."""
    if list_all or not name:
        for known, benchmark in BENCHMARKS.items():
            console.print(f"[bold]{known}[/bold]: {benchmark.question}", highlight=False)
        return
    if name not in BENCHMARKS:
        raise typer.BadParameter(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    if draw and benchmark.picture is None:
        raise typer.BadParameter(f"{name} has no picture")
    trials, claims = read(name) if show or draw else run(benchmark, tiny)
    console.print(benchmark.kind.table(trials), judged(claims))
    if draw and benchmark.picture is not None:
        benchmark.picture(trials).savefig(FIGURES / f"{name}.png", dpi=160)
    elif not (tiny or show):
        write(name, trials, claims)
    raise typer.Exit(int(any(claim.holds is False for claim in claims)))


def run(benchmark: Benchmark, tiny: bool) -> tuple[list[Any], list[Claim]]:
    """All trials, each told as it ends, and the claims about them."""
    trials = []
    for trial in benchmark.trials(tiny):
        trials.append(trial)
        console.print(trial.told, highlight=False)
    return trials, benchmark.claims(trials)


def write(name: str, trials: list[Any], claims: list[Claim]) -> None:
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


def read(name: str) -> tuple[list[Any], list[Claim]]:
    """What `write` wrote; the claims are made again from the trials."""
    record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    trials = [BENCHMARKS[name].kind(**_numbers(trial)) for trial in record["trials"]]
    return trials, BENCHMARKS[name].claims(trials)


def _numbers(value: Any) -> Any:
    """JSON has no infinity: records write it as a word."""
    if isinstance(value, dict):
        return {name: _numbers(entry) for name, entry in value.items()}
    return float(value) if value in ("inf", "nan") else value


def judged(claims: list[Claim]) -> Table:
    """Every claim beside its target."""
    table = Table("claim", "measured", "target", "holds")
    for claim in claims:
        target = "" if claim.target is None else f"{claim.relation} {claim.target:g}"
        table.add_row(claim.what, f"{claim.measured:.4g}", target, {True: "yes", False: "NO", None: ""}[claim.holds])
    return table


if __name__ == "__main__":
    app(prog_name="python -m bench")
