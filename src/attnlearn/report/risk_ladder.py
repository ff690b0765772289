"""The ladder of predictors of single-location regression, from the record of its study alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from attnlearn.records import Study
from attnlearn.report.palette import GOOD, GREY, INK, OV, QK, log_axis

Row = Mapping[str, Any]

_FAMILIES = {  # name, label, colour, line
    "linear": ("affine map", GREY, ":"),
    "erf": ("erf attention", OV, "-"),
    "linear_attention": ("linear attention", GREY, "-"),
    "swapped": ("erf attention, swapped", OV, (0, (2, 2))),
    "gate": ("gate", GOOD, "-"),
    "softmax": ("softmax attention", QK, "-"),
    "bayes": ("Bayes", INK, (0, (1, 1))),
}
_LEAST = 1e-12  # below, a point is named in words and not drawn


def risk_ladder(study: Study) -> Figure:
    """Excess risks: against the width for two spreads, against the length, and the law of erf attention far out."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    panels = figure.subplots(2, 2)
    design, rows = study.design, study.table
    near = [row for row in rows if row["bayes"] is not None]
    for ax, spread in zip(panels[0], (design["gammas_squared"][0], design["gammas_squared"][-1]), strict=True):
        line = [row for row in near if row["tokens"] == design["length"] and row["gamma_squared"] == spread]
        _against(ax, line, "d")
        _named(ax, line[-1])
        ax.set(title=f"spread $\\gamma^2$ = {spread:g}, {design['length']} tokens", xlabel="width of a token")
    width, spread = design["widths_of_lengths"][0], design["gammas_squared"][0]
    line = [row for row in near if row["d"] == width and row["gamma_squared"] == spread]
    _against(panels[1, 0], sorted(line, key=lambda row: row["tokens"]), "tokens")
    panels[1, 0].set(title=f"width {width}, $\\gamma^2$ = {spread:g}", xlabel="tokens of a sequence")
    _law(panels[1, 1], [row for row in rows if row["tokens"] == design["length"] and row["gamma_squared"] == spread])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    return figure


def _against(ax: Axes, rows: Sequence[Row], name: str) -> None:
    """Every family against one column; what is below the axis is left out."""
    x = [row[name] for row in rows]
    for family, (label, colour, style) in _FAMILIES.items():
        y = [row[family] for row in rows]
        width = 2.2 if family == "bayes" else 1.4
        ax.plot(x, y, color=colour, linestyle=style, linewidth=width, marker="o", markersize=2.5, label=label)
    least = min(row["bayes"] for row in rows)
    log_axis(ax, "y")
    ax.set_ylim(max(_LEAST, least / 3), 2)
    ax.set_ylabel("excess risk")
    _numbers(ax, x)


def _named(ax: Axes, row: Row) -> None:
    """In words, what of a row is too small to be drawn."""
    small = [f"{_FAMILIES[name][0]} {row[name]:.1e}" for name in ("bayes", "softmax", "gate") if row[name] < _LEAST]
    if small:
        words = f"at width {row['d']}, below the axis:\n" + "\n".join(small)
        ax.annotate(words, (0.03, 0.04), xycoords="axes fraction", color=GREY, fontsize=8, va="bottom")


def _law(ax: Axes, rows: Sequence[Row]) -> None:
    """What erf and linear attention leave, over $L/d$, out to widths where all others leave nothing."""
    rows = sorted(rows, key=lambda row: row["d"])
    d, tokens = np.array([row["d"] for row in rows], float), rows[0]["tokens"]
    for name in ("erf", "linear_attention", "swapped"):
        _, colour, style = _FAMILIES[name]
        y = np.array([row[name] for row in rows]) * d / tokens
        ax.plot(d, y, color=colour, linestyle=style, linewidth=1.4, marker="o", markersize=2.5)
    ax.plot(d, np.log(d), color=GREY, linewidth=0.9, linestyle=":")
    ax.annotate(r"$\log d$ ", (d.max(), np.log(d.max())), color=GREY, ha="right", va="bottom", fontsize=8)
    ax.set_xscale("log")
    log_axis(ax, "x")
    ax.set_ylim(bottom=0)
    ax.grid(axis="y")
    task = f"{tokens} tokens, $\\gamma^2$ = {rows[0]['gamma_squared']:g}"
    ax.set(title=f"excess risk times d / L, {task}", xlabel="width of a token")


def _numbers(ax: Axes, x: Sequence[int]) -> None:
    """A logarithmic axis that names its points."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted(set(x))))
    ax.xaxis.set_minor_locator(FixedLocator([]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
