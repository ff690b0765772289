"""Slots have names for grids and text."""

import pytest

import attnlearn as al
from attnlearn.estimators.named_slots import NAMED, as_slots


def test_names_say_normaliser_and_mask():
    assert as_slots("softmax") == al.Slots()
    assert as_slots("causal relu") == al.Slots(al.ReLU(), al.Causal())
    assert len(NAMED) == 10


@pytest.mark.parametrize("given", [al.Slots(al.Erf(), al.Window(3)), "auto"], ids=["value", "auto"])
def test_values_and_auto_pass_through(given):
    assert as_slots(given) is given


def test_candidates_may_be_names_and_values():
    window = al.Slots(mask=al.Window(2))
    assert as_slots(["causal softmax", window]) == (al.Slots(mask=al.Causal()), window)


@pytest.mark.parametrize("given", ["soft max", ("softmax", "max"), ("softmax", "auto")])
def test_unknown_names_are_refused_with_the_known_ones(given):
    with pytest.raises(ValueError, match="unknown slots .* names are 'auto', 'softmax', 'causal softmax'"):
        as_slots(given)


@pytest.mark.parametrize("given", [None, al.Softmax(), ()])
def test_other_values_are_refused(given):
    with pytest.raises(TypeError, match="slots must be Slots, a name, candidates in a tuple, or 'auto'"):
        as_slots(given)
