"""Rows are made once, in order, and an interrupted study goes on after the last whole row."""

from dataclasses import dataclass

import pytest

from attnlearn._progress import listening
from attnlearn.studies.points import each, kept_in, kept_path


@dataclass(frozen=True)
class Design:
    factor: float = 2.0


class Interrupted(Exception):
    pass


def working(made, stops_at=None):
    def work(point):
        if point == stops_at:
            raise Interrupted
        made.append(point)
        return {"point": point, "value": 0.1 * point, "worst": [float("inf")]}

    return work


def rows(made, stops_at=None, design=Design(), points=range(4)):
    return each("some-study", design, points, working(made, stops_at))


def interrupted(folder, stops_at=2):
    with pytest.raises(Interrupted), kept_in(folder):
        rows([], stops_at)


def test_a_row_for_every_point_with_progress_and_nothing_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told, made = [], []
    with listening(lambda *report: told.append(report)):
        found, seconds = rows(made)
    assert [row["point"] for row in found] == made == [0, 1, 2, 3] and seconds >= 0
    assert told == [("study", done, 4) for done in range(5)]
    assert not list(tmp_path.iterdir())


def test_goes_on_after_the_last_row_that_was_kept(tmp_path):
    whole, _ = rows([])
    interrupted(tmp_path)
    again = []
    with kept_in(tmp_path):
        found, _ = rows(again)
    assert again == [2, 3] and found == whole
    assert not list(tmp_path.iterdir())  # a study that ended well leaves none of its rows


def test_a_row_that_was_half_written_is_made_again(tmp_path):
    interrupted(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-5])
    again = []
    with kept_in(tmp_path):
        rows(again)
    assert again == [1, 2, 3]


def test_seconds_are_those_of_all_rows(tmp_path):
    interrupted(tmp_path)
    (path,) = tmp_path.iterdir()
    head, *lines = path.read_text().splitlines()
    slow = [line.replace('"seconds": ', '"seconds": 100.0, "before": ') for line in lines]
    path.write_text("\n".join([head, *slow, ""]))
    with kept_in(tmp_path):
        assert 200 < rows([])[1] < 201


def test_rows_of_another_design_are_not_read(tmp_path):
    interrupted(tmp_path)
    again = []
    with kept_in(tmp_path):
        rows(again, design=Design(3.0))
    assert again == [0, 1, 2, 3]


def test_a_study_that_ends_well_leaves_the_rows_of_others_alone(tmp_path):
    interrupted(tmp_path)
    with kept_in(tmp_path):
        each("another-study", Design(), [0], working([]))
        kept_path("features.npz").write_text("made")
    assert [path.name for path in tmp_path.iterdir()] == ["some-study.rows.jsonl"]


def test_there_is_no_path_outside_a_folder():
    assert kept_path("features.npz") is None
