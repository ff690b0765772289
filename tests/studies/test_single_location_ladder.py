"""The risk ladder and the map of the manifold on tiny designs, each run once; their numbers and sentences by hand."""

import importlib
import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from attnlearn.records import Study, to_json
from attnlearn.studies.single_location_manifold import single_location_manifold
from attnlearn.studies.single_location_risk_ladder import points, single_location_risk_ladder
from attnlearn.theory.single_location import flow, lowest_swapped, saddle, separatrix
from attnlearn.theory.single_location.predictors import erf_risk, gate_risk, linear_attention_risk, linear_risk
from attnlearn.theory.single_location.simulated import bayes_risk, softmax_risk

# Modules by name: the package gives these names to the studies themselves.
ladder_study = importlib.import_module("attnlearn.studies.single_location_risk_ladder")
manifold_study = importlib.import_module("attnlearn.studies.single_location_manifold")
LADDER = ladder_study.Design((0.5, 1.0), (20, 40), 10, (2, 10), (40,), (400,), 20_000, 1000, 3)
PLANE = manifold_study.Design((0.1, 0.9), step_sizes=(0.02, 0.4), side=12, orbits=2, time=12.0)
CENTRES = (2 * np.arange(12) - 11) / 12

pytestmark = pytest.mark.slow  # each of its two small studies takes seconds to compile


@pytest.fixture(scope="module")
def ladder():
    return single_location_risk_ladder(LADDER)


@pytest.fixture(scope="module")
def plane():
    return single_location_manifold(PLANE)


def test_ladder_has_every_task_once_and_the_far_widths_last():
    tasks = [(20, 10), (40, 10), (40, 2)]
    assert [tuple(point) for point in points(LADDER)] == [
        *((spread, *task, True) for spread in (0.5, 1.0) for task in tasks),
        (0.5, 400, 10, False),
    ]


def test_ladder_rows_are_the_risks_of_their_task(ladder):
    for row in ladder.table[:-1]:
        task, n = (math.sqrt(row["gamma_squared"]), row["d"], row["tokens"]), 1000
        soft, gate, erf, swapped = softmax_risk(*task, n, 3), gate_risk(*task), erf_risk(*task), lowest_swapped(*task)
        assert (row["bayes"], row["bayes_error"]) == bayes_risk(*task, n, 3)
        assert (row["softmax"], row["softmax_error"], row["softmax_beta"]) == soft
        assert (row["gate"], row["gate_lam"], row["gate_tau"], row["gate_amplitude"]) == gate
        assert (row["erf"], row["erf_lam"], row["swapped"], row["swapped_lam"]) == (*erf, swapped.risk, swapped.lam)
        assert row["linear_attention"] == linear_attention_risk(*task)
        assert row["linear"] == linear_risk(task[0], task[2])
        assert row["erf_over_law"] == pytest.approx(erf.value / (task[2] / task[1] * math.log(task[1])), rel=1e-14)
        assert row["ordered"]


def test_ladder_says_the_order_that_its_numbers_have(monkeypatch):
    """Each family in turn is given a risk out of its order."""
    row = ladder_study._row(points(LADDER)[0], LADDER)
    assert row["ordered"]
    order = ("bayes", "softmax", "gate", "linear_attention", "erf", "linear")
    for lower, upper in itertools.pairwise(order):
        with monkeypatch.context() as patch:
            patch.setattr(ladder_study, f"{lower}_risk", _constant(lower, row[upper] * 1.5))
            assert not ladder_study._row(points(LADDER)[0], LADDER)["ordered"], lower


def _constant(family, value):
    """A risk function that gives `value`, in the record of its family, with no error of simulation."""
    real = getattr(ladder_study, f"{family}_risk")

    def risk(*args):
        found = real(*args)
        if isinstance(found, float):
            return value
        return found._replace(value=value, **({"standard_error": 0.0} if "standard_error" in found._fields else {}))

    return risk


def test_ladder_leaves_out_what_is_below_the_smallest_number(ladder):
    far = ladder.table[-1]
    assert far["d"] == 400 and all(far[name] is None for name in ladder_study._NEAR)
    assert far["erf"] == erf_risk(math.sqrt(0.5), 400, 10).value


