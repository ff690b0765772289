"""The figure of a study, drawn from its record alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlearn.records import Study, write_whole
from attnlearn.report.location_samples import samples_to_risk
from attnlearn.report.manifold import manifold
from attnlearn.report.palette import FAINT, GOOD, GREY, OV, QK, STYLE, log_axis
from attnlearn.report.probing import probing
from attnlearn.report.risk_ladder import risk_ladder
from attnlearn.report.sculpting import SCULPTING
from attnlearn.report.single_location import five_experiments, phase_diagram

_DPI = 170
_COLOURS = (QK, OV, GOOD, GREY)
_PANELS = (("held_out", "outputs on sentences held out"), ("qk", "QK circuit, where the tokens touch it"))


def write_study(folder: str | Path) -> Path:
    """Draws the study in `folder` again; returns the path of the figure, or of the record of a study without one.

    **Raises:** `ValueError` where the folder holds no whole study.
    """
    folder = Path(folder)
    study = Study.load(folder)
    draw = DRAWINGS.get(study.name)
    if draw is None:
        return folder / "study.json"
    with mpl.rc_context(STYLE):
        figure = draw(study)
        path = folder / f"{study.name}.png"
        write_whole(path, lambda part: figure.savefig(part, format="png", dpi=_DPI, metadata={"Software": None}))
    return path


def errors_against_sentences(study: Study) -> Figure:
    """Errors of each head against the number of sentences; shaded: fewer numbers seen than there are unknowns."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    scarce = [row["sentences"] for row in study.table if row["observed"] < row["unknowns"]]
    for ax, (quantity, title) in zip(axes, _PANELS, strict=True):
        if scarce:
            ax.axvspan(0, max(scarce), color=FAINT, alpha=0.5, linewidth=0)
        _curves(ax, study, quantity)
        log_axis(ax, "y")
        ax.set(title=title, xlabel="sentences", xlim=(0, 1.04 * max(row["sentences"] for row in study.table)))
    axes[0].set_ylabel("relative error")
    axes[1].legend(frameon=False)
    return figure


def _curves(ax: Axes, study: Study, quantity: str) -> None:
    for number, head in enumerate(dict.fromkeys(row["head"] for row in study.table)):
        rows = [row for row in study.table if row["head"] == head and row["errors"]]
        places, errors = [row["sentences"] for row in rows], [row["errors"][quantity] for row in rows]
        ax.plot(places, errors, "o-", color=_COLOURS[number % len(_COLOURS)], linewidth=1.4, label=f"head {head + 1}")


DRAWINGS: Mapping[str, Callable[[Study], Figure]] = {
    "minilm-activations": errors_against_sentences,
    **SCULPTING,
    "single-location": five_experiments,
    "single-location-phases": phase_diagram,
    "single-location-manifold": manifold,
    "single-location-risk-ladder": risk_ladder,
    "single-location-samples": samples_to_risk,
    "single-location-probing": probing,
}
