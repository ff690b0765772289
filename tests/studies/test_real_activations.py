"""The study of real activations, on a small encoder with the same steps as the large one."""

import numpy as np
import pytest
from data.conftest import bert_file, tensors  # noqa: F401 (fixtures)

from attnlearn.data.bert import Bert
from attnlearn.records import Study
from attnlearn.report import write_study
from attnlearn.studies import STUDIES
from attnlearn.studies.real_activations import Design, minilm_activations

WORDS = ["[CLS]", "[SEP]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture
def text(monkeypatch):
    """Sentences of five words each from 26: tokens in general position."""
    monkeypatch.setattr("data.conftest.WORDS", WORDS)
    return [" ".join(words) for words in np.random.default_rng(0).choice(WORDS[3:], (80, 5))]


@pytest.fixture
def study(text, bert_file):  # noqa: F811
    design = Design(heads=(0,), sentences=(2, 60), held_out=20)
    return minilm_activations(design, Bert(bert_file), text)


@pytest.mark.slow  # compiles three widths of circuits
def test_a_head_is_found_from_enough_sentences_and_its_figure_drawn(study, tmp_path):
    few, enough = study.table
    assert few["errors"] is None and few["observed"] < few["unknowns"]
    # LayerNorm leaves 11 of 12 directions; [x, 1] has 12
    assert (enough["query_directions"], enough["key_directions"]) == (12, 11)
    assert enough["unknowns"] == 4 * (12 + 11 - 4) + 11 * 4 + 4
    assert enough["hidden"] == 13 + 11 + 4  # row shifts, queries that are not asked, a constant in OV
    assert enough["observed"] == 4 * enough["tokens"]
    assert enough["errors"]["held_out"] < 1e-6 and max(enough["errors"].values()) < 1e-4
    assert study.answer.startswith("Head 1 is found from 60 sentences:")
    study.save(tmp_path)
    assert Study.load(tmp_path).table == study.table
    assert write_study(tmp_path).name == "minilm-activations.png"


def test_refuses_more_sentences_than_the_text_has(text, bert_file):  # noqa: F811
    with pytest.raises(ValueError, match=r"70 sentences and 20 held out are wanted, the text has 80"):
        minilm_activations(Design(sentences=(70,), held_out=20), Bert(bert_file), text)


def test_studies_are_known_by_name():
    assert STUDIES["minilm-activations"] is minilm_activations
