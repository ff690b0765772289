"""Hidden states of many sentences, first token and mean, by two programs."""

import builtins

import numpy as np
import oracles as twins
import pytest
from data.conftest import HEADS, LAYERS, WIDTH

from attnlearn import Slots
from attnlearn._progress import listening
from attnlearn.data.bert import Bert
from attnlearn.data.hidden_states import hidden_states, transformers_encoder
from attnlearn.data.minilm import minilm_file
from attnlearn.data.sentences import BATCH, activations, word_pieces

ROUNDING = 1e-12  # two float64 evaluations of one formula in another order
SINGLE = 1e-5  # of float32 in states of size 10 whose parts went through six layers: measured 3e-6
SENTENCES = [
    "The city is dirty. our red cow is extremely delightful",
    "Hello, how are you? Good evening, their purple cat is lovely",
]
# First three entries of states 0 to 6 of SENTENCES[0], first token and mean: transformers 5.23.0, torch 2.13.0, float32
FIRST = [
    [-0.176567, -0.048236, 0.037698],
    [-0.002334, -0.018508, -0.016444],
    [-0.041876, 0.011329, -0.014102],
    [-0.018551, -0.012519, -0.014086],
    [-0.002681, 0.002139, -0.010806],
    [-0.021981, 0.013638, 0.005683],
    [-0.018618, -0.47435, 0.382389],
]
MEAN = [
    [0.012695, 0.025791, -0.070199],
    [0.011147, -0.011044, 0.005558],
    [0.168484, -0.024809, -0.11511],
    [0.258452, -0.069483, -0.116154],
    [0.349089, -0.188815, 0.05561],
    [0.232826, 0.022676, 0.120433],
    [0.286431, -0.285028, 0.468782],
]


def test_every_state_is_that_of_the_definition(bert_file, tensors):
    sentences, model = ["A cat sat", "cat", "sat a", "a dog"], Bert(bert_file)
    found = hidden_states(sentences, model)
    assert found.first.shape == found.mean.shape == (4, 1 + LAYERS, WIDTH)
    embedded, _ = activations(sentences, 0, model)
    for number, X in enumerate(embedded):
        for state in range(1 + LAYERS):
            np.testing.assert_allclose(found.first[number, state], X[0], rtol=0, atol=ROUNDING)
            np.testing.assert_allclose(found.mean[number, state], np.mean(X, axis=0), rtol=0, atol=ROUNDING)
            if state < LAYERS:
                X = twins.bert_block(tensors, state, HEADS, Slots(), X, 1e-5)


def test_many_sentences_keep_their_order_and_see_nothing_of_each_other(bert_file, key):
    model = Bert(bert_file)
    sentences = [" ".join(key.choice(["a", "cat", "sat"], size)) for size in key.integers(1, 4, 4 * BATCH)]
    assert {len(one.ids) for one in word_pieces(sentences, model)} == {3, 4, 5}
    found = hidden_states(sentences, model)
    for number in (0, 1, BATCH, 4 * BATCH - 1):
        alone = hidden_states([sentences[number]], model)
        for all_, one in zip(found, alone, strict=True):
            np.testing.assert_allclose(all_[number], one[0], rtol=0, atol=ROUNDING)


def test_tells_how_many_sentences_are_done(bert_file):
    told = []
    with listening(lambda *step: told.append(step)):
        hidden_states(["a", "a cat"] * (BATCH + 1), Bert(bert_file))
    total = 2 * (BATCH + 1)
    done = (0, BATCH, BATCH + 1, 2 * BATCH + 1, total)
    assert told == [("embed", number, total) for number in done]


def test_a_model_in_float32_computes_in_float32(bert_file):
    single = hidden_states(["A cat sat"], Bert(bert_file, dtype="float32"))
    double = hidden_states(["A cat sat"], Bert(bert_file))
    for few, many in zip(single, double, strict=True):
        assert few.dtype == np.float32 and many.dtype == np.float64
        assert 1e-9 < np.abs(few - many).max() < SINGLE


def test_minilm_is_what_transformers_computes():
    found = hidden_states(SENTENCES)
    assert found.first.shape == (2, 7, 384)
    np.testing.assert_allclose(found.first[0, :, :3], FIRST, rtol=0, atol=SINGLE)
    np.testing.assert_allclose(found.mean[0, :, :3], MEAN, rtol=0, atol=SINGLE)


@pytest.mark.slow  # torch takes seconds to import
def test_transformers_agrees_in_every_entry():
    pytest.importorskip("torch", reason="torch is an extra: pip install 'attnlearn[torch]'")
    pytest.importorskip("transformers", reason="transformers goes with torch")
    path = minilm_file()
    for ours, theirs in zip(
        hidden_states(SENTENCES), hidden_states(SENTENCES, encoder=transformers_encoder(path.parent)), strict=True
    ):
        assert theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=SINGLE)


def test_names_the_extra_where_transformers_is_missing(monkeypatch, tmp_path):
    real = builtins.__import__

    def without_transformers(name, *args, **kwargs):
        if name in ("torch", "transformers"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_transformers)
    with pytest.raises(ImportError, match=r"torch or transformers is not installed.*pip install 'attnlearn\[torch\]'"):
        transformers_encoder(tmp_path)


def test_refuses_no_sentences(bert_file):
    with pytest.raises(ValueError, match="at least one sentence, got none"):
        hidden_states([], Bert(bert_file))


def test_refuses_another_precision(bert_file):
    with pytest.raises(ValueError, match="dtype must be 'float64' or 'float32', got 'float16'"):
        Bert(bert_file, dtype="float16")


def test_one_string_is_not_a_list_of_sentences():
    with pytest.raises(TypeError, match="wants a list of sentences, got one string: give"):
        hidden_states("The city is nice.")
