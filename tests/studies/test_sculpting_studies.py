"""The studies of sculpting on tiny problems, each run once; their numbers and sentences by hand."""

from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from oracles import attention
from scipy.linalg import subspace_angles

import attnlearn as al
from attnlearn._progress import listening
from attnlearn._status import Status
from attnlearn.data.cancelling_heads import CancellingHeads
from attnlearn.data.distributions import Planted, cube
from attnlearn.learners._base import Learned
from attnlearn.records import Cost, Phase, Study
from attnlearn.report import write_study
from attnlearn.report.studies import DRAWINGS
from attnlearn.studies import STUDIES
from attnlearn.studies.sculpted import _judged, hull_errors, phases
from attnlearn.studies.sculpting_gap import _answer as gap_answer
from attnlearn.studies.sculpting_gap import random_problems, sculpting_gap
from attnlearn.studies.sculpting_hardness import Design, sculpting_hardness
from attnlearn.studies.sculpting_hardness import _answer as hardness_answer
from attnlearn.studies.sculpting_region import GROUPS, sculpting_region
from attnlearn.studies.sculpting_region import _answer as region_answer
from attnlearn.studies.sculpting_routes import _answer as routes_answer
from attnlearn.studies.sculpting_routes import sculpting_routes
from attnlearn.studies.sculpting_seeds import ROWS, Row, sculpting_seeds
from attnlearn.studies.sculpting_seeds import _answer as seeds_answer
from attnlearn.studies.sculpting_sweeps import SWEEPS, Sweep
from attnlearn.studies.sculpting_walkthrough import CERTIFIED, STEPS, sculpting_walkthrough
from attnlearn.theory import examples_to_tell_apart

EASY = Planted(1, 4, 3, 4.0, 1300, 0)  # learned in half a second
TWO_HEADS = Planted(2, 6, 3, 4.0, 4000, 0)
DESIGN = Design((2,), (0,), width=4, tokens=3, examples=1300, rows=300, starts=2)
PROBLEM = {field.name for field in fields(Planted)}
PHASES = {"status", "crude", "score", "ov_sum", "accepted", "gap", "gaps", "counted", "distance", "angle"}
PHASES |= {"faithful", "sharpened", "trusted", "start"}
KEYS = PROBLEM | PHASES | {"seconds", "qk", "ov", "polished"}
ROUNDING = 1e-13  # of sums over a few dozen numbers of size one
ROOT_OF_ROUNDING = 1e-6  # degrees: an angle is the arc cosine of a number near 1, which sees 1e-16 as its root


def watched(run):
    """The study, and the numbers of problems that it said were done, each with their total."""
    steps = []
    with listening(lambda stage, done, total: steps.append((done, total)) if stage == "study" else None):
        return run(), steps


@pytest.fixture(scope="module")
def seeds():
    return watched(lambda: sculpting_seeds((Row(EASY, 1e-3),), (0, 1)))


@pytest.fixture(scope="module")
def sweep():
    return watched(Sweep("examples", (100, 1300), "How many?", EASY, (0,)).run)


@pytest.fixture(scope="module")
def gap():
    return watched(lambda: sculpting_gap([EASY]))


@pytest.fixture(scope="module")
def routes():
    return watched(lambda: sculpting_routes([EASY], starts=2))


@pytest.fixture(scope="module")
def region():
    return watched(lambda: sculpting_region({"easy": (EASY,), "scarce": (replace(EASY, examples=100),)}))


@pytest.fixture(scope="module")
def hardness():
    return watched(lambda: sculpting_hardness(DESIGN))


@pytest.fixture(scope="module")
def walk():
    return watched(lambda: sculpting_walkthrough(TWO_HEADS))


STUDIED = ["seeds", "sweep", "gap", "routes", "region"]
LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("hardness", "walk")]  # seconds each


# -- distances from the truth ------------------------------------------------------------------------------------------


def hull_of(layer):
    """The true hull by hand: its point of least norm and orthonormal directions."""
    heads = np.asarray(layer.qk).reshape(layer.heads, -1)
    V = np.linalg.qr((heads[1:] - heads[0]).T)[0].T
    point = heads[0] - V.T @ (V @ heads[0])
    shape = np.asarray(layer.qk).shape[1:]
    return point.reshape(shape), V.reshape(-1, *shape)


