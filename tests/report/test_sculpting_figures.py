"""The figures of the studies of sculpting, from records made by hand."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from attnlearn.learners.sculpting import Sculpting
from attnlearn.records import Study
from attnlearn.report import write_study
from attnlearn.report.palette import STYLE
from attnlearn.report.sculpting import CLOSE, FAIR, GOOD_GAP, SCULPTING, SWEPT
from attnlearn.studies.sculpting_gap import CLOSE as CLOSE_OF_THE_STUDY
from attnlearn.studies.sculpting_sweeps import SWEEPS


def row(**found):
    """A row of a problem that went well, if nothing else is said."""
    problem = {"heads": 2, "width": 8, "tokens": 4, "norm": 4.0, "examples": 40_000, "seed": 1, "noise": 0.0}
    phases = {"score": 0.1, "ov_sum": 0.02, "accepted": 0.01, "gap": 30.0, "counted": 2, "distance": 0.03}
    layer = {"angle": 2.0, "faithful": 0.05, "trusted": True, "seconds": 3.0, "qk": 1e-15, "polished": 1e-16}
    crude = {"crude": {"paper": 0.9, "off_diagonal": 0.4, "slice": None}}
    return problem | phases | layer | crude | found


STOPPED = dict.fromkeys(("score", "ov_sum", "accepted", "gap", "counted", "distance", "angle", "faithful"))
STOPPED |= {"qk": None, "polished": None, "trusted": False, "crude": dict.fromkeys(("paper", "off_diagonal", "slice"))}


def plain(exact, best=1e-12):
    return {"starts": 4, "exact": exact, "best": best, "seconds": 0.1}


def certificates(number):
    """Certificates that hold for both heads, up to a little noise."""
    key = np.random.default_rng(0)
    odds = key.normal(size=number)
    return {"residual": [1e-3] * number, "log_odds": odds, "heads": odds + 0.1 * key.normal(size=(2, number))}


WALK = (
    {"phase": "crude", "true": [-1.0, 0.0, 2.0], "paper": [0.0] * 3, "off_diagonal": [1.0] * 3, "slice": [0.5] * 3},
    {"phase": "sum", "before": [[0.5, 0.7]], "after": [[1e-9, 100.0]], "refined": [-1.0, 0.0, 2.0]},
    {"phase": "certificates", **certificates(20)},
    {"phase": "hull", "values": [0.1, 0.2, 5.0, *range(6, 16)], "heads": 2, "gap": 25.0, "angle": 1},
    {"phase": "net", "c": [[0, 0], [0, 1], [1, 2], [0, 2]], "cost": [0.4, 0.3, 0.2, 0.3], "best": [[1.0], [2.0]]},
    {"phase": "faithful", "error": [0.5, 0.2, 0.1]},
    {"phase": "polished", "error": [0.1, 1e-8, 1e-15, 1e-15]},
)


def drawn(name, *table, design=None) -> Any:
    with mpl.rc_context(STYLE):
        return SCULPTING[name](Study(name, "?", ".", design or {}, table))


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def points(ax):
    """The markers that are no line, as pairs of numbers."""
    return [tuple(pair) for line in ax.lines if line.get_marker() not in ("None", "") for pair in line.get_xydata()]


def ticks(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


# -- sweeps ------------------------------------------------------------------------------------------------------------


def swept(along, *table) -> Any:
    return drawn(f"sculpting-{along}", *table, design={"along": along})


@pytest.mark.parametrize("along", ["examples", "heads", "width", "tokens", "norm", "noise"])
def test_a_sweep_has_errors_shares_and_gap_against_its_number(along):
    figure = swept(along, row(**{along: 2}), row(**{along: 3}))
    assert titles(figure) == ["relative error", "share of rows", "singular gap of the hull"]
    assert [ax.get_xlabel() for ax in figure.axes] == [along] * 3
    assert {ax.get_xscale() for ax in figure.axes} == {"log" if along in ("examples", "norm") else "linear"}
    assert {ax.get_yscale() for ax in figure.axes} == {"log"}
    wanted = ["crude sum", "refined sum", "heads from the hull", "faithful outputs", "polished outputs"]
    assert legend(figure.axes[0]) == wanted
    assert legend(figure.axes[1]) == ["decided by one token", "accepted edges"]
    assert [text.get_text() for text in figure.axes[2].texts] == ["fair", "good"]


def test_a_line_runs_through_the_medians_of_all_that_was_reached():
    gaps = {1: (2.0, 40.0, 3.0), 2: (None, 20.0, 10.0), 3: (None, None, None)}
    rows = [row(heads=heads, gap=gap) for heads, some in gaps.items() for gap in some]
    dots, line, *_ = swept("heads", *rows).axes[2].lines
    assert dots.get_xydata().tolist() == [[1, 2], [1, 40], [1, 3], [2, 20], [2, 10]]
    assert line.get_xydata().tolist() == [[1, 3], [2, 15]]
    assert dots.get_color() == line.get_color()


def test_the_best_crude_estimate_is_drawn():
    errors = swept("heads", row(), row(heads=3, **STOPPED)).axes[0]
    assert errors.lines[0].get_xydata().tolist() == [[2, 0.4]]
    assert all(len(line.get_xydata()) == 1 for line in errors.lines)  # nothing of the problem that stopped


def test_an_error_of_zero_is_drawn_at_the_bottom():
    errors = swept("noise", row(polished=0.0), row(noise=0.1)).axes[0]
    assert errors.lines[-1].get_ydata()[0] == 1e-17
    assert min(value for line in errors.lines for value in line.get_ydata()) == 1e-17


def test_a_sweep_of_another_name_says_what_it_varies():
    table = row(examples=100, heads=3), row(examples=1000, heads=3)
    figure = drawn("sculpting-examples-three-heads", *table, design={"along": "examples"})
    assert [ax.get_xlabel() for ax in figure.axes] == ["examples"] * 3
    assert figure.axes[2].lines[0].get_xdata().tolist() == [100, 1000]
    assert {f"sculpting-{name}" for name in SWEPT} == set(SWEEPS)


def test_no_accepted_row_is_drawn_at_the_bottom():
    shares = swept("heads", row(accepted=0.0), row(heads=3, accepted=None)).axes[1]
    assert shares.lines[2].get_xydata().tolist() == [[2, 1e-6]]


# -- gap ---------------------------------------------------------------------------------------------------------------


def test_limits_in_the_figures_are_those_of_the_learner():
    carving = Sculpting().carving
    assert (carving.fair, carving.good, CLOSE_OF_THE_STUDY) == (FAIR, GOOD_GAP, CLOSE)


def test_hulls_of_another_number_of_heads_are_crosses():
    rows = [row(gap=20.0, angle=1.0), row(gap=5.0, counted=1, angle=80.0), row(heads=1, gap=900.0, counted=1, angle=0)]
    (ax,) = drawn("sculpting-gap", *rows, row(**STOPPED)).axes
    found = {(line.get_marker(), *pair) for line in ax.lines for pair in line.get_xydata() if line.get_marker() in "ox"}
    assert found == {("o", 20.0, 1.0), ("x", 5.0, 80.0), ("o", 900.0, 1e-3)}
    assert legend(ax) == ["1 head", "2 heads"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("gap", "largest angle to the true heads, degrees")
    assert {ax.get_xscale(), ax.get_yscale()} == {"log"}
    of_heads = {line.get_label(): line.get_color() for line in ax.lines}
    assert of_heads["1 head"] != of_heads["2 heads"]


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_a_seed_whose_hull_failed_is_hollow_and_what_it_lacks_left_out():
    rows = [row(), row(trusted=False, qk=1e-9, faithful=0.8), row(**STOPPED), row(noise=0.01), row(noise=0.01)]
    figure = drawn("sculpting-seeds", *({"limit": 0.1} | one for one in rows))
    assert titles(figure) == ["faithful error", "QK error after the polish", "seconds"]
    faithful, qk, seconds = figure.axes
    assert [line.get_fillstyle() for line in faithful.lines] == ["full", "none", "full", "full"]
    assert [line.get_fillstyle() for line in qk.lines] == ["full", "none", "full", "full"]
    assert [line.get_fillstyle() for line in seconds.lines] == ["full", "none", "none", "full", "full"]
    assert [value for _, value in points(faithful)] == [0.05, 0.8, 0.05, 0.05]
    assert [round(place) for place, _ in points(faithful)] == [0, 0, 1, 1]


def test_every_problem_has_its_name_and_its_limit():
    rows = [row(limit=0.1), row(limit=1e-3, heads=1, examples=10_000), row(limit=0.2, noise=0.01)]
    figure = drawn("sculpting-seeds", *rows)
    for ax in figure.axes:
        first, second, third = ticks(ax)
        assert first.startswith("2, 8, 4, 4\n") and "40,000" in first and "noise" not in first
        assert second.startswith("1, 8, 4, 4\n") and "10,000" in second
        assert third == f"{first}\n1 % noise"
    limits = [segment for lines in figure.axes[0].collections for segment in lines.get_segments()]
    assert [(segment[:, 1].tolist(), segment[:, 0].mean()) for segment in limits] == [
        ([0.1, 0.1], 0),
        ([1e-3, 1e-3], 1),
        ([0.2, 0.2], 2),
    ]


# -- routes ------------------------------------------------------------------------------------------------------------


def test_routes_stand_side_by_side_with_the_share_of_exact_starts():
    rows = [row(plain=plain(1)), row(plain=plain(2, 0.3)), row(heads=4, plain=plain(0, 0.5)) | STOPPED]
    figure = drawn("sculpting-routes", *rows)
    errors, exact = figure.axes
    assert titles(figure) == ["relative error of the outputs", "random starts that end exactly"]
    assert legend(errors) == ["faithful", "polished", "best of the random starts"]
    wanted = [[0.05, 0.05], [1e-16, 1e-16], [1e-12, 0.3, 0.5]]
    assert [line.get_ydata().tolist() for line in errors.lines] == wanted
    assert [np.round(line.get_xdata(), 9).tolist() for line in errors.lines] == [[-0.2] * 2, [0] * 2, [0.2, 0.2, 1.2]]
    assert [bar.get_height() for bar in exact.patches] == [3 / 8, 0]
    assert exact.get_ylim() == (0, 1)
    assert [name.split("\n")[0] for name in ticks(errors)] == ["2, 8, 4, 4", "4, 8, 4, 4"] and ticks(exact) == ticks(
        errors
    )


# -- hardness ----------------------------------------------------------------------------------------------------------


def cancelling(heads, **found):
    return {"heads": heads, "hidden": 0.1, "accepted": 0.02, "score": 0.3, "gap": 20.0, "not_exact": 0.0} | found


def test_hardness_is_drawn_against_the_number_of_heads():
    rows = [cancelling(2, not_found=0.25), cancelling(2, not_found=0.75), cancelling(3, gap=None, not_found=1.0)]
    figure = drawn("sculpting-hardness", *rows)
    assert titles(figure) == ["relative size and rates", "gap of the hull", "share of runs"]
    assert [legend(ax) for ax in figure.axes] == [
        ["hidden part over outputs", "accepted edges", "decided by one token"],
        ["gap"],
        ["least squares not exact", "with noise: hidden part missed"],
    ]
    assert [ax.get_xlabel() for ax in figure.axes] == ["heads"] * 3
    assert [ax.get_xticks().tolist() for ax in figure.axes] == [[2, 3]] * 3
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log", "linear"]
    assert figure.axes[1].lines[1].get_xydata().tolist() == [[2, 20]]  # no gap at three heads
    assert figure.axes[2].lines[3].get_xydata().tolist() == [[2, 0.5], [3, 1]]


# -- walkthrough -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walk():
    return drawn("sculpting-walkthrough", *WALK)


def test_the_walkthrough_has_six_panels_in_the_order_of_the_algorithm(walk):
    *panels, bar = walk.axes
    assert [title.split(" ")[0] for title in titles(walk)[:-1]] == ["(i)", "(ii)", "(iii)", "(iv)", "(v)", "(vi)"]
    assert len(panels) == 6 and bar.get_ylabel() == "relative error of the regression"
    assert all(ax.get_xlabel() for ax in panels)


def test_estimates_of_the_sum_stand_against_the_truth(walk):
    crude = walk.axes[0]
    assert legend(crude) == ["paper", "off-diagonal", "slice", "refined"]
    assert [line.get_ydata().tolist() for line in crude.lines[:4]] == [[0] * 3, [1] * 3, [0.5] * 3, [-1, 0, 2]]
    assert all(line.get_xdata().tolist() == [-1, 0, 2] for line in crude.lines[:4])
    assert crude.lines[4].get_xydata().tolist() == [[-1, -1], [2, 2]]  # where they should be


def test_every_certificate_is_drawn_for_both_heads(walk):
    ax, wanted = walk.axes[1], certificates(20)
    assert legend(ax) == ["head 1", "head 2"]
    for line, heads in zip(ax.lines, wanted["heads"], strict=False):
        assert np.array_equal(line.get_xydata(), np.c_[wanted["log_odds"], heads])


def test_rows_beyond_the_ends_of_the_histogram_are_counted_there(walk):
    ax = walk.axes[2]
    assert legend(ax) == ["before", "after"]
    heights = [bar.get_height() for bar in ax.patches]
    assert len(heights) == 2 * 49 and sum(heights) == 4
    assert heights[49] == heights[-1] == 1


def test_the_hull_has_the_colour_of_as_many_heads_as_were_carved(walk):
    ax = walk.axes[3]
    assert [bar.get_height() for bar in ax.patches] == [0.1, 0.2, 5.0, *range(6, 13)]
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert colours[0] == colours[1] != colours[2] and len(set(colours[2:])) == 1
    assert [text.get_text() for text in ax.texts] == ["gap 25"]


def test_the_net_is_symmetric_in_the_heads_and_its_best_point_marked_twice(walk):
    assert points(walk.axes[4]) == [(1, 2), (2, 1)]


def test_the_last_fit_goes_on_where_the_one_in_the_hull_ended(walk):
    ax = walk.axes[5]
    assert legend(ax) == ["faithful", "polished"]
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0, 1, 2], [2, 3, 4, 5]]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.2, 0.1], [0.1, 1e-8, 1e-15, 1e-15]]


def test_the_walkthrough_is_drawn_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("attnlearn.report.studies._DPI", 40)
    Study("sculpting-walkthrough", "?", ".", {}, WALK).save(tmp_path)
    assert write_study(tmp_path).read_bytes().startswith(b"\x89PNG")
