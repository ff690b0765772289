"""One page for one run: a single HTML file with its figures and styles inside, made from the run's folder alone."""

import base64
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from attnlearn.records import Floor, Record, write_whole
from attnlearn.report.figures import plates
from attnlearn.report.palette import Plate

_DPI = 170
STAGES = {
    "affine": "offset and sum of all OV circuits, from single tokens",
    "atoms": "the heads, from the jumps of hard attention",
    "directions": "where each head switches",
    "isolation": "OV circuits and their ranks, every head alone",
    "circle": "the heads, from their flips along a circle of tokens",
    "mirrors": "uniform heads and mirror images, from repeated tokens",
    "qk": "QK circuits and query biases, from attention weights",
    "polish": "the last digits, by Gauss–Newton steps",
    "check": "agreement with fresh questions",
    "search": "runs of the least-squares search, from random starts",
    "heads": "numbers of heads, compared by their evidence",
    "slots": "normalisers and masks, compared by their evidence",
    "fit": "the fit that was kept",
    "crude": "crude estimates of the sum of all OV circuits",
    "ov_sum": "the sum of all OV circuits, from rows that one token decides",
    "certificates": "rows in which all heads share their weight between two tokens",
    "hull": "the affine hull of the QK circuits, carved out of certificates",
    "net": "tuples of points of the hull, compared by one regression each",
    "faithful": "the layer with its QK circuits in the hull",
    "sharpened": "certificates of every head for itself",
    "polished": "the last fit, in all entries of the QK circuits",
}


@dataclass(frozen=True)
class Tile:
    """One number of the headline."""

    value: str
    label: str


def write(folder: str | Path) -> Path:
    """Draws the run in `folder` again: its figures as PNG files and `index.html`, whose path it returns.

    **Raises:** `ValueError` where the folder holds no whole record.
    """
    folder = Path(folder)
    record, arrays = Record.load(folder)
    drawn = [(plate, _png(plate)) for plate in plates(record, arrays)]
    for plate, image in drawn:
        write_whole(folder / f"{plate.name}.png", lambda path, image=image: path.write_bytes(image))
    page = folder / "index.html"
    html = render(record, drawn)
    write_whole(page, lambda path: path.write_text(html, encoding="utf-8"))
    return page


def render(record: Record, drawn: list[tuple[Plate, bytes]]) -> str:
    """The page as text; `drawn` holds every figure with its PNG."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sci": scientific, "count": count, "time": duration}
    figures = [(plate, base64.b64encode(image).decode()) for plate, image in drawn]
    template = resources.files("attnlearn.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        record=record,
        headline=headline(record),
        tiles=tiles(record),
        maps=[figure for figure in figures if figure[0].name.startswith("maps_")],
        figures=[figure for figure in figures if not figure[0].name.startswith("maps_")],
        stages=STAGES,
        phases=[(phase, _figures(phase.figures)) for phase in record.phases],
    )


def headline(record: Record) -> str:
    """The result in a line: "12 of 12 heads recovered"."""
    if not record.recovered:
        return record.status.replace("_", " ").capitalize()
    found = len(record.heads)
    if record.judgement is None:
        return f"{found} head{'s' * (found != 1)} recovered"
    return f"{found} of {record.judgement.heads} heads recovered"


def tiles(record: Record) -> list[Tile]:
    """The numbers under the headline, those that the run has."""
    found = []
    if record.judgement is not None:
        found.append(
            Tile(scientific(max(record.judgement.qk, record.judgement.ov)), "worst relative error of a circuit")
        )
    if record.certificate is not None:
        where = "fresh questions" if record.examples is None else "examples held out"
        found.append(Tile(scientific(record.certificate.max_error), f"largest error on {where}"))
    if record.cost.calls:
        label = "questions asked to learn" if record.examples is None else "examples learned from"
        found.append(Tile(count(record.cost.calls), label))
    found.append(Tile(duration(record.cost.seconds), "of learning"))
    if record.floor is not None and record.cost.tokens:
        found.append(_against_the_floor(record, record.floor))
    return found


def _against_the_floor(record: Record, least: Floor) -> Tile:
    """What the learner was told over what any method needs: in token rows asked, or in numbers given."""
    if record.examples is None:
        return Tile(f"{record.cost.tokens / least.tokens:.1f}×", "the token rows that any method needs")
    return Tile(f"{record.cost.scalars / least.degrees_of_freedom:.1f}×", "the numbers that any method needs")


def scientific(value: float | None) -> str:
    """Two digits: 2.3e-10 as 2.3 × 10⁻¹⁰; numbers near one as they are."""
    if value is None:
        return "–"
    if value != value or abs(value) == float("inf"):
        return "∞" if value > 0 else "undefined"
    if value == 0 or 1e-2 <= abs(value) < 1e4:
        return f"{value:.3g}"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(power)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds >= 100:
        return f"{seconds / 60:.1f} min"
    if seconds >= 1:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{1000 * seconds:.0f} ms"


def _figures(figures: Any) -> str:
    """The figures of a phase in a line; long lists as their range."""
    return " · ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items())


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return scientific(value)
    if isinstance(value, int):
        return count(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(entry, (int, float)) for entry in value):
        low, high = min(value), max(value)
        return _short(low) if low == high else f"{_short(low)} to {_short(high)}"
    if isinstance(value, str):
        return value
    return str(value) if len(str(value)) < 60 else f"({len(value)} entries)"


def _png(plate: Plate) -> bytes:
    buffer = io.BytesIO()
    plate.figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
