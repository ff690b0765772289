"""How reliable and how fast every solver is on every problem, from the fits alone."""

from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.report.palette import FAINT, GOOD, GREY, INK, OV, QK, STYLE, log_axis
from bench.examples.contest import part_solved
from bench.examples.fit import TARGET, Fit, best, chosen
from bench.trial import by_problem

COLOURS, MARKERS = (QK, OV, GOOD, GREY), "osD^"


def picture(found: list[Fit]) -> Figure:
    """Left the part of the runs that reached the target, right the median time of those, with its quartiles."""
    problems = list(by_problem(found))
    solvers = list(dict.fromkeys(fit.solver for fit in found))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.4 + 0.55 * len(problems)), layout="constrained")
        parts, times = figure.subplots(1, 2, sharey=True)
        for place, solver in enumerate(solvers):
            rows = [best(chosen(found, problem, solver)) for problem in problems]
            heights = np.arange(len(problems)) + 0.16 * (place - (len(solvers) - 1) / 2)
            style = {"color": COLOURS[place % 4], "marker": MARKERS[place % 4], "linestyle": "none", "markersize": 5}
            kept = [(height, row) for height, row in zip(heights, rows, strict=True) if row]
            parts.plot([part_solved(row) for _, row in kept], [height for height, _ in kept], label=solver, **style)
            _times(times, kept, style)
        for ax in (parts, times):
            for above, below in pairwise(range(len(problems))):
                ax.axhline((above + below) / 2, color=FAINT, linewidth=0.6)
            ax.spines["left"].set_visible(False)
        parts.set_yticks(range(len(problems)), [_lines(problem) for problem in problems], color=INK)
        parts.invert_yaxis()
        parts.set(xlim=(-0.03, 1.03), title="part of the runs solved")
        parts.grid(axis="x")
        log_axis(times, "x")
        times.set_title(f"seconds to an error of {TARGET:g} (median, quartiles)")
        figure.legend(*parts.get_legend_handles_labels(), loc="outside lower center", ncols=len(solvers), frameon=False)
    return figure


def _times(ax: Axes, kept: list[tuple[float, list[Fit]]], style: dict) -> None:
    """Median and quartiles of the times of those runs that reached the target."""
    for height, row in kept:
        reached = [fit.to_target for fit in row if fit.solved]
        if reached:
            low, middle, high = np.quantile(reached, (0.25, 0.5, 0.75))
            ax.plot([low, high], [height, height], color=style["color"], linewidth=1)
            ax.plot([middle], [height], **style)


def _lines(problem: str) -> str:
    """The name of a problem in two lines: sizes, and what else it is."""
    sizes, rest = problem.split(", logit std ", 1)
    return f"{sizes}\nlogit std {rest}"
