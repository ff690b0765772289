"""Closed forms: what can be said about learning attention with paper and pencil."""

from attnlearn.theory.hardness import (
    examples_to_see,
    examples_to_tell_apart,
    generic_size,
    hidden_decay,
    hidden_size,
    queries_to_find,
)

__all__ = [
    "examples_to_see",
    "examples_to_tell_apart",
    "generic_size",
    "hidden_decay",
    "hidden_size",
    "queries_to_find",
]