def distance_twin(point, directions, heads):
    """The worst relative distance, by the closest point of the hull to every head."""
    columns = np.array([one.ravel() for one in directions]).T.reshape(point.size, len(directions))
    worst = 0.0
    for head in heads:
        off = (head - point).ravel()
        closest = columns @ np.linalg.lstsq(columns, off)[0] if len(directions) else 0 * off
        worst = max(worst, np.linalg.norm(off - closest) / np.linalg.norm(head))
    return worst


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_errors_of_a_hull_are_those_of_its_definition(heads, key):
    truth = al.random_layer(1, heads=heads, width=4)
    point = key.normal(size=(4, 4))
    directions = np.linalg.qr(key.normal(size=(16, heads - 1)))[0].T.reshape(-1, 4, 4)
    apart, angle = hull_errors(point, directions, truth)
    spans = np.r_[point[None], directions].reshape(heads, 16).T, np.asarray(truth.qk).reshape(heads, 16).T
    assert abs(apart / distance_twin(point, directions, np.asarray(truth.qk)) - 1) < ROUNDING
    assert abs(angle - np.degrees(subspace_angles(*spans).max())) < ROOT_OF_ROUNDING


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_the_true_hull_has_no_errors(heads):
    truth = al.random_layer(heads, heads=heads, width=4)
    point, directions = hull_of(truth)
    apart, angle = hull_errors(point, directions, truth)
    assert apart < ROUNDING and angle < 3 * ROOT_OF_ROUNDING


def test_a_point_without_directions_is_a_hull_of_one_head():
    truth = al.random_layer(0, heads=1, width=3)
    apart, angle = hull_errors(2 * np.asarray(truth.qk)[0], None, truth)
    assert abs(apart - 1) < ROUNDING and angle < ROOT_OF_ROUNDING


@pytest.mark.parametrize("degrees", [0.5, 20.0, 80.0])
def test_a_rotated_direction_is_found_by_its_angle(degrees, key):
    truth = al.random_layer(1, heads=2, width=4)
    point, directions = hull_of(truth)
    heads = np.asarray(truth.qk).reshape(2, -1)
    away = key.normal(size=16)
    away -= np.linalg.lstsq(heads.T, away)[0] @ heads
    turn = np.radians(degrees)
    rotated = np.cos(turn) * directions + np.sin(turn) * (away / np.linalg.norm(away)).reshape(1, 4, 4)
    apart, angle = hull_errors(point, rotated, truth)
    along = np.abs((heads - point.ravel()) @ directions.reshape(-1))  # from the point to each head
    assert abs(angle - degrees) < ROOT_OF_ROUNDING
    assert abs(apart - (along * np.sin(turn) / np.linalg.norm(heads, axis=1)).max()) < ROUNDING


# -- a row -------------------------------------------------------------------------------------------------------------


def learned(truth, status=Status.LEARNED, gap=8.0, layer=None):
    """A run that ended so, with estimates that are wrong by a tenth, a hundredth, and not at all."""
    ov_sum = np.sum(truth.ov, axis=0)
    point, directions = hull_of(truth)
    arrays = {"crude_paper": 1.1 * ov_sum, "ov_sum": 1.01 * ov_sum, "hull_point": point, "hull_directions": directions}
    told = (
        Phase("ov_sum", {"score": 0.3}),
        Phase("certificates", {"accepted": 0.02}),
        Phase("hull", {"gap": gap, "gaps": [gap, 1.0], "heads": 2}),
        Phase("faithful", {"error": 0.04, "trusted": True}),
        Phase("polished", {"start": "random start 2"}),
    )
    return Learned(layer, status, Cost(), told, "", arrays)


def test_a_row_holds_what_each_phase_said_and_its_error():
    problem = Planted(2, 3, 2, 4.0, 5, 0)
    row = phases(learned(problem.layer()), problem.draw())
    assert set(row) == PHASES
    assert row["crude"].pop("paper") == pytest.approx(0.1, rel=ROUNDING)
    assert row["crude"] == {"off_diagonal": None, "slice": None}
    assert row["ov_sum"] == pytest.approx(0.01, rel=1e-11)
    assert row["distance"] < ROUNDING and row["angle"] < 3 * ROOT_OF_ROUNDING
    told = [row[name] for name in ("status", "score", "accepted", "gap", "gaps", "counted", "faithful", "start")]
    assert told == ["LEARNED", 0.3, 0.02, 8.0, [8.0, 1.0], 2, 0.04, "random start 2"]
    assert row["sharpened"] is None


