"""The figures of a run, each drawn from its record and arrays alone.

A drawing is a function of record and arrays that yields its plates, none where the run holds nothing to draw.
"""

import textwrap
from collections.abc import Iterator, Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnlearn.records import Record
from attnlearn.report.maps import attention_maps
from attnlearn.report.palette import GOOD, GREY, INK, OV, QK, STYLE, Arrays, Plate, log_axis

_ROUNDING = {"float64": 2.2e-16, "float32": 1.2e-7}
_LENGTHS = 9  # bars by length


def plates(record: Record, arrays: Arrays) -> tuple[Plate, ...]:
    """Every figure that the run holds the numbers for, in the order of the page."""
    drawings = (attention_maps, errors, spectra, questions, conditioning)
    with mpl.rc_context(STYLE):
        return tuple(plate for draw in drawings for plate in draw(record, arrays))


def errors(record: Record, arrays: Arrays) -> Iterator[Plate]:
    """Relative error of both circuits of every head, against the truth."""
    found = [(head.qk_error, head.ov_error) for head in record.heads]
    if not found or any(qk is None or ov is None for qk, ov in found):
        return
    rounding = _ROUNDING.get(record.dtype, 2.2e-16)
    values = np.maximum(np.array(found, float), rounding / 100)
    figure = Figure(figsize=(10, 3.1), layout="constrained")
    ax = figure.subplots()
    place = np.arange(1, len(found) + 1)
    ax.axhline(rounding, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.annotate(
        f"rounding of {record.dtype}",
        (1, rounding),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=GREY,
    )
    for column, (name, colour, shift) in enumerate((("QK", QK, -0.09), ("OV", OV, 0.09))):
        ax.vlines(place + shift, rounding / 30, values[:, column], color=colour, linewidth=1.4, alpha=0.35)
        ax.plot(place + shift, values[:, column], "o", color=colour, markersize=6, label=name)
    log_axis(ax, "y")
    ax.set(xticks=place, xlabel="head", ylabel="relative error", ylim=(rounding / 30, max(1e-6, values.max() * 30)))
    ax.legend(frameon=False, ncols=2, loc="upper right", borderaxespad=0)
    yield Plate(
        "errors",
        "How exact each head is",
        "Frobenius distance to the true circuit over its norm, after removing head order and gauge. The truth was "
        "opened only after learning had ended.",
        figure,
    )


def spectra(record: Record, arrays: Arrays) -> Iterator[Plate]:
    """Singular values: of the saturated answers (heads) and of every head's circuits (ranks)."""
    qk, ov = [head.qk_rank for head in record.heads], [head.ov_rank for head in record.heads]
    panels = [
        ("spectrum_heads", "saturated answers", GOOD, [len(record.heads)] if record.heads else []),
        ("spectrum_qk", "QK circuits, a line a head", QK, qk),
        ("spectrum_ov", "OV circuits, a line a head", OV, ov),
    ]
    panels = [panel for panel in panels if arrays.get(panel[0], np.empty(0)).size]
    if not panels:
        return
    figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, (name, title, colour, ranks) in zip(grid, panels, strict=True):
        _spectrum(ax, np.atleast_2d(arrays[name]), (colour, ranks))
        ax.set(title=title, xlabel="index of the singular value")
    yield Plate(
        "spectra",
        "Where the head count and the ranks come from",
        "Singular values over the largest. The number of heads and the ranks of the circuits are the places of the "
        "cliffs (dashed).",
        figure,
    )


def _spectrum(ax: Axes, values: np.ndarray, look: tuple[str, list[int]]) -> None:
    """Singular values (lines, n) over their largest, and the rank where they are cut."""
    colour, ranks = look
    cut = max(ranks, default=0)
    shown = (values / np.maximum(values[:, :1], 1e-300))[:, : max(12, 2 * cut + 8) if ranks else 48]
    place = np.arange(1, shown.shape[1] + 1)
    single = len(shown) == 1
    dot = {"marker": "o", "markersize": 4.0 if single else 2.5} if len(place) <= 32 else {}
    ax.plot(place, np.maximum(shown, 1e-17).T, color=colour, linewidth=1, alpha=1 if single else 0.6, **dot)
    if ranks:
        words = f"{cut}" if min(ranks) == cut else f"{min(ranks)}–{cut}"
        ax.axvline(cut + 0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        place_of_words = {"xycoords": ("data", "axes fraction"), "xytext": (5, -10), "textcoords": "offset points"}
        ax.annotate(words, (cut + 0.5, 1), fontsize=10, fontweight="bold", **place_of_words)
    log_axis(ax, "y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set_ylim(3e-18, 10)


def questions(record: Record, arrays: Arrays) -> Iterator[Plate]:
    """The query ledger: by stage, by length, and against the information floor."""
    stages = [(phase.name, phase.calls) for phase in record.phases if phase.calls]
    lengths = _by_length(record.ledger.by_length) if record.ledger else []
    panels = [
        (stages, "sequences by stage", QK),
        (lengths, "sequences by length", OV),
        _against_the_floor(record),
    ]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return
    tallest = max(3, *(len(bars) for bars, _, _ in panels))
    figure = Figure(figsize=(3.4 * len(panels), 1.0 + 0.3 * tallest), layout="constrained")
    for ax, (bars, title, colour) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _bars(ax, bars, (title, colour))
        ax.set_ylim(tallest - 0.4, -0.6)
    yield Plate("questions", "What it cost", _cost_in_words(record), figure)


def _against_the_floor(record: Record) -> tuple[list[tuple[str, int]], str, str]:
    """The panel of what was told against what any method needs: token rows asked, or numbers given."""
    cost, least = record.cost, record.floor
    if least is None or not cost.tokens:
        return [], "", GOOD
    if record.examples is None:
        return [("asked", cost.tokens), ("floor", least.tokens)], "token rows against the floor", GOOD
    return [("given", cost.scalars), ("floor", least.degrees_of_freedom)], "numbers against the floor", GOOD


def _cost_in_words(record: Record) -> str:
    least = record.floor
    if record.examples is not None:
        words = f"The outputs of {record.cost.calls:,} sequences were learned from."
        least_words = "so no method whatever can do with fewer numbers."
    else:
        words = "What the black box was asked; by length with the certificate's questions."
        least_words = (
            f"and a token row answers {record.width_out} numbers, so no method whatever can do with fewer than "
        )
        least_words += "" if least is None else f"{least.tokens:,} rows."
    return (
        words
        if least is None
        else f"{words} The layer has {least.degrees_of_freedom:,} degrees of freedom {least_words}"
    )


def _by_length(calls: Mapping[int, int]) -> list[tuple[str, int]]:
    """Sequences by their number of tokens; beside the most frequent lengths all others in one."""
    frequent = sorted(calls, key=lambda tokens: -calls[tokens])[:_LENGTHS]
    shown = [(f"{tokens} tokens" if tokens > 1 else "1 token", calls[tokens]) for tokens in sorted(frequent)]
    others = sum(calls.values()) - sum(count for _, count in shown)
    return [*shown, ("other lengths", others)] if others else shown


def _bars(ax: Axes, bars: list[tuple[str, int]], look: tuple[str, str]) -> None:
    title, colour = look
    names, values = zip(*bars, strict=True)
    ax.barh(range(len(values)), values, height=0.62, color=colour, alpha=0.9)
    for row, value in enumerate(values):
        ax.annotate(f"{value:,}", (value, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
    ax.set(title=title, xticks=[], xlim=(0, max(values) * 1.28))
    ax.set_yticks(range(len(names)), names, color=INK)
    ax.spines[["bottom", "left"]].set_visible(False)


def conditioning(record: Record, arrays: Arrays) -> Iterator[Plate]:
    """Condition numbers on the way: how much of the precision each solve cost."""
    numbers = {name: value for name, value in record.conditioning.items() if np.isfinite(value) and value >= 1}
    if not numbers:
        return
    figure = Figure(figsize=(10, 0.9 + 0.34 * max(len(numbers), 2)), layout="constrained")
    ax = figure.subplots()
    place = range(len(numbers))
    values = list(numbers.values())
    ax.hlines(place, 1, values, color=QK, linewidth=1.6, alpha=0.35)
    ax.plot(values, place, "o", color=QK, markersize=7)
    for row, value in enumerate(values):
        ax.annotate(f"{value:,.3g}", (value, row), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8.5)
    log_axis(ax, "x")
    ax.set_yticks(place, [textwrap.shorten(name, 40) for name in numbers], color=INK)
    ax.set(xlim=(1, max(1e4, max(values) * 10)), ylim=(len(numbers) - 0.5, -0.5), xlabel="condition number")
    yield Plate(
        "conditioning",
        "How well the equations were posed",
        "Condition numbers of what was inverted on the way: 10 loses one digit of about 16, 1000 loses three.",
        figure,
    )