def test_ladder_answers_with_the_widest_task_and_the_tasks_out_of_order(ladder):
    row = ladder.table[1]
    assert f"width 40 and 10 tokens the Bayes predictor is {row['bayes']:.2g} above the noise" in ladder.answer
    assert "linear attention stays at 0.234, erf attention at 0.254 (0.239 at its swapped point)" in ladder.answer
    assert "holds at 6 of 6 tasks, the simulated risks to 5 standard errors. " in ladder.answer
    assert ladder.answer.endswith("is 0.28, 0.45 of (L/d) log d at width 40, 400.")
    broken = tuple({**one, "ordered": one["d"] != 20} if one["bayes"] else one for one in ladder.table)
    words = ladder_study.answer(broken, LADDER)
    assert "at 4 of 6 tasks" in words
    assert "; not at (gamma^2, d, L) = (0.5, 20, 10), (1, 20, 10)." in words


@pytest.mark.slow
def test_plane_is_split_by_the_stable_curve_of_the_saddle(plane):
    for row in plane.table:
        basins = np.array(row["basins"])
        above = CENTRES[:, None] > separatrix(CENTRES, row["lam"], math.sqrt(0.5), 400)[None, :]
        assert (basins == np.where(above, 1, -1)).all() and row["beside_curve"] == 0
        assert (basins == -basins[::-1, ::-1]).all()
        point = saddle(row["lam"], math.sqrt(0.5), 400)
        assert (tuple(row["eigenvalues"]), tuple(row["unstable"])) == point


@pytest.mark.slow
def test_plane_counts_the_starts_that_descent_leads_elsewhere(plane):
    """Descent of two scalars, written out, with the flow's own velocity: on the manifold there is nothing else."""
    for row in plane.table:
        basins = np.array(row["basins"])
        for moved in row["moved"]:
            alpha, lam = moved["step_size"], row["lam"]
            kappa, nu = np.meshgrid(CENTRES, CENTRES)
            for _ in range(round(PLANE.time / alpha)):
                by_kappa, by_nu = _slopes(kappa, nu, lam)
                kappa, nu = _stepped(kappa, by_kappa, alpha), _stepped(nu, by_nu, alpha)
            other = np.argwhere(np.sign(nu) != basins)
            expected = sorted((CENTRES[j], CENTRES[i]) for i, j in other)
            assert np.allclose(sorted(map(tuple, moved["starts"])), expected, atol=1e-12), (lam, alpha)
        assert [len(one["starts"]) for one in row["moved"]] == [0, 6]


def _slopes(kappa, nu, lam):
    """R_kappa and R_nu on the manifold, γ² = 1/2, d = 400."""
    q, p = math.sqrt(1 + lam**2), math.sqrt(1 + 2 * lam**2)
    beta = lam * math.sqrt(200) / q
    slope = 2 / math.sqrt(math.pi) * np.exp(-((beta * kappa) ** 2))
    return beta * slope * (erf(beta * kappa / p) - nu), -erf(beta * kappa)


def _stepped(x, slope, alpha):
    """The component x of a unit vector along its direction after a projected step against `slope` times it."""
    moved = x - alpha * slope * (1 - x**2)
    return moved / np.sqrt(1 + alpha**2 * slope**2 * (1 - x**2))


@pytest.mark.slow
def test_plane_holds_orbits_of_the_flow_and_how_many_arrive(plane):
    for row in plane.table:
        starts = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
        assert [(one["kappa"][0], one["nu"][0]) for one in row["orbits"]] == [tuple(start) for start in starts]
        state = np.column_stack([starts, np.zeros((4, 3))])
        end = flow(state, row["lam"], math.sqrt(0.5), 400, [PLANE.time]).overlaps[:, 0, :2]
        drawn = [(one["kappa"][-1], one["nu"][-1]) for one in row["orbits"]]
        assert np.abs(end - drawn).max() <= 1e-5  # five digits are kept
    assert [row["arrived"] for row in plane.table] == [0, 0]
    later = single_location_manifold(replace(PLANE, lams=(0.05,), time=60.0, step_sizes=()))
    assert later.table[0]["arrived"] == 1


@pytest.mark.slow
def test_plane_answers_with_counts(plane):
    assert plane.answer.startswith("Of 144 starts the flow leads all to the side of the saddle's stable curve")
    assert "by time 12, 0 %, 0 % of them have |kappa| and |nu| above 0.99" in plane.answer
    assert "lambda = 0.9: 0 at step size 0.02, 6 at step size 0.4." in plane.answer
    odd = tuple({**row, "beside_curve": 2} for row in plane.table)
    assert "leads all but 4 of 288 to the side" in manifold_study.answer(odd, PLANE)


@pytest.mark.parametrize("study", ["ladder", pytest.param("plane", marks=pytest.mark.slow)])
def test_study_is_the_same_after_saving_and_loading(study, request, tmp_path):
    found = request.getfixturevalue(study)
    found.save(tmp_path)
    assert json.loads(to_json(Study.load(tmp_path))) == json.loads(to_json(found))
    assert found.seconds > 0
