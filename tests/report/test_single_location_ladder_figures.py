"""The figures of the risk ladder and of the manifold show the numbers of their records."""

import numpy as np
import pytest

from attnlearn.records import Study
from attnlearn.report.manifold import manifold
from attnlearn.report.risk_ladder import risk_ladder

FAMILIES = ("linear", "erf", "linear_attention", "swapped", "gate", "softmax", "bayes")
LABELS = ("affine map", "erf attention", "linear attention", "erf attention, swapped", "gate", "softmax attention")
LABELS += ("Bayes",)


def row(spread, d, tokens, small, far=False):
    """Risks a factor 2 apart from `linear` down, the last three as small as `small`, or none of them."""
    risks = {name: 0.5**number for number, name in enumerate(FAMILIES)}
    risks |= {name: None if far else small * (number + 1) for number, name in enumerate(("bayes", "softmax", "gate"))}
    return {"gamma_squared": spread, "d": d, "tokens": tokens, **risks}


@pytest.fixture(scope="module")
def ladder():
    rows = [row(spread, *task) for spread in (0.5, 1.0) for task in ((4, 10, 1e-2), (40, 10, 1e-15), (40, 2, 1e-5))]
    design = {"gammas_squared": [0.5, 1.0], "length": 10, "widths_of_lengths": [40]}
    return risk_ladder(Study("ladder", "?", "!", design, (*rows, row(0.5, 4000, 10, 0, far=True))))


def test_ladder_draws_every_family_against_the_width_for_both_spreads(ladder):
    for ax, spread in zip(ladder.axes[:2], ("0.5", "1"), strict=True):
        assert f"= {spread}, 10 tokens" in ax.get_title()
        assert tuple(line.get_label() for line in ax.lines) == LABELS
        for line, name in zip(ax.lines, FAMILIES, strict=True):
            assert list(line.get_xdata()) == [4, 40]
            assert list(line.get_ydata()) == [row(0.5, 0, 0, small)[name] for small in (1e-2, 1e-15)]


def test_ladder_names_what_is_below_the_axis(ladder):
    for ax in ladder.axes[:2]:
        assert ax.get_ylim()[0] == pytest.approx(1e-12)
        words = [text.get_text() for text in ax.texts]
        assert words == ["at width 40, below the axis:\nBayes 1.0e-15\nsoftmax attention 2.0e-15\ngate 3.0e-15"]
    assert not ladder.axes[2].texts


def test_ladder_draws_against_the_length_in_order(ladder):
    ax = ladder.axes[2]
    assert ax.get_title().startswith("width 40")
    assert all(list(line.get_xdata()) == [2, 10] for line in ax.lines)
    assert list(ax.lines[-1].get_ydata()) == [1e-5, 1e-15]


def test_ladder_draws_the_law_out_to_the_far_widths(ladder):
    *families, law = ladder.axes[3].lines
    for line, name in zip(families, ("erf", "linear_attention", "swapped"), strict=True):
        value = row(0.5, 0, 0, 0)[name]
        assert line.get_ydata() == pytest.approx(value * np.array([4, 40, 4000]) / 10)
    assert law.get_ydata() == pytest.approx(np.log([4, 40, 4000]))


@pytest.fixture(scope="module")
def plane():
    one = {
        "lam": 0.3,
        "eigenvalues": [1.03, -20.4],
        "curve": {"kappa": [-0.5, 0.5], "nu": [0.4, -0.4]},
        "basins": [[-1, -1], [1, 1]],
        "orbits": [{"kappa": [0.1, 0.2, 0.3], "nu": [0.5, 0.6, 0.9]}],
        "moved": [{"step_size": 0.01, "starts": []}, {"step_size": 0.1, "starts": [[0.25, -0.1], [-0.25, 0.1]]}],
    }
    return manifold(Study("plane", "?", "!", {}, (one, {**one, "lam": 0.9})))


def test_plane_has_a_panel_for_every_slope(plane):
    titles = [ax.get_title() for ax in plane.axes]
    assert titles == [f"$\\lambda$ = {lam}, $\\mu_\\pm$ = 1.03, -20.4" for lam in ("0.3", "0.9")]


def test_plane_draws_basins_curve_orbits_and_carried_starts(plane):
    ax = plane.axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    assert list(ax.collections[0].get_array().ravel()) == [-1, -1, 1, 1]
    assert list(lines["stable curve of the saddle"].get_ydata()) == [0.4, -0.4]
    assert list(ax.lines[0].get_ydata()) == [0.5, 0.6, 0.9]
    assert len(lines["descent ends elsewhere, step size 0.01"].get_xdata()) == 0
    assert lines["descent ends elsewhere, step size 0.1"].get_xydata().tolist() == [[0.25, -0.1], [-0.25, 0.1]]
    assert lines["minima"].get_xydata().tolist() == [[-1, -1], [1, 1]]
    arrow = ax.texts[0]
    assert (arrow.xy, arrow.xyann) == ((0.3, 0.9), (0.2, 0.6))  # where half of the orbit's length is passed
