"""Sentences whose label is the sign of one adjective, from words in slots, after Marion, Berthier, Biau and Boyer.

Every set holds one sentence for each choice of a word in every slot. The words are those of the public notebook of
[@marion2025]; its sets test_a and test_b are the same.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

SIGNS = {
    **{"nice": 1, "mean": -1, "cute": 1, "dreadful": -1, "aggressive": -1, "delightful": 1},
    **{"lovely": 1, "nasty": -1, "charming": 1, "foul": -1},
}
_CITY, _DISTRACTOR = ("The city is",), ("nice.", "dreadful.", "clean.", "dirty.")  # no part of the label
_HELLO, _EVENING, _IS = ("Hello, how are you?",), ("Good evening,",), ("is",)
_OWNER, _OWNER_2 = ("my", "his", "her", "our"), ("their", "your")
_COLOUR, _COLOUR_2 = ("", "blue", "orange", "beige", "green", "red"), ("purple", "gray")
_ANIMAL, _ANIMAL_2 = ("dog", "owl", "cow"), ("cat", "eagle", "goat")
_ADVERB, _ADVERB_2 = ("", "very", "extremely"), ("", "especially")
_SIZE, _SIZE_2 = ("tiny", "giant"), ("big", "little", "mini", "enormous")
_ADJECTIVE, _ADJECTIVE_2 = tuple(SIGNS)[:6], tuple(SIGNS)[6:]


@dataclass(frozen=True)
class SentenceSet:
    """All choices of one word in every slot, the last slot fastest; the empty word leaves no blank."""

    name: str
    group: str
    slots: tuple[tuple[str, ...], ...]

    def sentences(self) -> list[str]:
        """Every sentence of the set, its words joined by one blank."""
        return [" ".join(filter(None, words)) for words in itertools.product(*self.slots)]

    def labels(self) -> np.ndarray:
        """The label of every sentence, 1 or -1: the product of the signs of its words, 1 for all but adjectives."""
        return np.array([math.prod(SIGNS.get(word, 1) for word in words) for words in itertools.product(*self.slots)])


_OPENING = (_CITY, _DISTRACTOR)
_TEST = (*_OPENING, _OWNER_2, _COLOUR_2, _ADJECTIVE, _ANIMAL_2, _IS, _ADVERB_2, _SIZE_2)

PUBLISHED_SETS = (
    SentenceSet("train_a", "train", (*_OPENING, _OWNER, _COLOUR, _ANIMAL, _IS, _ADVERB, _ADJECTIVE)),
    SentenceSet("train_b", "train", (*_OPENING, _OWNER, _COLOUR, _ADJECTIVE, _ANIMAL, _IS, _ADVERB, _SIZE)),
    SentenceSet("test_a", "test", _TEST),
    SentenceSet("test_b", "test", _TEST),
    SentenceSet(
        "test_c",
        "ood_tokens",
        (*_OPENING, _EVENING, _OWNER_2, _SIZE_2, _COLOUR_2, _ANIMAL_2, _IS, _ADVERB_2, _ADJECTIVE_2),
    ),
    SentenceSet(
        "test_d",
        "ood_tokens",
        (*_OPENING, _EVENING, _OWNER_2, _ADJECTIVE_2, _COLOUR_2, _ANIMAL_2, _IS, _ADVERB_2, _SIZE_2),
    ),
    SentenceSet(
        "test_e",
        "ood_structure",
        (_HELLO, _EVENING, _OWNER_2, _COLOUR_2, _ANIMAL_2, _IS, _ADVERB_2, _ADJECTIVE),
    ),
    SentenceSet(
        "test_f",
        "ood_structure_tokens",
        (_HELLO, _EVENING, _OWNER_2, _COLOUR_2, _ANIMAL_2, _IS, _ADVERB_2, _ADJECTIVE_2),
    ),
)
ADJECTIVE_LAST = SentenceSet(  # the other order of words that test_b is said to have: that of train_a
    "adjective_last", "adjective_last", (*_OPENING, _OWNER_2, _COLOUR_2, _ANIMAL_2, _IS, _ADVERB_2, _ADJECTIVE)
)
