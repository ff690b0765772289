"""The figures of the studies of sculpting, each from its record alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.records import Study
from attnlearn.report.palette import FAINT, GOOD, GREY, OV, QK, log_axis
from attnlearn.report.walkthrough import walkthrough

FAIR, GOOD_GAP, CLOSE = 7.0, 13.0, 5.0  # gaps called fair and good, in degrees what counts as close
LEAST, LEAST_SHARE = 1e-17, 1e-6  # drawn for an error of zero, and for no row at all
_COLOURS = (QK, OV, GOOD, GREY)
Row = Mapping[str, Any]


def phases_against(study: Study) -> Figure:
    """Errors of every phase, the shares that it accepts and the gap, against what the study varies."""
    along = str(study.design["along"])
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    errors, shares, gap = figure.subplots(1, 3)
    x = [row[along] for row in study.table]
    for (label, read), colour in zip(_ERRORS.items(), (GREY, "black", OV, QK, GOOD), strict=True):
        _median_line(errors, x, [read(row) for row in study.table], (label, colour))
    for label, name, colour in (("decided by one token", "score", QK), ("accepted edges", "accepted", OV)):
        part = [None if row[name] is None else max(row[name], LEAST_SHARE) for row in study.table]
        _median_line(shares, x, part, (label, colour))
    _median_line(gap, x, [row["gap"] for row in study.table], ("gap", QK))
    for limit, word in ((FAIR, "fair"), (GOOD_GAP, "good")):
        gap.axhline(limit, color=GREY, linewidth=0.8, linestyle=":")
        gap.annotate(word, (0.01, limit), xycoords=("axes fraction", "data"), va="bottom", color=GREY)
    for ax, title in ((errors, "relative error"), (shares, "share of rows"), (gap, "singular gap of the hull")):
        if along in ("examples", "norm"):
            ax.set_xscale("log")
        log_axis(ax, "y")
        ax.set(title=title, xlabel=along)
    _legend(errors, fontsize=7)
    _legend(shares)
    return figure


_ERRORS: Mapping[str, Callable[[Row], float | None]] = {
    "crude sum": lambda row: min((one for one in row["crude"].values() if one is not None), default=None),
    "refined sum": lambda row: row["ov_sum"],
    "heads from the hull": lambda row: row["distance"],
    "faithful outputs": lambda row: row["faithful"],
    "polished outputs": lambda row: row["polished"],
}


def _median_line(ax: Axes, x: Sequence[int | float], y: Sequence[float | None], look: tuple[str, str]) -> None:
    """Every point, and a line through the medians; what was not reached is left out."""
    there = [(a, max(b, LEAST)) for a, b in zip(x, y, strict=True) if b is not None]
    if not there:
        return
    label, colour = look
    places = np.array([a for a, _ in there], float)
    values = np.array([b for _, b in there], float)
    at = np.unique(places)
    ax.plot(places, values, "o", color=colour, markersize=3, alpha=0.5)
    ax.plot(at, [np.median(values[places == one]) for one in at], "-", color=colour, linewidth=1.4, label=label)


def _legend(ax: Axes, **look: Any) -> None:
    """A legend, where there is anything to name."""
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, **look)


def gap_against_angle(study: Study) -> Figure:
    """The gap of every hull and its largest angle to the truth; crosses: the gap peaked at another number of heads."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.subplots()
    rows = [row for row in study.table if row["gap"] is not None]
    for number, heads in enumerate(sorted({row["heads"] for row in rows})):
        for peaked, marker in ((True, "o"), (False, "x")):
            some = [row for row in rows if row["heads"] == heads and (row["counted"] == heads) == peaked]
            label = f"{heads} head{'s' * (heads > 1)}" if peaked else None
            ax.plot(
                [row["gap"] for row in some],
                [max(row["angle"], 1e-3) for row in some],
                marker,
                color=_COLOURS[number % len(_COLOURS)],
                markersize=4,
                label=label,
            )
    for limit in (FAIR, GOOD_GAP):
        ax.axvline(limit, color=GREY, linewidth=0.8, linestyle=":")
    ax.axhline(CLOSE, color=GREY, linewidth=0.8, linestyle=":")
    log_axis(ax, "y")
    ax.set(xscale="log", xlabel="gap", ylabel="largest angle to the true heads, degrees")
    _legend(ax)
    return figure


