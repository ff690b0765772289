"""Samples to excess risk on tiny problems: numbers against simulation, the sentence by hand, the figure."""

import numpy as np
import pytest

from attnlearn.data import SingleLocationTask
from attnlearn.learners import SingleLocationEM
from attnlearn.records import Study
from attnlearn.report.location_samples import samples_to_risk
from attnlearn.studies.single_location_samples import (
    PENALTIES,
    Design,
    Point,
    Training,
    _answer,
    _excess,
    _linear_risks,
    single_location_samples,
)
from attnlearn.theory.single_location import inverse_time, sgd, sphere_starts

TINY = Design(
    (Point(10, 6, 2), Point(10, 40, 2, flat=True), Point(12, 30, 1)), Training(10, 3, 40, 20), tokens=4, fresh=50
)
TASK = SingleLocationTask.random(0, d=6, tokens=3)


@pytest.fixture(scope="module")
def study():
    return single_location_samples(TINY)


def test_rows_hold_what_was_asked_for(study, tmp_path):
    few, many, other, trained = study.table
    assert [(row["d"], row["n"], row["draws"]) for row in (few, many, other)] == [(10, 6, 2), (10, 40, 2), (12, 30, 1)]
    assert few["known_place"] is few["formula"] is few["ridge_flat"] is None
    assert sum(few["status"].values()) == 2 and 0 < few["excess"] < 1
    assert many["formula"] == pytest.approx(0.01 * 10 / 29) and many["ridge_flat"] > 0.3
    assert trained["samples"] == [100, 200] and trained["linear_floor"] == pytest.approx(0.5 * 3 / 3.5)
    study.save(tmp_path)
    assert Study.load(tmp_path).table == study.table


def test_the_training_is_experiment_five(study):
    schedule = inverse_time(1e-4)
    by_hand = sgd(
        sphere_starts(0, 3, 10), 2.0, 0.5**0.5, 10, 4, 1e-3, 40, 20, schedule, batch_size=5, epsilon=0.1, seed=0
    )
    assert np.allclose(study.table[-1]["excess"], by_hand.risk.mean(axis=0), rtol=1e-12)


def test_the_excess_is_that_of_simulation():
    """The mean over other fresh sequences, within five of its standard errors (false alarm 6e-7). A fixed seed.

    Mutant: without the cross term between what v misses and what doubts about places add.
    """
    sample = TASK.sample(np.random.default_rng(1), 40)
    found = SingleLocationEM().learn(sample.X, sample.y, np.random.default_rng(0))
    fresh, other = (TASK.sample(np.random.default_rng(seed), 40_000) for seed in (2, 3))
    missed = found.predict(other.X) - other.X[np.arange(40_000), other.location] @ TASK.v_star
    error = np.sqrt(2) * np.std(missed**2) / 200
    assert abs(_excess(found, TASK, fresh) - np.mean(missed**2)) < 5 * error


@pytest.mark.parametrize("flat", [False, True])
def test_risks_of_ridge_are_those_of_simulation(flat):
    """Of all six penalties, within five standard errors each. Mutant: the mean of the token at its place forgotten."""
    X, y, _ = TASK.sample(np.random.default_rng(1), 25)
    fresh = TASK.sample(np.random.default_rng(2), 40_000)
    features, new = (one.reshape(len(one), -1) if flat else one.sum(axis=1) for one in (X, fresh.X))
    says = fresh.X[np.arange(40_000), fresh.location] @ TASK.v_star
    for penalty, risk in zip(PENALTIES, _linear_risks(features, y, TASK), strict=True):
        w = np.linalg.solve(features.T @ features + 25 * penalty * np.eye(features.shape[1]), features.T @ y)
        squares = (new @ w - says) ** 2
        assert abs(squares.mean() - risk) < 5 * squares.std() / 200


def row(n, excess, known, found=1.0):
    return {"kind": "learner", "d": 80, "n": n, "excess": excess, "known_place": known, "found": found}


TRAINED = {"d": 80, "excess": [7.0, 0.184], "samples": [5, 1_000_000], "erf_floor": 0.1818}


def test_the_answer_says_both_halves():
    rows = [row(10, 0.5, None, 0.9), row(120, 0.02, 0.0205), row(400, 0.0025, 0.0025), {**row(5, 0.1, None), "d": 400}]
    assert _answer([*rows, TRAINED]) == (
        "Mean excess of the learner at d = 80 by the number of labels: 10: 0.5; 120: 0.02 (0.976 of known places); "
        "400: 0.0025 (1 of known places); all places are found from 120 on. SGD of an erf layer ends at 0.184 after "
        "1,000,000 samples; the learner is below it from 120 on. Of what SGD is left with, 0.182 is the floor of every "
        "erf layer, however it is trained."
    )
    assert "at no number all places are found" in _answer([rows[0], TRAINED])
    assert "the learner stays above it" in _answer([rows[0], TRAINED])


def test_the_figure_shows_every_curve_of_the_record(study):
    against, scaled = samples_to_risk(study).axes
    labels = [line.get_label() for line in against.get_lines()]
    assert labels[0] == "the learner" and "SGD, erf attention, 3 runs" in labels
    assert against.get_lines()[0].get_ydata().tolist() == [row["excess"] for row in study.table[:2]]
    known = against.get_lines()[labels.index("places known: $\\varepsilon^2 d/(n-d-1)$")]
    assert known.get_xdata().tolist() == [40]
    assert [line.get_label() for line in scaled.get_lines()][:2] == ["d = 10, 2 draws", "d = 12, 1 draws"]
    assert scaled.get_lines()[1].get_xdata().tolist() == [2.5]