def test_a_hull_is_trusted_where_the_learner_had_no_doubt():
    problem = Planted(2, 3, 2, 4.0, 5, 0)
    assert phases(learned(problem.layer()), problem.draw())["trusted"]
    assert not phases(Learned(None, Status.LEARNED, Cost()), problem.draw())["trusted"]


def test_a_layer_is_judged_by_circuits_and_by_outputs():
    problem = Planted(2, 3, 2, 4.0, 5, 0)
    truth = problem.layer()
    found = _judged(learned(truth, layer=al.AttentionLayer(truth.qk[::-1], 1.01 * truth.ov[::-1])), problem)
    assert found["qk"] < ROUNDING
    assert found["ov"] == pytest.approx(0.01, rel=1e-11) and found["polished"] == pytest.approx(0.01, rel=1e-11)
    assert _judged(learned(truth), problem) == {"qk": None, "ov": None, "polished": None}


def test_an_error_that_is_no_number_is_left_open():
    """Two equal heads are one head: their distance from two heads is infinite, which JSON does not have."""
    problem = Planted(2, 3, 2, 4.0, 5, 0)
    qk, ov = (np.asarray(circuits)[[0, 0]] for circuits in (problem.layer().qk, problem.layer().ov))
    found = _judged(learned(problem.layer(), layer=al.AttentionLayer(qk, ov)), problem)
    assert found["qk"] is None and found["ov"] is None and 0 < found["polished"] < np.inf


def test_the_learner_of_a_row_is_told_the_heads_and_its_own_may_be_given(seeds, gap):
    (first, _), (counting,) = seeds[0].table, gap[0].table
    assert first["polished"] < 1e-12 and first["start"] == "candidate 1 of the hull"
    assert counting["start"] is None and counting["counted"] == 1  # counts the heads and stays in the hull
    assert counting["polished"] == pytest.approx(counting["faithful"], rel=0.5)  # on other rows
    assert counting["qk"] == pytest.approx(counting["distance"], rel=10) and counting["qk"] > 1e-10


# -- every study -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*STUDIED, *LONG])
def test_a_study_is_the_same_from_its_folder_and_can_be_drawn_again(name, request, tmp_path, monkeypatch):
    monkeypatch.setattr("attnlearn.report.studies._DPI", 40)
    study, _ = request.getfixturevalue(name)
    study.save(tmp_path)
    assert Study.load(tmp_path).table == study.table
    assert (study.question[-1], study.answer[-1]) == ("?", ".")
    assert 0 < sum(row.get("seconds", 0) for row in study.table) < study.seconds or name in ("hardness", "walk")
    path = write_study(tmp_path)
    assert path.name == f"{study.name}.png" and path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name, problems", [("seeds", 2), ("sweep", 2), ("gap", 1), ("routes", 1), ("region", 2)])
def test_a_row_for_every_problem_with_every_number_and_progress(name, problems, request):
    study, steps = request.getfixturevalue(name)
    more = {"seeds": {"limit"}, "routes": {"plain"}, "region": {"group"}}.get(name, set())
    assert [set(row) for row in study.table] == [KEYS | more] * problems
    along = {"along": "examples"} if name == "sweep" else {}
    assert study.design == {"problems": problems, "fresh_examples": 2000} | along
    assert steps == [(number, problems) for number in range(problems + 1)]


def test_every_study_has_a_figure_and_every_figure_a_study():
    assert set(DRAWINGS) == set(STUDIES)


def test_studies_have_the_names_that_they_are_known_by(seeds, sweep, gap, routes, region):
    for study, _ in (seeds, sweep, gap, routes, region):
        assert study.name in STUDIES
    known = (sculpting_seeds, sculpting_gap, sculpting_routes, sculpting_region, sculpting_hardness)
    for run in (*known, sculpting_walkthrough):
        assert STUDIES[run.__name__.replace("_", "-")] is run