def seeds(study: Study) -> Figure:
    """Faithful and polished error and time of every seed; a line where the limit is, hollow where the hull failed."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    names = list(dict.fromkeys(_name(row) for row in study.table))
    for number, name in enumerate(names):
        rows = [row for row in study.table if _name(row) == name]
        x = number + np.linspace(-0.3, 0.3, len(rows))
        panels[0].hlines(rows[0]["limit"], number - 0.4, number + 0.4, color=GREY, linestyle=":")
        for ax, quantity in zip(panels, ("faithful", "qk", "seconds"), strict=True):
            _seed_points(ax, x, [row[quantity] for row in rows], [row["trusted"] for row in rows])
    for ax, title in zip(panels, ("faithful error", "QK error after the polish", "seconds"), strict=True):
        if title == "seconds":
            ax.set_ylim(bottom=0)
            ax.grid(axis="y")
        else:
            log_axis(ax, "y")
        ax.set(title=title, xticks=range(len(names)))
        ax.set_xticklabels(names, fontsize=7)
    return figure


def _seed_points(ax: Axes, x: np.ndarray, y: Sequence[float | None], trusted: Sequence[bool]) -> None:
    for place, value, filled in zip(x, y, trusted, strict=True):
        if value is not None:
            ax.plot(place, value, "o", color=QK, markersize=4, fillstyle="full" if filled else "none")


def _name(row: Row) -> str:
    shape = f"{row['heads']}, {row['width']}, {row['tokens']}, {row['norm']:g}\nN = {row['examples']:,}"
    return shape + (f"\n{100 * row['noise']:g} % noise" if row["noise"] else "")


def region(study: Study) -> Figure:
    """Errors of the hard problems, by groups: in the hull (hollow where it is not trusted), sharpened, polished."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    ax = figure.subplots()
    names = []
    for number, row in enumerate(study.table):
        first = number == 0 or study.table[number - 1]["group"] != row["group"]
        if first:
            ax.axvline(number - 0.5, color=FAINT, linewidth=0.8)
            at = (number - 0.5, 1.0)
            ax.annotate(f" {row['group']}", at, xycoords=("data", "axes fraction"), color=GREY, fontsize=7)
        style = {"faithful": QK, "sharpened": OV, "polished": GOOD}
        for quantity, colour in style.items():
            if row[quantity] is not None:
                filled = "full" if row["trusted"] or quantity != "faithful" else "none"
                label = quantity if number == 0 else None
                value = max(row[quantity], LEAST)
                ax.plot(number, value, "o", color=colour, markersize=5, fillstyle=filled, label=label)
        names.append(
            f"{row['heads']}, {row['width']}, {row['tokens']}, {row['norm']:g}\nseed {row['seed']}{_extra(row)}"
        )
    log_axis(ax, "y")
    ax.set(ylabel="relative error")
    ax.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
    _legend(ax, loc="center right")
    return figure


def _extra(row: Row) -> str:
    noise = f", noise {row['noise']:g}" if row["noise"] else ""
    return noise + (f", cosine {row['correlation']:g}" if row["correlation"] else "")


def routes(study: Study) -> Figure:
    """Errors of three routes, and how many random starts of least squares end exactly."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    errors, exact = figure.subplots(1, 2)
    names = list(dict.fromkeys(_name(row) for row in study.table))
    x = [names.index(_name(row)) for row in study.table]
    for number, (label, read) in enumerate(_ROUTES.items()):
        values = [read(row) for row in study.table]
        there = [(a + 0.2 * (number - 1), b) for a, b in zip(x, values, strict=True) if b is not None]
        places, found = [a for a, _ in there], [b for _, b in there]
        errors.plot(places, found, "o", color=_COLOURS[number], markersize=4, label=label)
    for number, name in enumerate(names):
        rows = [row["plain"] for row in study.table if _name(row) == name]
        share = sum(row["exact"] for row in rows) / sum(row["starts"] for row in rows)
        exact.bar(number, share, color=FAINT)
    log_axis(errors, "y")
    errors.set(title="relative error of the outputs")
    exact.set(title="random starts that end exactly", ylim=(0, 1))
    _legend(errors)
    for ax in (errors, exact):
        ax.set_xticks(range(len(names)), names, fontsize=7)
    return figure


_ROUTES: Mapping[str, Callable[[Row], float | None]] = {
    "faithful": lambda row: row["faithful"],
    "polished": lambda row: row["polished"],
    "best of the random starts": lambda row: row["plain"]["best"],
}


def hardness(study: Study) -> Figure:
    """Against the number of heads that nearly cancel: what they hide, what sculpting accepts, who fails."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    panels = figure.subplots(1, 3)
    heads = [row["heads"] for row in study.table]
    for ax, title, lines in zip(
        panels, ("relative size and rates", "gap of the hull", "share of runs"), _HARD, strict=True
    ):
        for (label, name), colour in zip(lines, _COLOURS, strict=False):
            _median_line(ax, heads, [row[name] for row in study.table], (label, colour))
        ax.set(title=title, xlabel="heads", xticks=sorted(set(heads)))
        if ax is not panels[2]:
            log_axis(ax, "y")
        _legend(ax)
    return figure


_HARD = (
    (("hidden part over outputs", "hidden"), ("accepted edges", "accepted"), ("decided by one token", "score")),
    (("gap", "gap"),),
    (("least squares not exact", "not_exact"), ("with noise: hidden part missed", "not_found")),
)

SWEPT = ("examples", "examples-three-heads", "heads", "width", "tokens", "norm", "noise")
SCULPTING: Mapping[str, Callable[[Study], Figure]] = {
    "sculpting-walkthrough": walkthrough,
    "sculpting-seeds": seeds,
    "sculpting-gap": gap_against_angle,
    "sculpting-routes": routes,
    "sculpting-region": region,
    "sculpting-hardness": hardness,
    **{f"sculpting-{along}": phases_against for along in SWEPT},
}
