"""The figures of single-location training, each from its record alone: the five experiments, and the phase diagram."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.records import Study
from attnlearn.report.palette import FAINT, GOOD, GREY, INK, OV, QK, log_axis

Row = Mapping[str, Any]
_TITLES = {
    "init_manifold": "on the manifold",
    "init_sphere_no_schedule_large_lambda": "sphere, large slope",
    "init_sphere_no_schedule_small_lambda": "sphere, small slope",
    "init_sphere_schedule": "sphere, schedule",
    "sgd_init_sphere_schedule": "SGD, schedule",
}
_PHASES = (
    ("oracle", "at k*, v*", QK),
    ("stuck", "on their side, |κ| < 0.8 when stopped", "#a9bfdf"),
    ("swapped", "swapped", OV),
)
_LEAST = 1e-18  # drawn for a distance of zero


def five_experiments(study: Study) -> Figure:
    """A row of four panels an experiment, as the paper draws them: risk, overlaps, paths, distance to the manifold."""
    rows = study.table
    figure = Figure(figsize=(13, 2.7 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for panels, row in zip(grid, rows, strict=True):
        steps = np.array(row["logged"]) / 1000
        _risk(panels[0], steps, row)
        _overlaps(panels[1], steps, row)
        _paths(panels[2], row)
        _distance(panels[3], steps, row)
        for ax in (panels[0], panels[1], panels[3]):
            ax.set_xlabel("thousand steps")
    return figure


def _risk(ax: Axes, steps: np.ndarray, row: Row) -> None:
    _curve(ax, steps, row, ("risk", INK, "excess risk"))
    ax.axhline(row["oracle_risk"], color=QK, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.axhline(row["swapped_risk"], color=OV, linewidth=0.9, linestyle=(0, (1, 2)))
    title = f"{_TITLES.get(row['name'], row['name'])}: d = {row['d']}, slope {row['lam']:g}"
    ax.set(title=title + (" falling" if row["rate"] else ""), ylabel="excess risk")
    ax.set_ylim(-0.02 * _top(row), _top(row))


def _top(row: Row) -> float:
    """The height of the panel of risks: 6 as in the paper, or less where no run starts that high."""
    return min(6.0, 1.1 * max(row["curves"]["risk"]["high"]))


def _overlaps(ax: Axes, steps: np.ndarray, row: Row) -> None:
    _curve(ax, steps, row, ("kappa", QK, "|κ|"))
    _curve(ax, steps, row, ("nu", GOOD, "|ν|"))
    ends = [f"{len(end['runs'])} {name}" for name, end in row["ends"].items()]
    ax.set(title=f"runs: {', '.join(ends)}", ylim=(-0.02, 1.05))
    ax.legend(frameon=False, loc="center right")


def _paths(ax: Axes, row: Row) -> None:
    for colour, (run, (kappa, nu)) in zip((QK, OV, GOOD), row["paths"].items(), strict=False):
        ax.plot(kappa, nu, color=colour, linewidth=1.2, label=f"run {run}")
        ax.plot(kappa[0], nu[0], "o", color=colour, markersize=4)
        ax.plot(kappa[-1], nu[-1], "*", color=colour, markersize=9)
    ax.plot([-1, 1], [-1, 1], "+", color=GREY, markersize=9)
    ax.axhline(0, color=FAINT, linewidth=0.6)
    ax.axvline(0, color=FAINT, linewidth=0.6)
    ax.set(title="paths, from dot to star", xlabel="κ", ylabel="ν", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    ax.legend(frameon=False, fontsize=7, loc="upper left")


def _distance(ax: Axes, steps: np.ndarray, row: Row) -> None:
    _curve(ax, steps, row, ("distance", GREY, ""))
    log_axis(ax, "y")
    if max(row["curves"]["distance"]["high"]) == 0:
        ax.annotate("exactly 0 at every step", (0.5, 0.5), xycoords="axes fraction", ha="center", color=GREY)
        ax.set_ylim(1e-16, 2)
    ax.set_title("distance to the manifold")


def _curve(ax: Axes, steps: np.ndarray, row: Row, look: tuple[str, str, str]) -> None:
    """The mean and the central 95 % of the runs, or every run where the record has them."""
    name, colour, label = look
    if name in row["each_run"]:
        runs = np.maximum(np.array(row["each_run"][name]), _LEAST)
        ax.plot(steps, runs.T, color=colour, linewidth=0.6, alpha=0.6)
        ax.plot([], [], color=colour, label=label)
        return
    bands = {part: np.maximum(values, _LEAST) for part, values in row["curves"][name].items()}
    ax.fill_between(steps, bands["low"], bands["high"], color=colour, alpha=0.25, linewidth=0)
    ax.plot(steps, bands["mean"], color=colour, linewidth=1.4, label=label)


def phase_diagram(study: Study) -> Figure:
    """Shares of random starts by where they end, a bar a setting, and the swapped share against the slope."""
    rows = study.table
    main = max(rows, key=lambda row: row["starts"])["d"]  # the width with most starts
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    bars, curve = figure.subplots(1, 2, width_ratios=(1.3, 1))
    _bars(bars, [row for row in rows if row["d"] == main])
    bars.set_title(f"where {max(row['starts'] for row in rows)} random starts end, d = {main}")
    for d, colour in zip(sorted({row["d"] for row in rows}), (GOOD, QK, OV, GREY), strict=False):
        for scheduled, marker in ((False, "o"), (True, "D")):
            some = [row for row in rows if row["d"] == d and bool(row["rate"]) == scheduled]
            _shares(curve, some, (f"d = {d}{', schedule' if scheduled else ''}", colour, marker))
    curve.set(
        xscale="log",
        xlabel="slope at the first step",
        ylabel="share that ends swapped",
        ylim=(-0.02, 0.65),
        title="the swapped share, with 95 % intervals",
    )
    curve.grid(axis="y")
    curve.legend(frameon=False, fontsize=8)
    return figure


def _bars(ax: Axes, rows: Sequence[Row]) -> None:
    bottom = np.zeros(len(rows))
    for kind, label, colour in (*_PHASES, ("undecided", "undecided", FAINT)):
        share = np.array([row[kind] / row["starts"] for row in rows])
        ax.bar(range(len(rows)), share, bottom=bottom, color=colour, width=0.75, label=label)
        for place, (part, base, row) in enumerate(zip(share, bottom, rows, strict=True)):
            if part > 0.035:
                light = colour in (QK, OV)
                words = {"ha": "center", "va": "center", "fontsize": 7, "color": "white" if light else INK}
                ax.annotate(f"{row[kind]}", (place, base + part / 2), **words)
        bottom += share
    names = [f"{row['lam']:g}" + (f"\n→ {row['last_lam']:.2g}" if row["rate"] else "") for row in rows]
    ax.set_xticks(range(len(rows)), names)
    ax.set(xlabel="slope (→: schedule)", ylabel="share of starts", ylim=(0, 1.14))
    ax.legend(frameon=False, ncols=4, loc="upper center", fontsize=8, borderaxespad=0)


def _shares(ax: Axes, rows: Sequence[Row], look: tuple[str, str, str]) -> None:
    """The swapped share of `rows` with its interval; a line where the slope is fixed."""
    if not rows:
        return
    label, colour, marker = look
    x = [row["lam"] for row in rows]
    y = np.array([row["swapped"] / row["starts"] for row in rows])
    low, high = np.array([row["swapped_low_high"] for row in rows]).T
    spread = np.maximum([y - low, high - y], 0.0)
    line, face = ("-", colour) if marker == "o" else ("none", "white")
    look_of = {"marker": marker, "linestyle": line, "markerfacecolor": face, "markersize": 5, "linewidth": 1.2}
    ax.errorbar(x, y, spread, color=colour, label=label, **look_of)