def test_a_problem_gives_the_same_row_in_every_study(seeds, sweep, routes):
    first, others = seeds[0].table[0], (sweep[0].table[1], routes[0].table[0])
    for other in others:
        assert {name: other[name] for name in KEYS - {"seconds"}} == {name: first[name] for name in KEYS - {"seconds"}}


def test_a_row_where_the_learner_stopped_says_so_and_is_otherwise_empty(sweep):
    stopped = sweep[0].table[0]
    assert {name: stopped[name] for name in PROBLEM} == asdict(replace(EASY, examples=100))
    assert stopped["status"] == "TOO_FEW_EXAMPLES" and stopped["trusted"] is False
    assert stopped["crude"] == {"paper": None, "off_diagonal": None, "slice": None}
    empty = KEYS - PROBLEM - {"status", "trusted", "crude", "seconds"}
    assert {name for name in empty if stopped[name] is not None} == set()


# -- seeds -------------------------------------------------------------------------------------------------------------


def planted_row(problem, **found):
    """A row by hand: found exactly in a trusted hull, if nothing else is said."""
    good = {"seconds": 2.0, "trusted": True, "faithful": 1e-4, "sharpened": None, "qk": 1e-15, "gap": 20.0}
    return asdict(problem) | good | {"counted": problem.heads, "angle": 0.1} | found


def test_seeds_are_counted_against_the_limit_of_their_problem(seeds):
    study = seeds[0]
    assert [row["limit"] for row in study.table] == [1e-3, 1e-3]
    assert [row["seed"] for row in study.table] == [0, 1]
    reached = sum(row["trusted"] and row["faithful"] <= 1e-3 for row in study.table)
    assert study.answer.startswith(f"(1, 4, 3, 4, 1,300): faithful error at most 0.001 on {reached} of 2, worst QK")


def test_the_answer_about_seeds_has_the_worst_of_every_problem():
    noisy = replace(EASY, noise=0.01)
    rows = [
        planted_row(EASY, limit=1e-3, qk=3e-15),
        planted_row(EASY, limit=1e-3, faithful=2e-3, seconds=70.2),
        planted_row(noisy, limit=0.1, trusted=False, faithful=None, qk=None),
        planted_row(noisy, limit=0.1, faithful=0.1),
    ]
    assert seeds_answer(rows, 2) == (
        "(1, 4, 3, 4, 1,300): faithful error at most 0.001 on 1 of 2, worst QK circuit after the polish 3e-15, at most "
        "70 s. (1, 4, 3, 4, 1,300) with noise 0.01: faithful error at most 0.1 on 1 of 2, worst QK circuit after the "
        "polish inf, at most 2 s."
    )


# -- sweeps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_changes_one_number_of_the_problem_and_the_seed(name, monkeypatch):
    swept = []
    monkeypatch.setattr(Sweep, "run", lambda self: swept.append(self) or Study(name, self.question, ""))
    SWEEPS[name]()
    (sweep,) = swept
    problems = sweep.problems()
    assert name == (sweep.name or f"sculpting-{sweep.along}") and sweep.question.endswith("?")
    assert [(getattr(one, sweep.along), one.seed) for one in problems] == [
        (value, seed) for value in sweep.values for seed in sweep.seeds
    ]
    same = {sweep.along: getattr(sweep.centre, sweep.along), "seed": sweep.centre.seed}
    centred = {replace(one, **same) for one in problems}
    assert centred == {sweep.centre}


def test_the_answer_of_a_sweep_counts_the_seeds_of_every_value(sweep):
    assert sweep[0].name == "sculpting-examples"
    assert sweep[0].answer == "Of 1 seeds found in a trusted hull at each examples: 100: 0, 0 exact; 1300: 1, 1 exact."


def test_exact_is_not_asked_where_labels_have_noise():
    swept = Sweep("noise", (0.0, 0.02), "?", EASY, (0, 1, 2))
    noisy = replace(EASY, noise=0.02)
    rows = [planted_row(EASY), planted_row(EASY, faithful=0.2), planted_row(EASY, qk=1e-9)]
    rows += [planted_row(noisy), planted_row(noisy, trusted=False, faithful=None, qk=None), planted_row(noisy)]
    answer = swept.answer(rows)
    assert answer == "Of 3 seeds found in a trusted hull at each noise: 0: 2, 2 exact; 0.02: 2."


