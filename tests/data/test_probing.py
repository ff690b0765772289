"""Sentences whose label is the sign of one adjective."""

import json
from pathlib import Path

import numpy as np
import pytest

from attnlearn.data.probing import ADJECTIVE_LAST, PUBLISHED_SETS, SIGNS, SentenceSet

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "single-location.json").read_text())["entries"]
COUNTS = {entry["id"].split()[1]: entry["value"] for entry in GOLDEN if entry["id"].startswith("probe_count")}
BY_NAME = {one.name: one for one in PUBLISHED_SETS}
EVERY = pytest.mark.parametrize("one", [*PUBLISHED_SETS, ADJECTIVE_LAST], ids=lambda one: one.name)
ENDS = {  # first and last sentence, written out from the table of the slots
    "train_a": ("The city is nice. my dog is nice", "The city is dirty. our red cow is extremely delightful"),
    "train_b": (
        "The city is nice. my nice dog is tiny",
        "The city is dirty. our red delightful cow is extremely giant",
    ),
    "test_a": (
        "The city is nice. their purple nice cat is big",
        "The city is dirty. your gray delightful goat is especially enormous",
    ),
    "test_c": (
        "The city is nice. Good evening, their big purple cat is lovely",
        "The city is dirty. Good evening, your enormous gray goat is especially foul",
    ),
    "test_d": (
        "The city is nice. Good evening, their lovely purple cat is big",
        "The city is dirty. Good evening, your foul gray goat is especially enormous",
    ),
    "test_e": (
        "Hello, how are you? Good evening, their purple cat is nice",
        "Hello, how are you? Good evening, your gray goat is especially delightful",
    ),
    "test_f": (
        "Hello, how are you? Good evening, their purple cat is lovely",
        "Hello, how are you? Good evening, your gray goat is especially foul",
    ),
    "adjective_last": (
        "The city is nice. their purple cat is nice",
        "The city is dirty. your gray goat is especially delightful",
    ),
}


def test_every_published_set_has_its_number_of_sentences():
    assert {one.name: len(one.sentences()) for one in PUBLISHED_SETS} == COUNTS
    assert len(ADJECTIVE_LAST.sentences()) == 4 * 2 * 2 * 3 * 2 * 6


@EVERY
def test_every_set_is_balanced_and_holds_no_sentence_twice(one):
    assert one.labels().sum() == 0 and set(one.labels()) == {-1, 1}
    assert len(one.labels()) == len(one.sentences()) == len(set(one.sentences()))


@EVERY
def test_words_are_joined_by_one_blank(one):
    assert all("  " not in sentence and sentence == sentence.strip() for sentence in one.sentences())


@pytest.mark.parametrize("name", ENDS)
def test_first_and_last_sentence_of_every_set(name):
    one = BY_NAME.get(name, ADJECTIVE_LAST)
    assert (one.sentences()[0], one.sentences()[-1]) == ENDS[name]


def test_the_last_slot_changes_fastest():
    last = [sentence.split()[-1] for sentence in BY_NAME["train_a"].sentences()[:7]]
    assert last == ["nice", "mean", "cute", "dreadful", "aggressive", "delightful", "nice"]


def test_two_published_sets_are_the_same_and_no_others_overlap():
    assert BY_NAME["test_a"].sentences() == BY_NAME["test_b"].sentences()
    test = [sentence for one in PUBLISHED_SETS if one.group != "train" for sentence in one.sentences()]
    train = [sentence for one in PUBLISHED_SETS if one.group == "train" for sentence in one.sentences()]
    assert (len(test), len(set(test)), len(set(train))) == (7920, 5616, 15_552)
    assert not set(train) & set(test)
    assert not set(ADJECTIVE_LAST.sentences()) & {*train, *test}


def test_the_label_is_the_sign_of_the_one_adjective_and_not_of_the_city():
    for one in PUBLISHED_SETS:
        for sentence, label in zip(one.sentences(), one.labels(), strict=True):
            (adjective,) = [word for word in sentence.split() if word in SIGNS]  # the city's adjective has a full stop
            assert label == SIGNS[adjective]


def test_signs_of_several_adjectives_are_multiplied():
    two = SentenceSet("two", "test", (("nice", "mean"), ("", "foul")))
    assert two.sentences() == ["nice", "nice foul", "mean", "mean foul"]
    np.testing.assert_array_equal(two.labels(), [1, -1, -1, 1])
