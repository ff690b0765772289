"""One picture a phase: the figure of the study `sculpting-walkthrough`, from its record alone."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.records import Study
from attnlearn.report.palette import GOOD, GREY, OV, QK, log_axis

Row = Mapping[str, Any]
SMALLEST = 10  # singular values that are shown


def walkthrough(study: Study) -> Figure:
    """Six panels in the order of the algorithm."""
    figure = Figure(figsize=(12, 7.2), layout="constrained")
    rows = {row["phase"]: row for row in study.table}
    panels = figure.subplots(2, 3).ravel()
    for ax, (title, draw) in zip(panels, _PANELS.items(), strict=True):
        draw(ax, rows)
        ax.set_title(title)
    return figure


def _crude(ax: Axes, rows: Mapping[str, Row]) -> None:
    crude, refined = rows["crude"], rows["sum"]["refined"]
    for name, colour in (("paper", GREY), ("off_diagonal", QK), ("slice", OV)):
        ax.plot(crude["true"], crude[name], ".", color=colour, markersize=4, label=name.replace("_", "-"))
    ax.plot(crude["true"], refined, ".", color=GOOD, markersize=4, label="refined")
    ends = [min(crude["true"]), max(crude["true"])]
    ax.plot(ends, ends, "-", color=GREY, linewidth=0.8)
    ax.set(xlabel="true entry of the sum", ylabel="estimate")
    ax.legend(frameon=False)


def _sum(ax: Axes, rows: Mapping[str, Row]) -> None:
    bins = np.logspace(-4, 0.5, 50).tolist()
    for name, colour in (("before", GREY), ("after", GOOD)):
        ax.hist(np.clip(np.ravel(rows["sum"][name]), bins[0], bins[-1]), bins, color=colour, alpha=0.6, label=name)
    ax.set(xscale="log", yscale="log", xlabel="distance to the nearest token", ylabel="rows")
    ax.legend(frameon=False)


def _certificates(ax: Axes, rows: Mapping[str, Row]) -> None:
    said, odds = np.asarray(rows["certificates"]["heads"]), rows["certificates"]["log_odds"]
    for head, (values, colour) in enumerate(zip(said, (QK, OV), strict=False)):
        ax.plot(odds, values, ".", color=colour, markersize=3, alpha=0.5, label=f"head {head + 1}")
    limit = float(np.max(np.abs(odds)))
    ax.plot([-limit, limit], [-limit, limit], "-", color=GREY, linewidth=0.8)
    ax.set(xlabel="log odds that the certificate says", ylabel="true logit difference", ylim=(-2 * limit, 2 * limit))
    ax.legend(frameon=False)


def _hull(ax: Axes, rows: Mapping[str, Row]) -> None:
    values, heads = rows["hull"]["values"][:SMALLEST], rows["hull"]["heads"]
    colours = [OV if number < heads else QK for number in range(len(values))]
    ax.bar(np.arange(1, len(values) + 1), values, color=colours)
    ax.annotate(f"gap {rows['hull']['gap']:.3g}", (0.02, 0.93), xycoords="axes fraction", color=OV)
    log_axis(ax, "y")
    ax.set(xlabel="smallest singular values of the certificates")


def _net(ax: Axes, rows: Mapping[str, Row]) -> None:
    c, cost, best = (np.asarray(rows["net"][name]) for name in ("c", "cost", "best"))
    both = np.r_[c, c[:, ::-1]]
    drawn = ax.tripcolor(both[:, 0], both[:, 1], np.r_[cost, cost], shading="gouraud", cmap="Blues_r")
    ax.plot([best[0, 0], best[1, 0]], [best[1, 0], best[0, 0]], "o", color=OV, fillstyle="none")
    ax.figure.colorbar(drawn, ax=ax, label="relative error of the regression")
    ax.set(xlabel="first head's coordinate", ylabel="second head's coordinate")


def _fits(ax: Axes, rows: Mapping[str, Row]) -> None:
    start = 0
    for name, colour in (("faithful", QK), ("polished", GOOD)):
        error = rows[name]["error"]
        ax.plot(np.arange(start, start + len(error)), error, "o-", color=colour, markersize=3, label=name)
        start += len(error) - 1
    log_axis(ax, "y")
    ax.set(xlabel="steps", ylabel="relative error on held-out rows")
    ax.legend(frameon=False)


_PANELS: Mapping[str, Callable[[Axes, Mapping[str, Row]], None]] = {
    "(i) crude sum of the OV circuits": _crude,
    "(ii) certificates, after (iii)": _certificates,
    "(iii) a better sum: effective tokens": _sum,
    "(iv) hull": _hull,
    "(v) net in the hull": _net,
    "(vi) fits in the hull and in the full space": _fits,
}
