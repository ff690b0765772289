"""Figures are drawn from record and arrays alone, and only where there is something to draw."""

import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from attnlearn.records import Ledger, Record
from attnlearn.report.figures import plates


def plate_of(name, record, arrays):
    return next((plate for plate in plates(record, arrays) if plate.name == name), None)


@pytest.fixture(scope="module")
def maps(record, arrays):
    return plate_of("maps_0", replace(record, sentences=record.sentences[:1]), arrays)


def test_a_full_run_has_every_figure_in_order(record, arrays):
    names = [plate.name for plate in plates(record, arrays)]
    assert names == ["maps_0", "maps_1", "errors", "spectra", "questions", "conditioning"]


def test_a_run_without_numbers_has_no_figure():
    assert plates(Record("f", "ORACLE_FAILED", "The black box failed."), {}) == ()


def test_a_stopped_run_shows_what_was_asked_up_to_then(record):
    stopped = replace(record, heads=(), floor=None, judgement=None, sentences=(), conditioning={})
    assert [plate.name for plate in plates(stopped, {})] == ["questions"]


def test_drawing_leaves_the_settings_of_matplotlib_as_found(record, arrays):
    before = dict(mpl.rcParams)
    plates(record, arrays)
    assert dict(mpl.rcParams) == before


def test_learned_stands_over_true_over_difference(maps, arrays):
    panels = [ax for ax in maps.figure.axes if ax.get_images()]
    head = int(panels[0].get_title(loc="left").split()[1]) - 1
    drawn = [ax.get_images()[0].get_array() for ax in panels[::4]]
    learned, true = arrays["maps_learned_0"][head], arrays["maps_true_0"][head]
    for image, wanted in zip(drawn, (learned, true, learned - true), strict=True):
        assert np.array_equal(image, wanted)


def test_word_pieces_label_the_axes_as_they_are(maps, record):
    assert [label.get_text() for label in maps.figure.axes[0].get_yticklabels()] == list(record.sentences[0])


def test_heads_are_shown_from_sharp_to_even(maps, arrays):
    heads = [int(number) - 1 for number in re.findall(r"\d+", re.search(r"Heads ([\d, ]+) are", maps.caption)[1])]
    sharpness = [arrays["maps_learned_0"][head].max(axis=-1).mean() for head in heads]
    assert len(heads) == 4
    assert sharpness == sorted(sharpness, reverse=True)


def test_the_caption_reads_the_sentence(maps):
    assert maps.caption.startswith("“iceberg $x$”")


def test_maps_without_a_truth_stand_alone(record, arrays):
    alone = {name: value for name, value in arrays.items() if "true" not in name}
    plate = plate_of("maps_0", record, alone)
    assert plate.title == "Attention on real sentences"
    assert "difference" not in plate.caption


@pytest.mark.parametrize("heads", [1, 2])
def test_few_heads_are_all_shown(record, arrays, heads):
    few = {name: value[:heads] if name.startswith("maps") else value for name, value in arrays.items()}
    figure = plate_of("maps_0", record, few).figure
    assert len([ax for ax in figure.axes if ax.get_title(loc="left")]) == heads


def test_an_error_of_zero_is_drawn_at_the_bottom_and_an_unknown_one_not_at_all(record):
    drawn = np.concatenate([line.get_ydata() for line in plate_of("errors", record, {}).figure.axes[0].lines])
    assert np.isfinite(drawn).all()
    assert (drawn > 0).all()
    unknown = replace(record, heads=(replace(record.heads[0], qk_error=None),))
    assert plate_of("errors", unknown, {}) is None


def test_the_floor_is_in_the_caption_of_the_ledger(record):
    assert f"{record.floor.tokens:,} rows" in plate_of("questions", record, {}).caption


def test_a_ledger_of_many_lengths_is_drawn(record):
    many = replace(record, ledger=Ledger(40, 820, 6560, dict.fromkeys(range(1, 41), 1)))
    assert plate_of("questions", many, {}).figure.get_figheight() < 8
