"""The figure of linear probes, from a record made by hand."""

from itertools import pairwise
from typing import Any

import matplotlib as mpl
import pytest

from attnlearn.records import Study
from attnlearn.report.palette import STYLE
from attnlearn.report.probing import GROUPS, probing

KINDS = [(pooling, features) for pooling in ("first", "mean") for features in ("standardised", "raw")]
PUBLISHED = {"model": "a model", "accuracy": {"initial": 0.5, "train": 1.0, "test": 0.95, "ood_tokens": 0.64}}


def row(kind, layer, **accuracy):
    ranking = {name: value / 2 for name, value in accuracy.items()}
    return {"pooling": kind[0], "features": kind[1], "layer": layer, "accuracy": accuracy, "ranking": ranking}


def table():
    """Four kinds of probes on three layers; the last one of each is better by .1 on the test sentences."""
    return tuple(
        row(kind, layer, train=1.0 if layer else 0.5, test=0.6 + 0.05 * number + 0.1 * (layer == 2), ood_tokens=0.3)
        for number, kind in enumerate(KINDS)
        for layer in (0, 1, 2)
    )


@pytest.fixture(scope="module")
def figure() -> Any:
    with mpl.rc_context(STYLE):
        return probing(Study("single-location-probing", "?", ".", {"published": PUBLISHED}, table()))


def test_every_kind_of_probe_has_a_panel_with_a_line_for_every_group_it_has(figure):
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    words = ("first token", "mean of the tokens")
    assert titles[:8:2] == [f"{pooling}, {features}" for pooling in words for features in ("standardised", "raw")]
    for number, ax in enumerate(figure.axes[:8:2]):
        train, test, tokens, chance = ax.lines
        assert [line.get_label() for line in (train, test, tokens)] == ["train", "test", "new adjectives"]
        assert train.get_xdata().tolist() == [0, 1, 2] and list(train.get_ydata()) == [0.5, 1.0, 1.0]
        assert test.get_ydata() == pytest.approx([0.6 + 0.05 * number + add for add in (0, 0, 0.1)])
        assert set(chance.get_ydata()) == {0.5}
        assert ax.get_ylim()[0] < 0.3  # nothing is cut off


def test_rankings_stand_below_accuracies(figure):
    assert [figure.axes[place].get_ylabel() for place in (0, 1)] == ["accuracy", "area under the ROC curve"]
    for above, below in zip(figure.axes[:8:2], figure.axes[1:8:2], strict=True):
        for up, down in zip(above.lines[:3], below.lines[:3], strict=True):
            assert 2 * down.get_ydata() == pytest.approx(up.get_ydata())


def test_bars_are_means_over_the_layers_above_the_embeddings(figure):
    bars = {drawn.get_label(): [bar.get_height() for bar in drawn] for drawn in figure.axes[8].containers}
    assert bars["first token, standardised"] == pytest.approx([1.0, 0.65, 0.3])
    assert bars["mean of the tokens, raw"] == pytest.approx([1.0, 0.8, 0.3])
    assert bars["published, a model"] == [1.0, 0.95, 0.64]
    names = [label.get_text() for label in figure.axes[8].get_xticklabels()]
    assert names == [GROUPS[name][0] for name in ("train", "test", "ood_tokens")]


def test_bars_of_one_group_stand_side_by_side(figure):
    edges = sorted((bar.get_x(), bar.get_width()) for drawn in figure.axes[8].containers for bar in drawn)
    assert len(edges) == 3 * 5
    assert all(x + width <= following for (x, width), (following, _) in pairwise(edges))


def test_every_group_of_the_study_has_its_words():
    from attnlearn.studies.single_location_probing import Design

    assert {one.group for one in Design().sets} == set(GROUPS)
    assert set(Design().published["accuracy"]) == {"initial", *GROUPS} - {"adjective_last"}
