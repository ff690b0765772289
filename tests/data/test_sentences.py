"""Real sentences and what each layer of an encoder sees of them."""

import numpy as np
import oracles as twins
import pytest

from attnlearn import Slots, pretrained
from attnlearn.data.bert import Bert
from attnlearn.data.sentences import activations, corpus, novels

ROUNDING = 1e-12  # two float64 evaluations of one formula in another order


def test_the_corpus_holds_whole_sentences():
    sentences = corpus()
    assert 60 <= len(sentences) <= 100 and len(set(sentences)) == len(sentences)
    assert all(sentence.rstrip('"')[-1] in ".?!" for sentence in sentences)
    assert sentences[0].startswith("Four score and seven years ago")


def test_layer_0_sees_normed_embeddings(bert_file, tensors):
    (X,), (tokens,) = activations(["A cat sat"], 0, Bert(bert_file))
    assert tokens == ["[CLS]", "a", "cat", "sat", "[SEP]"]
    norm = [tensors[f"embeddings.LayerNorm.{part}"] for part in ("weight", "bias")]
    for place, word in enumerate([0, 3, 4, 5, 1]):
        row = tensors["embeddings.word_embeddings.weight"][word]
        row = row + tensors["embeddings.position_embeddings.weight"][place]
        row = row + tensors["embeddings.token_type_embeddings.weight"][0]
        np.testing.assert_allclose(X[place], twins.layer_norm(row, *norm, 1e-5), rtol=0, atol=ROUNDING)


def test_layer_1_sees_what_layer_0_makes(bert_file, tensors):
    sentences = ["A cat sat", "cat", "dog"]
    below, _ = activations(sentences, 0, Bert(bert_file))
    above, tokens = activations(sentences, 1, Bert(bert_file))
    assert [len(words) for words in tokens] == [len(X) for X in above] == [5, 3, 3] and tokens[2][1] == "[UNK]"
    for X, Y in zip(below, above, strict=True):
        expected = twins.bert_block(tensors, 0, 3, Slots(), X, 1e-5)
        np.testing.assert_allclose(Y, expected, rtol=0, atol=ROUNDING)


def test_a_sentence_longer_than_the_positions_is_cut(bert_file):
    (X,), (tokens,) = activations(["a cat " * 9], 0, Bert(bert_file))
    assert len(X) == len(tokens) == 7 and tokens[-1] == "[SEP]"


def test_minilm_sees_word_pieces():
    (X,), (tokens,) = activations(["Alice was beginning to get very tired."], 2)
    assert tokens == ["[CLS]", "alice", "was", "beginning", "to", "get", "very", "tired", ".", "[SEP]"]
    assert X.shape == (10, 384) and 0.1 < X.std() < 1.0


def test_a_pretrained_oracle_brings_its_sentences(bert_file):
    oracle = pretrained(bert_file, layer=1)
    assert len(oracle.activations) == len(oracle.tokens) == 7
    assert all(X.shape == (len(words), 12) for X, words in zip(oracle.activations, oracle.tokens, strict=True))
    assert oracle.activations is oracle.activations  # computed once
    assert oracle.ledger.calls == 0
    assert oracle.ask(oracle.activations[0][None]).shape == (1, len(oracle.tokens[0]), 12)


def test_refuses_a_layer_that_the_model_has_not(bert_file):
    with pytest.raises(ValueError, match=r"layer must be from 0 to 1.*, got 2"):
        activations(["a"], 2, Bert(bert_file))


def test_refuses_a_model_without_a_tokenizer(bert_file):
    bert_file.with_name("tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no readable tokenizer"):
        activations(["a"], 0, Bert(bert_file))


def test_the_novels_hold_whole_sentences_that_the_corpus_has_not():
    sentences = novels()
    assert len(sentences) == len(set(sentences)) == 600 and not set(sentences) & set(corpus())
    assert all(sentence.rstrip('"')[-1] in ".?!" for sentence in sentences)
    _, tokens = activations(sentences[::20], 0)
    assert all(10 <= len(words) <= 20 and "[UNK]" not in words for words in tokens)


def test_the_heads_of_a_layer_side_by_side_are_what_its_output_matrix_gets(bert_file):
    attention = Bert(bert_file).attention(0)
    (X,), _ = activations(["a cat sat"], 0, Bert(bert_file))
    mixed = np.concatenate([attention.head(h)(X[None])[0] for h in range(attention.heads)], axis=-1)
    expected = attention(X[None])[0]
    np.testing.assert_allclose(mixed @ attention.output + attention.output_bias, expected, rtol=0, atol=ROUNDING)
