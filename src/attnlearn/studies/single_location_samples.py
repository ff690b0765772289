"""How many samples does single-location regression need? The learner, against training by SGD and linear maps.

Excess risks are closed forms where there is one: for linear maps, for SGD by its five overlaps, and for the learner in
all sequences whose token it finds; the rest is a mean over fresh sequences.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from attnlearn.data.single_location import LocatedSequences, SingleLocationTask
from attnlearn.learners._blas import one_blas_thread
from attnlearn.learners.single_location import LocatedToken, SingleLocationEM
from attnlearn.records import Study
from attnlearn.studies.points import each
from attnlearn.theory.single_location import inverse_time, sgd, sphere_starts
from attnlearn.theory.single_location.predictors import erf_risk, linear_risk

QUESTION = "How many samples does single-location regression need, by expectation-maximisation and by SGD?"
PENALTIES = np.logspace(-1, 4, 6)  # of a sample, for ridge regression on all tokens; the best is chosen by its risk


@dataclass(frozen=True)
class Point:
    """A number of labels at a width, and how many tasks are drawn; `flat`: ridge on whole sequences is fitted too."""

    d: int
    n: int
    draws: int
    flat: bool = False


@dataclass(frozen=True)
class Training:
    """SGD as in the fifth experiment of the paper [@marion2025]."""

    d: int = 80
    runs: int = 30
    steps: int = 200_000
    log_every: int = 2000
    batch: int = 5
    lam: float = 2.0
    rate: float = 1e-4
    step_size: float = 1e-3


@dataclass(frozen=True)
class Design:
    """What is drawn: labels and draws at two widths, the training that is compared, and the task."""

    points: tuple[Point, ...] = (
        *(Point(80, n, 50, n <= 400) for n in (10, 20, 40, 60, 80, 120, 200, 400, 1000, 4000)),
        *(Point(400, n, 5) for n in (20, 50, 100, 200, 400, 600, 1000, 2000)),
    )
    training: Training = Training()
    tokens: int = 10
    gamma_squared: float = 0.5
    epsilon: float = 0.1
    fresh: int = 500
    seed: int = 0


def single_location_samples(design: Design = Design()) -> Study:
    """Samples to excess risk: the learner, SGD of the paper's experiment 5, ridge, least squares at known places."""
    points = (*design.points, design.training)
    rows, seconds = each("single-location-samples", design, points, lambda one: _row(one, design))
    return Study("single-location-samples", QUESTION, _answer(rows), asdict(design), rows, seconds)


def _row(point: Point | Training, design: Design) -> dict[str, Any]:
    with one_blas_thread():
        return _trained(point, design) if isinstance(point, Training) else _learned(point, design)


def _learned(point: Point, design: Design) -> dict[str, Any]:
    """Means over draws at one number of labels, and the quantiles of what the learner reaches."""
    draws = [_draw(point, design, number) for number in range(point.draws)]
    excess = np.array([one["excess"] for one in draws])
    left = point.n - point.d - 1
    return {
        "kind": "learner",
        **asdict(point),
        "excess": float(excess.mean()),
        "low_median_high": [float(one) for one in np.quantile(excess, [0.1, 0.5, 0.9])],
        "formula": design.epsilon**2 * point.d / left if left > 0 else None,
        **{
            name: _mean(draws, name)
            for name in ("known_place", "ridge", "ridge_flat", "kappa", "nu", "gamma", "epsilon")
        },
        "found": float(min(one["found"] for one in draws)),
        "status": dict(Counter(one["status"] for one in draws)),
        "seconds": float(np.median([one["seconds"] for one in draws])),
    }


def _mean(draws: Sequence[dict[str, Any]], name: str) -> float | None:
    """The mean over draws; none where there is no number."""
    return None if draws[0][name] is None else float(np.mean([one[name] for one in draws]))


def _draw(point: Point, design: Design, number: int) -> dict[str, Any]:
    task = SingleLocationTask.random(number, point.d, design.tokens, design.gamma_squared**0.5, design.epsilon)
    key = np.random.default_rng([design.seed, number, point.n])
    sample = task.sample(key, point.n)
    found = SingleLocationEM().learn(sample.X, sample.y, key)
    places = np.arange(point.n), sample.location
    known = np.linalg.lstsq(sample.X[places], sample.y)[0] if point.n > point.d + 1 else None
    return {
        "excess": _excess(found, task, task.sample(key, design.fresh)),
        "known_place": None if known is None else _at_the_place(known, task),
        "ridge": min(_linear_risks(sample.X.sum(axis=1), sample.y, task)),
        "ridge_flat": min(_linear_risks(sample.X.reshape(point.n, -1), sample.y, task)) if point.flat else None,
        "kappa": float(found.k @ task.k_star),
        "nu": float(found.v @ task.v_star / max(np.linalg.norm(found.v), np.finfo(float).tiny)),
        "gamma": found.gamma,
        "epsilon": found.epsilon,
        "found": float(np.mean(found.location == sample.location)),
        "status": found.status.name,
        "seconds": found.cost.seconds,
    }


