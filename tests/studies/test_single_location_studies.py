"""The five experiments and the phase diagram: what their rows hold, where runs end, and their figures."""

from dataclasses import replace

import numpy as np
import pytest
from location_twins import golden

from attnlearn._progress import listening
from attnlearn.records import Study
from attnlearn.report import write_study
from attnlearn.studies import STUDIES
from attnlearn.studies.single_location import FIVE, Design, single_location, stored_starts
from attnlearn.studies.single_location_phases import SETTINGS, Setting, single_location_phases
from attnlearn.studies.single_location_phases import Design as Phases
from attnlearn.theory.single_location import risk

SHORT = Design(tuple(replace(one, steps=4 * one.log_every) for one in FIVE))  # 800, 1200, 800, 1200, 2000 steps
TINY = Phases((Setting(400, 0.1, 4e-3, 2500, starts=30), Setting(400, 1.0, 4e-3, 600, 1e-4, starts=30)))


@pytest.fixture(scope="module")
def five():
    told = []
    with listening(lambda *report: told.append(report)):
        return single_location(SHORT), told


@pytest.fixture(scope="module")
def phases():
    return single_location_phases(TINY)


def test_starts_are_those_of_the_authors():
    for kind in ("manifold", "sphere"):
        (entry,) = golden(f"initial_overlaps {kind}")
        np.testing.assert_array_equal(stored_starts(kind), entry["value"])


def test_the_experiments_are_those_of_the_paper():
    assert [(e.d, e.lam, e.step_size, e.steps, e.log_every, e.rate, e.batch) for e in FIVE] == [
        (400, 0.1, 0.004, 20_000, 200, 0, 0),
        (400, 0.9, 0.001, 120_000, 300, 0, 0),
        (400, 0.1, 0.004, 20_000, 200, 0, 0),
        (400, 1.0, 0.004, 120_000, 300, 1e-4, 0),
        (80, 2.0, 0.001, 200_000, 500, 1e-4, 5),
    ]


@pytest.mark.slow
def test_every_experiment_has_its_curves_from_the_start_on(five):
    study, told = five
    assert [row["name"] for row in study.table] == [one.name for one in FIVE]
    for row, experiment in zip(study.table, SHORT.experiments, strict=True):
        logs = experiment.steps // experiment.log_every + 1
        assert row["logged"] == [experiment.log_every * log for log in range(logs)]
        for bands in row["curves"].values():
            assert all(len(bands[part]) == logs for part in ("low", "mean", "high"))
            assert (np.array(bands["low"]) <= np.array(bands["high"])).all()
        assert sum(len(end["runs"]) for end in row["ends"].values()) == 30
        starts = stored_starts(experiment.start) if row["d"] == 400 else None
        if starts is not None:
            first = risk(starts, row["lam"], np.sqrt(0.5), 400, 10).mean()
            assert row["curves"]["risk"]["mean"][0] == pytest.approx(first, rel=1e-5)  # six digits are kept
    assert study.table[0]["curves"]["distance"]["high"] == [0.0] * len(study.table[0]["logged"])
    assert np.shape(study.table[2]["each_run"]["kappa"]) == (30, len(study.table[2]["logged"]))
    assert {stage for stage, _, _ in told} == {"study", "descent", "sgd"}


@pytest.mark.slow
def test_only_the_falling_slope_of_descent_is_beyond_the_edge(five):
    beyond = [len(row["beyond_the_edge"]) for row in five[0].table]
    assert beyond[:3] == [0, 0, 0] and beyond[3] >= 20 and beyond[4] == 0
    assert 450 <= dict(five[0].table[3]["beyond_the_edge"])[0] <= 480
    assert "beyond the edge of stability" in five[0].answer


@pytest.mark.slow
@pytest.mark.parametrize("name", ["five", "phases"])
def test_the_figure_is_drawn_from_the_folder(name, request, tmp_path, monkeypatch):
    monkeypatch.setattr("attnlearn.report.studies._DPI", 40)
    found = request.getfixturevalue(name)
    study = found[0] if name == "five" else found
    study.save(tmp_path)
    assert Study.load(tmp_path).answer == study.answer and study.name in STUDIES
    assert write_study(tmp_path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_starts_are_counted_where_they_end(phases):
    """Of 30 starts about half swap at a slope of .1 (between 3 and 27: false alarm 1e-6), few at a slope of 1."""
    small, large = phases.table
    for row in phases.table:
        assert row["oracle"] + row["stuck"] + row["swapped"] + row["undecided"] == row["starts"] == 30
        low, high = row["swapped_low_high"]
        assert 0 <= low <= row["swapped"] / 30 <= high <= 1
    assert 3 <= small["swapped"] <= 27 and small["stuck"] + small["oracle"] >= 3
    assert large["swapped"] <= 12 and large["oracle"] == 0 and large["last_lam"] == pytest.approx(1 / 1.0599)


def test_the_fixed_slopes_are_those_of_the_reference():
    for entry in golden("swapped_fraction"):
        inputs = entry["inputs"]
        assert Setting(400, inputs["lam0"], inputs["alpha"], inputs["n_steps"]) in SETTINGS
