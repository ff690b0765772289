r"""How far from the best possible is each predictor of single-location regression, against the width and the length?

Every point has the excess risk of the whole ladder, each family at its best parameters: the Bayes predictor, softmax
attention, a gate, linear attention, erf attention at $(k^\star, v^\star)$ and at its swapped point, and an affine map.
Further out, in widths at which only the closed forms are more than the smallest number, erf attention alone is held
against the law $(L/d)\log d$.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from attnlearn.records import Study
from attnlearn.studies.points import Row, each
from attnlearn.theory.single_location import lowest_swapped
from attnlearn.theory.single_location.predictors import erf_risk, gate_risk, linear_attention_risk, linear_risk
from attnlearn.theory.single_location.simulated import bayes_risk, softmax_risk

NAME = "single-location-risk-ladder"
QUESTION = "How far from the best possible is each predictor of single-location regression?"
ERRORS = 5.0  # standard errors by which simulated risks may miss their order


@dataclass(frozen=True)
class Design:
    """Spreads (squared); widths at `length` tokens; lengths at every one of `widths_of_lengths`; widths further out, of
    the first spread; and the simulation: tokens drawn for a risk, sequences at most, seed."""

    gammas_squared: tuple[float, ...] = (0.5, 1.0)
    widths: tuple[int, ...] = (4, 6, 10, 20, 40, 80, 160, 250, 400)
    length: int = 10
    lengths: tuple[int, ...] = (2, 5, 10, 20, 50, 100)
    widths_of_lengths: tuple[int, ...] = (40, 400)
    far_widths: tuple[int, ...] = (4000, 40_000, 400_000)
    drawn: int = 4_000_000
    most: int = 400_000
    seed: int = 0


class Point(NamedTuple):
    """One task; `simulated` where its Bayes risk is above the smallest number."""

    gamma_squared: float
    d: int
    tokens: int
    simulated: bool = True


def single_location_risk_ladder(design: Design = Design()) -> Study:
    """The excess risk of every family of predictors, from the Bayes predictor to an affine map."""
    rows, seconds = each(NAME, design, points(design), lambda point: _row(point, design))
    return Study(NAME, QUESTION, answer(rows, design), asdict(design), rows, seconds)


def points(design: Design) -> tuple[Point, ...]:
    """Every task of the design, once."""
    near = [
        Point(spread, *shape)
        for spread in design.gammas_squared
        for shape in dict.fromkeys(
            [(d, design.length) for d in design.widths]
            + [(d, tokens) for d in design.widths_of_lengths for tokens in design.lengths]
        )
    ]
    return (*near, *(Point(design.gammas_squared[0], d, design.length, False) for d in design.far_widths))


def _row(point: Point, design: Design) -> Row:
    task = math.sqrt(point.gamma_squared), point.d, point.tokens
    erf, swapped = erf_risk(*task), lowest_swapped(*task)
    return {
        "gamma_squared": point.gamma_squared,
        "d": point.d,
        "tokens": point.tokens,
        **(_near(task, design) if point.simulated else dict.fromkeys(_NEAR)),
        "linear_attention": linear_attention_risk(*task),
        "erf": erf.value,
        "erf_lam": erf.lam,
        "erf_over_law": erf.value / (point.tokens / point.d * math.log(point.d)),
        "swapped": swapped.risk,
        "swapped_lam": swapped.lam,
        "linear": linear_risk(task[0], point.tokens),
    }


_NEAR = ("bayes", "bayes_error", "softmax", "softmax_error", "softmax_beta")
_NEAR += ("gate", "gate_lam", "gate_tau", "gate_amplitude", "ordered")


def _near(task: tuple[float, int, int], design: Design) -> Row:
    n = min(design.most, design.drawn // task[2])
    bayes, soft, gate = bayes_risk(*task, n, design.seed), softmax_risk(*task, n, design.seed), gate_risk(*task)
    found = (*bayes, *soft, *gate)
    spread = ERRORS * math.hypot(bayes.standard_error, soft.standard_error), ERRORS * soft.standard_error
    simulated = bayes.value <= soft.value + spread[0] and soft.value <= gate.value + spread[1]
    exact = gate.value < linear_attention_risk(*task) < erf_risk(*task).value < linear_risk(task[0], task[2])
    return dict(zip(_NEAR, (*found, simulated and exact), strict=True))


def answer(rows: Sequence[Row], design: Design) -> str:
    """Where the families lie at the widest simulated task, where the order holds, and the law of erf attention."""
    near, far = [row for row in rows if row["bayes"] is not None], [row for row in rows if row["bayes"] is None]
    widest = (design.gammas_squared[0], max(design.widths), design.length)
    row = next(one for one in near if (one["gamma_squared"], one["d"], one["tokens"]) == widest)
    broken = [one for one in near if not one["ordered"]]
    law = [row, *far]
    shares = ", ".join(f"{one['erf_over_law']:.2f}" for one in law)
    return (
        f"At gamma^2 = {row['gamma_squared']:g}, width {row['d']} and {row['tokens']} tokens the Bayes predictor is "
        f"{row['bayes']:.2g} above the noise, softmax attention {row['softmax']:.2g}, a gate {row['gate']:.2g}; linear "
        f"attention stays at {row['linear_attention']:.3g}, erf attention at {row['erf']:.3g} ({row['swapped']:.3g} at "
        f"its swapped point) and an affine map at {row['linear']:.3g}. The order Bayes <= softmax <= gate < linear "
        f"attention < erf < affine holds at {len(near) - len(broken)} of {len(near)} tasks, the simulated risks to "
        f"{ERRORS:g} standard errors{_but(broken)}. Erf attention's excess is "
        f"{shares} of (L/d) log d at width {', '.join(str(one['d']) for one in law)}."
    )


def _but(broken: Sequence[Row]) -> str:
    if not broken:
        return ""
    named = [f"({one['gamma_squared']:g}, {one['d']}, {one['tokens']})" for one in broken]
    return f"; not at (gamma^2, d, L) = {', '.join(named)}"
