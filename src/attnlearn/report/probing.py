"""The figure of the study of linear probes, from its record alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.records import Study
from attnlearn.report.palette import GOOD, GREY, INK, OV, QK

Row = Mapping[str, Any]

CHANCE = 0.5
LIGHT_QK, LIGHT_OV, PUBLISHED = "#7fa3d6", "#efb98c", "#b9c0cc"
BARS = (QK, LIGHT_QK, OV, LIGHT_OV)  # of the kinds of probes, in their order
GROUPS = {  # name, words below a bar, colour
    "train": ("train", INK),
    "test": ("test", QK),
    "adjective_last": ("test, adjective last", LIGHT_QK),
    "ood_tokens": ("new adjectives", OV),
    "ood_structure": ("new sentence", GOOD),
    "ood_structure_tokens": ("new sentence\nand adjectives", GREY),
}
QUANTITIES = {"accuracy": "accuracy", "ranking": "area under the ROC curve"}
POOLINGS = {"first": "first token", "mean": "mean of the tokens"}


def probing(study: Study) -> Figure:
    """Accuracy and ranking of every probe by layer; below, mean accuracies beside published ones."""
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    kinds = list(dict.fromkeys((row["pooling"], row["features"]) for row in study.table))
    grid = figure.add_gridspec(3, len(kinds))
    for column, kind in enumerate(kinds):
        for line, (quantity, words) in enumerate(QUANTITIES.items()):
            ax = figure.add_subplot(grid[line, column])
            _layers(ax, _rows(study, kind), quantity)
            ax.set(title="" if line else _words(kind), xlabel="layer" * line, ylabel="" if column else words)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    _bars(figure.add_subplot(grid[2, :]), study, kinds)
    return figure


def _words(kind: tuple[str, str]) -> str:
    pooling, features = kind
    return f"{POOLINGS[pooling]}, {features}"


def _rows(study: Study, kind: tuple[str, str]) -> list[Row]:
    return [row for row in study.table if (row["pooling"], row["features"]) == kind]


def _layers(ax: Axes, rows: list[Row], quantity: str) -> None:
    layers = [row["layer"] for row in rows]
    for name, (words, colour) in GROUPS.items():
        if all(name in row[quantity] for row in rows):
            line = [row[quantity][name] for row in rows]
            ax.plot(layers, line, "o-", color=colour, markersize=4, linewidth=1.4, label=words.replace("\n", " "))
    ax.axhline(CHANCE, color=GREY, linewidth=0.8, linestyle=":")
    lowest = min(min(row[quantity].values()) for row in rows)
    ax.set(ylim=(min(0.45, lowest - 0.03), 1.03), xticks=layers)
    ax.grid(axis="y")


def _bars(ax: Axes, study: Study, kinds: list[tuple[str, str]]) -> None:
    """Means over the layers above the embeddings, a colour for every kind of probe, and the published bars."""
    published = study.design["published"]
    bars = {_words(kind): _means(_rows(study, kind)) for kind in kinds}
    bars[f"published, {published['model']}"] = published["accuracy"]
    names = [name for name in GROUPS if any(name in heights for heights in bars.values())]
    width = 0.8 / len(bars)
    for number, (label, heights) in enumerate(bars.items()):
        colour = PUBLISHED if number == len(kinds) else BARS[number % len(BARS)]
        there = [place for place, name in enumerate(names) if name in heights]
        x = np.array(there) + width * (number - (len(bars) - 1) / 2)
        drawn = ax.bar(x, [heights[names[place]] for place in there], 0.94 * width, color=colour, label=label)
        ax.bar_label(drawn, fmt="{:.2f}", fontsize=7, color=GREY)
    ax.axhline(CHANCE, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(title="mean over the layers above the embeddings", ylim=(0, 1.3), ylabel="accuracy")
    ax.set_yticks([0, 0.5, 1])
    ax.set_xticks(range(len(names)), [GROUPS[name][0] for name in names])
    ax.legend(frameon=False, ncols=len(bars), loc="upper center", fontsize=8)


def _means(rows: list[Row]) -> dict[str, float]:
    above = [row["accuracy"] for row in rows if row["layer"] > 0]
    return {name: float(np.mean([one[name] for one in above])) for name in above[0]} if above else {}
