"""Which attractor does descent find from a random start? Counts for every slope, width and schedule."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlearn.records import Study
from attnlearn.studies.points import each
from attnlearn.theory.single_location import basins, descend, inverse_time, sphere_starts

QUESTION = "From a random start, does descent find (k*, v*), the swapped point, or neither?"
FROZEN = 0.8  # on the oracle side, |kappa| below which a run counts as stuck


@dataclass(frozen=True)
class Setting:
    """A point of the diagram: the slope at the first step, the steps, and the rate of the schedule, 0 for none."""

    d: int
    lam: float
    step_size: float
    steps: int
    rate: float = 0.0
    starts: int = 1000


# At d = 400 the step sizes and lengths of the fixed slopes; at other widths steps shrink and grow with the sharpness.
FIXED = ((0.03, 4e-3, 20_000), (0.05, 4e-3, 12_000), (0.1, 4e-3, 8000), (0.2, 4e-3, 8000))
STEEP = ((0.3, 2e-3, 8000), (0.5, 1e-3, 10_000), (0.9, 1e-3, 20_000))
SCHEDULED = ((0.5, 4e-3, 20_000), (1.0, 4e-3, 20_000), (2.0, 1e-3, 60_000))
SETTINGS = (
    *(Setting(400, *one) for one in FIXED + STEEP),
    *(Setting(400, *one, rate=1e-4) for one in SCHEDULED),
    *(Setting(80, *one, starts=400) for one in FIXED + STEEP),
    *(Setting(80, *one, rate=1e-4, starts=400) for one in SCHEDULED[1:]),
    *(Setting(1600, lam, size / 4, 4 * steps, starts=200) for lam, size, steps in FIXED[1:] + STEEP),
)


@dataclass(frozen=True)
class Design:
    """The points of the diagram and the task; the starts are uniform on the spheres."""

    settings: tuple[Setting, ...] = SETTINGS
    gamma_squared: float = 0.5
    tokens: int = 10
    seed: int = 0


def single_location_phases(design: Design = Design()) -> Study:
    """Where random starts end: at (k*, v*), stuck on its side, swapped, or undecided, by slope, width and schedule."""
    rows, seconds = each("single-location-phases", design, design.settings, lambda one: _row(one, design))
    return Study("single-location-phases", QUESTION, _answer(rows), asdict(design), rows, seconds)


def _row(setting: Setting, design: Design) -> dict[str, Any]:
    starts = sphere_starts(design.seed, setting.starts, setting.d)
    schedule = inverse_time(setting.rate) if setting.rate else None
    task = setting.lam, np.sqrt(design.gamma_squared), setting.d, design.tokens
    found = descend(starts, *task, setting.step_size, setting.steps, setting.steps, schedule)
    counts = _counts(found.overlaps[:, 0])
    return {
        **asdict(setting),
        "last_lam": float(found.lam[0, 0]),
        **counts,
        "swapped_low_high": list(_wilson(counts["swapped"], setting.starts)),
        "beyond_the_edge_at_the_start": len(found.warnings),
    }


def _counts(overlaps: Float[np.ndarray, "runs 5"]) -> dict[str, int]:
    where, kappa = basins(overlaps), np.abs(overlaps[:, 0])
    frozen = (where == "oracle") & (kappa < FROZEN)
    return {
        "oracle": int(((where == "oracle") & ~frozen).sum()),
        "stuck": int(frozen.sum()),
        "swapped": int((where == "swapped").sum()),
        "undecided": int((where == "undecided").sum()),
    }


def _wilson(count: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a binomial share (Wilson's score)."""
    z, share = 1.959964, count / n
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float((middle - half) / (1 + z**2 / n)), float((middle + half) / (1 + z**2 / n))


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    words = []
    for row in rows:
        name = f"slope {row['lam']:g}" + (f" falling to {row['last_lam']:.2g}" if row["rate"] else "")
        share = [f"{100 * row[kind] / row['starts']:.3g} % {kind}" for kind in ("oracle", "stuck", "swapped")]
        words.append(f"d = {row['d']}, {name}: {', '.join(share)}")
    return f"Of the random starts: {'; '.join(words)}."