# -- gap ---------------------------------------------------------------------------------------------------------------


def test_random_problems_are_the_same_in_every_number_of_them_and_in_their_ranges():
    problems = random_problems(200)
    assert problems[:5] == random_problems(5) and random_problems(5, seed=1) != problems[:5]
    assert [one.seed for one in problems] == list(range(1000, 1200))
    ranges = {"heads": {1, 2, 3}, "width": set(range(6, 11)), "tokens": set(range(2, 7))}
    ranges["examples"] = {20_000, 40_000, 100_000}
    for name, wanted in ranges.items():
        assert {getattr(one, name) for one in problems} == wanted
    assert all(3 <= one.norm <= 8 for one in problems)


def test_the_answer_about_gaps_counts_hulls_heads_and_angles():
    rows = [
        planted_row(TWO_HEADS, gap=13.0),
        planted_row(TWO_HEADS, gap=900.0, angle=5.1),
        planted_row(TWO_HEADS, gap=20.0, counted=1, angle=80.0),
        planted_row(TWO_HEADS, gap=12.9, angle=5.0),
        planted_row(TWO_HEADS, gap=7.0, counted=3),
        planted_row(TWO_HEADS, gap=6.9, angle=60.0),
        planted_row(TWO_HEADS, gap=None, counted=None, angle=None),
    ]
    assert gap_answer(rows) == (
        "6 of 7 problems gave a hull. 3 good gaps: 2 at the true number of heads, 1 of these hulls within 5 degrees. "
        "2 fair gaps: 1 at the true number of heads, 1 of these hulls within 5 degrees. "
        "1 smaller gaps: 1 at the true number of heads, 0 of these hulls within 5 degrees."
    )


def test_one_head_has_a_good_gap(gap):
    assert gap[0].answer.startswith("1 of 1 problems gave a hull. 1 good gaps: 1 at the true number of heads, 1 of")


# -- routes ------------------------------------------------------------------------------------------------------------


def test_least_squares_from_random_starts_finds_one_head(routes):
    plain = routes[0].table[0]["plain"]
    assert plain["starts"] == plain["exact"] == 2
    assert plain["best"] < 1e-12 and plain["seconds"] > 0


def test_the_answer_about_routes_counts_problems_and_starts():
    plain = {"starts": 8, "exact": 3, "best": 1e-9, "seconds": 0.5}
    rows = [
        planted_row(EASY, plain=plain),
        planted_row(EASY, plain=plain | {"exact": 0, "seconds": 2.0}, trusted=False),
        planted_row(EASY, plain=plain | {"seconds": 1.0}, qk=None, trusted=False, seconds=9.0),
    ]
    assert routes_answer(rows) == (
        "Of 3 problems the hull was trusted on 1 and the polished circuits exact on 2; 6 of 24 runs from random starts "
        "were exact too, at 1 s a run against 2 s for sculpting."
    )


# -- region ------------------------------------------------------------------------------------------------------------


def test_groups_of_the_region_stand_in_their_rows(region):
    easy, scarce = region[0].table
    assert (easy["group"], scarce["group"]) == ("easy", "scarce")
    assert easy["sharpened"] is not None and scarce["sharpened"] is None
    said = "easy: hull trusted 1, sharpened 1, polished 1 of 1; scarce: hull trusted 0, sharpened 0, polished 0 of 1; "
    assert region[0].answer == f"{said}at most {max(easy['seconds'], scarce['seconds']):.0f} s."


def test_the_answer_about_the_region_asks_less_where_there_is_noise():
    noisy = replace(EASY, noise=0.1)
    rows = [
        {"group": "a"} | planted_row(EASY, sharpened=0.0101, qk=1e-9, seconds=12.0),
        {"group": "b"} | planted_row(noisy, sharpened=0.11, qk=0.04, trusted=False),
        {"group": "a"} | planted_row(EASY, sharpened=0.0099),
    ]
    assert region_answer(rows) == (
        "a: hull trusted 2, sharpened 1, polished 1 of 2; b: hull trusted 0, sharpened 1, polished 1 of 1; "
        "at most 12 s."
    )


