"""Slots by name, for grids of parameters and for text."""

from typing import Any

from attnlearn.layers.slots import Causal, Erf, Linear, ReLU, Sigmoid, Slots, Softmax

NAMED = {
    f"{words}{type(normaliser).__name__.lower()}": Slots(normaliser, mask)
    for normaliser in (Softmax(), Sigmoid(), ReLU(), Linear(), Erf())
    for words, mask in (("", None), ("causal ", Causal()))
}


def as_slots(given: Any) -> Slots | tuple[Slots, ...] | str:
    """Slots as a learner takes them: a value, a name, a tuple or list of these as candidates, or "auto".

    **Raises:** `ValueError` for an unknown name, `TypeError` for anything else.
    """
    if isinstance(given, Slots) or (isinstance(given, str) and given == "auto"):
        return given
    if isinstance(given, list | tuple) and given:
        return tuple(_one(candidate) for candidate in given)
    return _one(given)


def _one(given: Any) -> Slots:
    if isinstance(given, Slots):
        return given
    if not isinstance(given, str):
        raise TypeError(f"slots must be Slots, a name, candidates in a tuple, or 'auto', got {given!r}")
    if given not in NAMED:
        raise ValueError(f"unknown slots {given!r}; names are 'auto', {', '.join(map(repr, NAMED))}")
    return NAMED[given]
