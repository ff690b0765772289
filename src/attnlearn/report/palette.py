"""What all figures share: the plate they stand on, colours, and lettering. Blue is QK and orange is OV, everywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

Arrays = Mapping[str, np.ndarray]

INK, GREY, FAINT = "#1c2434", "#6b7486", "#dfe3ea"
QK, OV, GOOD = "#2f5fa8", "#d9772b", "#2b8a6e"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": GREY,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Plate:
    """One figure of the page: the name of its file, its title and what it shows, in a sentence or two."""

    name: str
    title: str
    caption: str
    figure: Figure


def log_axis(ax: Axes, which: Literal["x", "y"]) -> None:
    """Powers of ten on one axis, "x" or "y"."""
    ax.set(**{f"{which}scale": "log"})
    axis = ax.yaxis if which == "y" else ax.xaxis
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{round(np.log10(value))}}}$"))
    ax.grid(axis=which)