def _at_the_place(v: Float[np.ndarray, " d"], task: SingleLocationTask) -> float:
    r"""$\mathbb E\langle X_J, v - v^\star\rangle^2$, the excess of `v` where every place is known."""
    wrong = v - task.v_star
    return float(task.gamma**2 * wrong @ wrong + (task.mean @ wrong) ** 2)


def _excess(found: LocatedToken, task: SingleLocationTask, fresh: LocatedSequences) -> float:
    r"""$\mathbb E(T(X) - \langle X_J, v^\star\rangle)^2$: what v misses at the place, exactly, and what doubt adds."""
    informative = fresh.X[np.arange(len(fresh.y)), fresh.location]
    elsewhere = found.predict(fresh.X) - informative @ found.v
    message = informative @ (found.v - task.v_star)
    return _at_the_place(found.v, task) + float(np.mean(elsewhere**2 + 2 * elsewhere * message))


def _linear_risks(
    features: Float[np.ndarray, "n m"], y: Float[np.ndarray, " n"], task: SingleLocationTask
) -> list[float]:
    r"""Excesses of ridge regression on summed tokens or whole sequences, for every one of the penalties.

    $\tfrac1L\sum_J\big[\gamma^2|w_J - v^\star|^2 + \sum_{l\ne J}|w_l|^2 + \tfrac d2\langle k^\star, w_J\rangle^2\big]$
    with the weights $w_l$ of token l, all equal for summed tokens.
    """
    left, values, right = np.linalg.svd(features, full_matrices=False)
    along, risks = left.T @ y, []
    for penalty in PENALTIES * len(y):
        w = right.T @ (values / (values**2 + penalty) * along)
        weights = np.broadcast_to(w.reshape(-1, task.d), (task.tokens, task.d))
        squares = np.square(weights).sum(axis=1)
        here = task.gamma**2 * np.square(weights - task.v_star).sum(axis=1) + np.square(weights @ task.mean)
        risks.append(float(np.mean(here + squares.sum() - squares)))
    return risks


def _trained(training: Training, design: Design) -> dict[str, Any]:
    """The mean excess of runs of SGD against the samples seen, and the floor of its family."""
    gamma = design.gamma_squared**0.5
    starts = sphere_starts(design.seed, training.runs, training.d)
    task = training.lam, gamma, training.d, design.tokens
    length = training.step_size, training.steps, training.log_every
    schedule = inverse_time(training.rate)
    found = sgd(starts, *task, *length, schedule, training.batch, design.epsilon, design.seed)
    return {
        "kind": "sgd",
        **asdict(training),
        "samples": (training.batch * found.steps).tolist(),
        "excess": found.risk.mean(axis=0).tolist(),
        "last_low_high": [float(found.risk[:, -1].min()), float(found.risk[:, -1].max())],
        "erf_floor": float(erf_risk(gamma, training.d, design.tokens).value),
        "linear_floor": float(linear_risk(gamma, design.tokens)),
    }


def _answer(rows: Sequence[dict[str, Any]]) -> str:
    trained = rows[-1]
    end, seen, floor = trained["excess"][-1], trained["samples"][-1], trained["erf_floor"]
    width = [row for row in rows[:-1] if row["d"] == trained["d"]]
    words = [f"{row['n']}: {row['excess']:.3g}{_against(row)}" for row in width]
    better = min((row["n"] for row in width if row["excess"] < end), default=None)
    least = "the learner stays above it" if better is None else f"the learner is below it from {better} on"
    found = min((row["n"] for row in width if row["found"] == 1), default=None)
    places = "at no number all places are found" if found is None else f"all places are found from {found} on"
    return (
        f"Mean excess of the learner at d = {trained['d']} by the number of labels: {'; '.join(words)}; {places}. "
        f"SGD of an erf layer ends at {end:.3g} after {seen:,} samples; {least}. "
        f"Of what SGD is left with, {floor:.3g} is the floor of every erf layer, however it is trained."
    )


def _against(row: dict[str, Any]) -> str:
    """The excess over that of least squares at the true places, where there are enough labels for it."""
    return "" if row["known_place"] is None else f" ({row['excess'] / row['known_place']:.3g} of known places)"