def test_problems_of_the_studies_differ():
    problems = [one for group in GROUPS.values() for one in group]
    assert len(set(problems)) == len(problems)
    assert len({row.problem for row in ROWS}) == len(ROWS)
    assert {one.correlation for one in GROUPS["correlated"]} == {0.5, 0.9, 0.99}
    assert {one.noise for one in GROUPS["noise"]} == {0.02, 0.05, 0.1, 0.2}


# -- hardness ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # least squares with noise
def test_the_hidden_part_is_that_of_the_layer(hardness):
    study, steps = hardness
    (row,) = study.table
    planted = CancellingHeads(2, 4, 8.0, 0, 4.0, generic=0.1)
    X = cube(np.random.default_rng([0, 1]), 1300, 3, 4)
    outputs = np.array([attention(planted.layer(), x) for x in X])
    hidden = outputs - [attention(planted.common(), x) for x in X]
    assert row["hidden"] == pytest.approx(np.linalg.norm(hidden) / np.linalg.norm(outputs), rel=1e-9)
    size = np.linalg.norm(hidden) / np.sqrt(1300)
    assert row["examples_needed"] == pytest.approx(examples_to_tell_apart(size, 0.1 * outputs.std()), rel=1e-9)
    assert {row["not_exact"], row["not_found"]} <= {0.0, 0.5, 1.0}  # of two starts
    assert (row["heads"], row["seed"], steps) == (2, 0, [(0, 1), (1, 1)])
    assert study.design == asdict(DESIGN)


def test_the_answer_about_hardness_has_medians_by_heads():
    made = {"hidden": 0.2, "accepted": 0.01, "gap": 30.0, "not_exact": 0.0, "not_found": 0.25}
    rows = [
        {"heads": 3} | made | {"accepted": None, "gap": None, "not_exact": 1.0, "hidden": 0.001},
        {"heads": 2} | made,
        {"heads": 2} | made | {"accepted": 0.03, "gap": 8.0, "not_found": 0.75},
    ]
    assert hardness_answer(rows, Design(noise=0.05)) == (
        "By the number of heads, the noise 0.05 of the labels: "
        "2: hidden part 0.2, accepted 0.02, gap 19, 0 % of the runs of least squares not exact, 50 % with noise miss "
        "the hidden part; 3: hidden part 0.001, accepted 0, gap 1, 100 % of the runs of least squares not exact, 25 % "
        "with noise miss the hidden part."
    )


# -- walkthrough -------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # all phases for two heads
def test_the_walkthrough_shows_every_phase_once(walk):
    rows = {row["phase"]: row for row in walk[0].table}
    assert list(rows) == ["crude", "sum", "certificates", "hull", "net", "faithful", "polished"]
    assert rows["crude"]["true"] == np.sum(TWO_HEADS.layer().ov, axis=0).ravel().tolist()
    found = rows["certificates"]
    assert np.shape(found["heads"]) == (2, len(found["log_odds"])) and len(found["log_odds"]) <= CERTIFIED
    assert np.median(rows["sum"]["after"]) < np.median(rows["sum"]["before"])  # rows come nearer to one token


@pytest.mark.slow
def test_every_phase_of_the_walkthrough_starts_where_the_one_before_ended(walk):
    rows = {row["phase"]: row for row in walk[0].table}
    values = np.array(rows["hull"]["values"])
    assert np.all(np.diff(values) >= 0) and len(values) == 6**2 + 1
    assert rows["hull"]["heads"] == 2 and 1 <= rows["hull"]["gap"] <= 1000
    faithful, polished = rows["faithful"]["error"], rows["polished"]["error"]
    assert len(faithful) == len(polished) == STEPS
    assert polished[0] == pytest.approx(faithful[-1], rel=1e-6) and polished[-1] < faithful[-1] < faithful[0]
    assert np.shape(rows["net"]["best"]) == (2, 1)
    assert len(rows["net"]["c"]) == len(rows["net"]["cost"])
    assert f"{rows['hull']['angle']:.2g} degrees from the true heads" in walk[0].answer
