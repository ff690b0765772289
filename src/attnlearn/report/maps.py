"""Attention maps as pictures: learned over true over their difference."""

import re
from collections.abc import Iterator

import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from attnlearn.records import Record
from attnlearn.report.palette import INK, Arrays, Plate

WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#ffffff", "#cfdcf0", "#7f9fd0", "#2f5fa8", "#152c57"])
DIFFERENCE = LinearSegmentedColormap.from_list("difference", ["#2f5fa8", "#a9c0e2", "#ffffff", "#f2c39d", "#d9772b"])

_SHOWN_HEADS = 4


def attention_maps(record: Record, arrays: Arrays) -> Iterator[Plate]:
    """Learned maps over true maps over their difference: a column a head, a figure a sentence."""
    for n, pieces in enumerate(record.sentences):
        if not len(arrays.get(f"maps_learned_{n}", ())):
            continue
        learned, true = arrays[f"maps_learned_{n}"], arrays.get(f"maps_true_{n}")
        chosen = _spread(arrays["maps_learned_0"])
        title, caption = "Attention on real sentences", f"“{_sentence(pieces)}”"
        if record.examples is not None:
            title, caption = "Attention on the first examples", f"Example {n + 1}, its tokens by number."
        if true is not None:
            title += ": learned, true, and the difference"
            worst = np.max(np.abs(learned - true))
            caption += f" The largest difference of a weight, over all {len(true)} heads, is {worst:.1e}."
        if n == 0:
            caption += (
                f" Heads {_listed(chosen)} are shown, from the sharpest to the most even. "
                "A row is the token that asks, a column the token that it looks at."
            )
        yield Plate(f"maps_{n}", title, caption, _map_grid(learned, true, (chosen, pieces)))


def _sentence(pieces: tuple[str, ...]) -> str:
    """Word pieces as a line to read, without quotation marks and the marks of the tokenizer."""
    words = [piece for piece in pieces if piece != '"' and not (piece.startswith("[") and piece.endswith("]"))]
    return re.sub(r" (?=[.,;:!?’')])", "", " ".join(words).replace(" ##", ""))


def _map_grid(learned: np.ndarray, true: np.ndarray | None, shown: tuple[list[int], tuple[str, ...]]) -> Figure:
    chosen, pieces = shown
    rows = {"learned": learned} if true is None else {"learned": learned, "true": true, "difference": learned - true}
    figure, grid = _square_panels(len(rows), len(chosen), max(map(len, pieces)))
    limit = 1.0 if true is None else float(np.max(np.abs(rows["difference"][chosen]))) or 1.0
    for panels, (name, maps) in zip(grid, rows.items(), strict=True):
        colours = {"cmap": WEIGHTS, "norm": PowerNorm(0.5, 0, 1)}
        if name == "difference":
            colours = {"cmap": DIFFERENCE, "vmin": -limit, "vmax": limit}
        for ax, head in zip(panels, chosen, strict=True):
            ax.imshow(maps[head], **colours)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
        _words(panels[0].yaxis, pieces)
        panels[0].set_ylabel(name, color=INK, fontsize=10, labelpad=8)
    for top, bottom, head in zip(grid[0], grid[-1], chosen, strict=True):
        top.set_title(f"head {head + 1}")
        _words(bottom.xaxis, pieces, rotation=90)
    _colour_bar(figure, grid[:2], {0.0: "0", 0.05: ".05", 0.25: ".25", 0.5: ".5", 1.0: "1"})
    if true is not None:
        _colour_bar(figure, grid[2:], {-limit: f"−{limit:.0e}", 0.0: "0", limit: f"{limit:.0e}"})
    return figure


def _square_panels(rows: int, columns: int, letters: int) -> tuple[Figure, np.ndarray]:
    """Square panels with room for words of so many letters at the left and below, and for colour bars at the right."""
    side, gap, top, right = 2.0, 0.1, 0.32, 0.85  # inches
    words = 0.2 + 0.062 * max(letters, 5)  # inches, at the size of the words
    left = words + 0.25  # and the name of the row
    width, height = left + columns * (side + gap) + right, top + rows * (side + gap) + words
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": gap / side, "hspace": gap / side})
    figure.subplots_adjust(
        left=left / width, right=1 - (right + gap) / width, bottom=(words + gap) / height, top=1 - top / height
    )
    return figure, panels


def _words(axis: Axis, pieces: tuple[str, ...], rotation: int = 0) -> None:
    size = 7.5 if len(pieces) <= 16 else 6.2
    axis.set_ticks(range(len(pieces)), pieces, fontsize=size, rotation=rotation, parse_math=False)


def _colour_bar(figure: Figure, panels: np.ndarray, ticks: dict[float, str]) -> None:
    """One bar beside these rows of panels, which share their colours."""
    last, first = panels[-1, -1].get_position(), panels[0, -1].get_position()
    edge = 0.04 * last.height  # keeps the labels of two bars apart
    place = figure.add_axes((last.x1 + 0.015, last.y0 + edge, 0.011, first.y1 - last.y0 - 2 * edge))
    bar = figure.colorbar(panels[0, 0].images[0], cax=place)
    bar.outline.set_visible(False)  # pyright: ignore
    bar.set_ticks(list(ticks), labels=list(ticks.values()))


def _spread(maps: np.ndarray) -> list[int]:
    """A few heads, from the lowest to the highest mean entropy of their attention."""
    entropy = -np.sum(maps * np.log(np.maximum(maps, 1e-300)), axis=-1).mean(axis=-1)
    order = np.argsort(entropy, kind="stable")
    places = np.linspace(0, len(order) - 1, min(_SHOWN_HEADS, len(order))).round().astype(int)
    return [int(order[place]) for place in places]


def _listed(heads: list[int]) -> str:
    return ", ".join(str(head + 1) for head in heads)
