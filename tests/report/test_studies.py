"""A study is drawn from its record alone."""

import pytest

from attnlearn.records import Study
from attnlearn.report import write_study


def row(sentences, error, head=0):
    errors = None if error is None else {"qk": 3 * error, "ov": 2 * error, "held_out": error}
    return {"head": head, "sentences": sentences, "observed": sentences, "unknowns": 60, "errors": errors}


STUDY = Study("minilm-activations", "How many?", "100.", {"heads": [0]}, (row(50, None), row(80, 0.2), row(100, 1e-9)))


def test_the_figure_of_a_study_is_drawn_from_its_folder(tmp_path):
    STUDY.save(tmp_path)
    assert Study.load(tmp_path) == STUDY
    path = write_study(tmp_path)
    assert path.name == "minilm-activations.png" and path.read_bytes().startswith(b"\x89PNG")


def test_a_study_that_no_figure_is_known_for_keeps_its_record(tmp_path):
    Study("another", "Why?", "Because.").save(tmp_path)
    assert write_study(tmp_path) == tmp_path / "study.json"


def test_refuses_a_folder_without_a_whole_study(tmp_path):
    (tmp_path / "study.json").write_text('{"name": "half')
    with pytest.raises(ValueError, match=r"Cannot read a study from .*attnlearn study NAME --out DIR"):
        write_study(tmp_path)
