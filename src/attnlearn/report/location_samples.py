"""Samples to excess risk of single-location regression, from the record of its study alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.records import Study
from attnlearn.report.palette import GOOD, GREY, INK, OV, QK, log_axis

Row = Mapping[str, Any]


def samples_to_risk(study: Study) -> Figure:
    """Excess against samples seen at the width of the training, and of the learner at all widths against n / d."""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    against, scaled = figure.subplots(1, 2, width_ratios=(1.5, 1))
    trained = next(row for row in study.table if row["kind"] == "sgd")
    learned = [row for row in study.table if row["kind"] == "learner"]
    _learned(against, [row for row in learned if row["d"] == trained["d"]])
    _trained(against, trained)
    for which in ("x", "y"):
        log_axis(against, which)
    against.set(title=f"d = {trained['d']}, {study.design['tokens']} tokens", xlabel="samples", ylabel="excess risk")
    against.legend(frameon=False, fontsize=8, loc="lower right")
    _scaled(scaled, learned, study.design["epsilon"])
    return figure


def _learned(ax: Axes, rows: Sequence[Row]) -> None:
    """The learner with the middle 80 % of its draws, ridge regression, and least squares at the true places."""
    n = [row["n"] for row in rows]
    low, _, high = np.array([row["low_median_high"] for row in rows]).T
    ax.fill_between(n, low, high, color=QK, alpha=0.2, linewidth=0)
    ax.plot(n, [row["excess"] for row in rows], "o-", color=QK, markersize=4, linewidth=1.6, label="the learner")
    looks = {
        "formula": ("places known: $\\varepsilon^2 d/(n-d-1)$", INK, (0, (4, 3))),
        "ridge": ("best ridge on summed tokens", GREY, "-"),
        "ridge_flat": ("best ridge on whole sequences", GREY, ":"),
    }
    for name, (label, colour, style) in looks.items():
        there = [(row["n"], row[name]) for row in rows if row[name] is not None]
        if there:
            ax.plot(*zip(*there, strict=True), color=colour, linestyle=style, linewidth=1.2, label=label)


def _trained(ax: Axes, row: Row) -> None:
    ax.plot(row["samples"], row["excess"], color=OV, linewidth=1.6, label=f"SGD, erf attention, {row['runs']} runs")
    ax.axhline(row["erf_floor"], color=OV, linewidth=0.9, linestyle=":")
    words = f"floor of erf attention {row['erf_floor']:.3g}"
    ax.annotate(words, (0.5, row["erf_floor"]), xycoords=("axes fraction", "data"), va="top", color=OV)


def _scaled(ax: Axes, rows: Sequence[Row], epsilon: float) -> None:
    """The learner at every width: one curve in n / d, but for 1/n terms."""
    for d, colour in zip(sorted({row["d"] for row in rows}), (QK, GOOD, OV, GREY), strict=False):
        some = [row for row in rows if row["d"] == d]
        label = f"d = {d}, {min(row['draws'] for row in some)} draws"
        x, y = [row["n"] / d for row in some], [row["excess"] for row in some]
        ax.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.4, label=label)
    x = np.geomspace(1.1, max(row["n"] / row["d"] for row in rows), 100)
    ax.plot(x, epsilon**2 / (x - 1), color=INK, linewidth=1.2, linestyle=(0, (4, 3)), label=r"$\varepsilon^2/(n/d-1)$")
    for which in ("x", "y"):
        log_axis(ax, which)
    ax.set(title="the learner at every width", xlabel="labels for each entry of v, n / d", ylim=(None, 1.2))
    ax.legend(frameon=False, fontsize=8)
