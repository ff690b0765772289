"""The plane (kappa, nu) of single-location regression, from the record of its study alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from attnlearn.records import Study
from attnlearn.report.palette import GOOD, GREY, INK, OV, QK

_BASINS = ListedColormap(["#f7e6d8", "#dde7f4"])  # tints of OV and QK
_MARKS = ("s", "^", "o", "D", "v")
_TICKS = (-1, -0.5, 0, 0.5, 1)
_COLOURS = (INK, OV, GOOD, GREY, QK)


def manifold(study: Study) -> Figure:
    """For every slope: basins of the flow, its orbits, the curve between, and the starts that descent carries over."""
    figure = Figure(figsize=(4.1 * len(study.table), 4.9), layout="constrained")
    panels = figure.subplots(1, len(study.table), squeeze=False, sharey=True)[0]
    for ax, row in zip(panels, study.table, strict=True):
        _plane(ax, row)
    panels[0].set_ylabel(r"$\nu = \langle v, v^\star\rangle$")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _plane(ax: Axes, row: Mapping[str, Any]) -> None:
    basins = np.array(row["basins"])
    edges = np.linspace(-1, 1, len(basins) + 1)
    ax.pcolormesh(edges, edges, basins, cmap=_BASINS, vmin=-1, vmax=1, rasterized=True)
    for orbit in row["orbits"]:
        _orbit(ax, np.array(orbit["kappa"]), np.array(orbit["nu"]))
    ax.plot(row["curve"]["kappa"], row["curve"]["nu"], color=INK, linewidth=1.8, label="stable curve of the saddle")
    ax.plot(0, 0, "x", color=INK, markersize=7, markeredgewidth=1.8, label="saddle")
    ax.plot([-1, 1], [-1, 1], "o", color=INK, markersize=7, zorder=5, clip_on=False, linestyle="none", label="minima")
    for (number, moved), colour in zip(enumerate(row["moved"]), _COLOURS, strict=False):
        _carried(ax, moved, (_MARKS[number], colour))
    title = f"$\\lambda$ = {row['lam']:g}, $\\mu_\\pm$ = {row['eigenvalues'][0]:.3g}, {row['eigenvalues'][1]:.3g}"
    ax.set(title=title, xlabel=r"$\kappa = \langle k, k^\star\rangle$", xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
    ax.set(xticks=_TICKS, yticks=_TICKS)


def _orbit(ax: Axes, kappa: np.ndarray, nu: np.ndarray) -> None:
    """One orbit with an arrow in the middle of its length."""
    ax.plot(kappa, nu, color=GREY, linewidth=0.7)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(kappa), np.diff(nu)))])
    middle = int(np.clip(np.searchsorted(length, length[-1] / 2), 1, len(kappa) - 1))
    head, tail = (kappa[middle], nu[middle]), (kappa[middle - 1], nu[middle - 1])
    ax.annotate("", head, tail, arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.8})


def _carried(ax: Axes, moved: Mapping[str, Any], look: tuple[str, str]) -> None:
    """The starts that descent leads to the other minimum."""
    mark, colour = look
    places = np.array(moved["starts"]).reshape(-1, 2)
    label = f"descent ends elsewhere, step size {moved['step_size']:g}"
    ax.plot(*places.T, mark, color=colour, markersize=4, markerfacecolor="none", linestyle="none", label=label)
