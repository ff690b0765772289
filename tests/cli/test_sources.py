"""Words to black boxes."""

import sys

import numpy as np
import pytest

import attnlearn as al
from attnlearn.cli.sources import named_values, open_layer, open_learner, open_source
from attnlearn.learners import MultiHeadQueries


@pytest.fixture
def box(tmp_path, monkeypatch):
    (tmp_path / "mybox.py").write_text("import numpy as np\n\ndef double(X):\n    return 2 * X\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield "mybox:double"
    sys.modules.pop("mybox", None)


def test_a_saved_layer_is_a_black_box_with_its_own_slots(tmp_path):
    layer = al.random_layer(0, heads=1, width=3)
    causal = al.AttentionLayer(layer.qk, layer.ov, slots=al.Slots(mask=al.Causal()))
    causal.save(tmp_path / "layer.safetensors")
    oracle, slots = open_source(str(tmp_path / "layer.safetensors"), None, False, {"max_queries": 5})
    X = np.ones((1, 2, 3))
    assert slots == al.Slots(mask=al.Causal())
    assert oracle.max_queries == 5
    assert oracle.ask(X) == pytest.approx(causal(X), rel=1e-12)


def test_a_function_is_found_in_the_working_directory(box):
    oracle, slots = open_source(box, 3, False, {})
    assert slots is None
    assert np.array_equal(oracle.ask(np.ones((1, 2, 3))), np.full((1, 2, 3), 2.0))


def test_a_file_of_examples_is_examples(tmp_path):
    for name in ("data.npz", "data.safetensors", "data"):
        al.Examples(np.ones((2, 3, 4)), np.ones((2, 5)), rows="mean").save(tmp_path / name)
        examples, slots = open_source(str(tmp_path / name), None, True, {})
        assert isinstance(examples, al.Examples)
        assert (examples.rows, slots) == ("mean", al.Slots(mask=al.Causal()))


def test_causal_is_passed_on_for_a_function(box):
    assert open_source(box, 3, True, {})[1] == al.Slots(mask=al.Causal())


def test_a_function_without_a_width_is_refused(box):
    with pytest.raises(ValueError, match="width"):
        open_source(box, None, False, {})


def test_minilm_is_a_black_box_and_a_layer_of_known_weights():
    oracle, _ = open_source("minilm:3", None, True, {})
    assert oracle.width == 384
    assert open_layer("minilm:3").heads == 12


def test_a_learner_is_made_from_its_name_and_fields():
    assert open_learner("MultiHeadQueries", {"head_dim": 3}) == MultiHeadQueries(head_dim=3)
    with pytest.raises(ValueError, match=r"unknown learner 'Nosuch'. Wanted: auto, .*MultiHeadQueries"):
        open_learner("Nosuch", {})
    with pytest.raises(ValueError, match="MultiHeadQueries cannot be made with colour: it takes heads, head_dim"):
        open_learner("MultiHeadQueries", {"colour": 1})


def test_options_are_read_as_json_or_as_words():
    words = ["economy=true", "logit_range=[2, 6]", "amplitude=1e3", "name=a=b"]
    assert named_values(words) == {"economy": True, "logit_range": [2, 6], "amplitude": 1000.0, "name": "a=b"}
