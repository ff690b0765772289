"""What a terminal shows: the stages while they run, the result as a table. Into a pipe goes plain text."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from attnlearn._progress import listening
from attnlearn.certify.identifiability import Identifiability
from attnlearn.records import Record
from attnlearn.report import headline, scientific, tiles

PIPE_WIDTH = 110  # characters, where there is no terminal to ask


def console() -> Console:
    """Standard output as it is now."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PIPE_WIDTH)


@contextlib.contextmanager
def stages(shown: bool) -> Iterator[None]:
    """Shows the progress of everything inside the block, a line a stage, where standard error is a terminal."""
    screen = Console(stderr=True)
    if not (shown and screen.is_terminal):
        yield
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:12}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as bars:
        known: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in known:
                for task in bars.tasks:  # a new stage: the ones before it are over
                    bars.update(task.id, total=max(task.completed, 1), completed=max(task.completed, 1))
                known[stage] = bars.add_task(stage, total=None)
            bars.update(known[stage], completed=done, total=total or None)

        with listening(show):
            yield


def show_result(record: Record, kept: str | None) -> None:
    """The result of a run as a person wants to read it; `kept` is the page that tells more."""
    screen = console()
    colour = "green" if record.recovered else "red"
    screen.print(f"\n[bold {colour}]{headline(record)}[/]  [dim]{escape(record.source)}[/]", soft_wrap=True)
    if not record.recovered:
        screen.print(record.sentence, soft_wrap=True)
        if record.phases:
            screen.print(f"Stage reached: {record.phases[-1].name}.", soft_wrap=True)
    if record.evidence:
        screen.print(record.evidence, markup=False, soft_wrap=True)
    if record.heads:
        screen.print(_heads(record))
    for tile in tiles(record):
        screen.print(f"  [bold]{tile.value:>12}[/]  {tile.label}")
    if kept:
        screen.print(f"\n{kept}", markup=False, soft_wrap=True)


def _heads(record: Record) -> Table:
    judged = record.judgement is not None
    table = Table(box=None, padding=(0, 2), header_style="dim")
    names = ["head", "norm QK", "rank", "norm OV", "rank"] + ["error QK", "error OV"] * judged
    for name in names:
        table.add_column(name, justify="right", style="blue" if "QK" in name else "yellow" if "OV" in name else None)
    for number, head in enumerate(record.heads, 1):
        cells = [f"{head.qk_norm:.3g}", str(head.qk_rank), f"{head.ov_norm:.3g}", str(head.ov_rank)]
        errors = [scientific(head.qk_error), scientific(head.ov_error)] if judged else []
        table.add_row(str(number), *cells, *errors)
    return table


def show_table(columns: list[str], rows: list[list[str]]) -> None:
    """A plain table, numbers to the right."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def show_identifiability(found: Identifiability) -> None:
    """What outputs cannot show about a layer; first that there are too few of them, where that is so."""
    screen = console()
    visible = found.parameters - sum(one.dimension for one in found.directions)
    if found.outputs < visible:
        screen.print(
            f"Too few outputs: {found.outputs:,} numbers cannot show {visible:,} parameter directions, which enough "
            "sequences of this kind would show. With these alone:",
            soft_wrap=True,
        )
    closed = "none known" if found.expected is None else f"{found.expected:,}"
    screen.print(
        f"{found.dimension:,} of {found.parameters:,} parameter directions leave no trace in the outputs "
        f"(closed form: {closed}; method: {found.method}).",
        soft_wrap=True,
    )
    screen.print(f"Conditioning of what is seen: {found.conditioning:.2g}.")
    if found.directions:
        rows = [[one.name, str(one.dimension), one.formula] for one in found.directions]
        show_table(["direction", "dimension", "formula"], rows)
    for note in found.notes:
        screen.print(note, markup=False, soft_wrap=True)
