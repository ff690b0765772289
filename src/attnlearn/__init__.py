"""Learns attention layers from queries and examples, and says how far to trust the answer."""

import importlib
import importlib.metadata
from types import ModuleType
from typing import TYPE_CHECKING

from attnlearn import learners
from attnlearn._status import Status
from attnlearn.certify import identifiability
from attnlearn.data import Examples, QueryOracle, oracles, pretrained
from attnlearn.layers import (
    AttentionLayer,
    Causal,
    Erf,
    Factored,
    Linear,
    ReLU,
    Sigmoid,
    Slots,
    Softmax,
    Window,
    canonical,
    distance,
    random_layer,
)
from attnlearn.recovery import Recovery, recover

if TYPE_CHECKING:
    from attnlearn import estimators

__version__ = importlib.metadata.version("attnlearn")

__all__ = [
    "AttentionLayer",
    "Causal",
    "Erf",
    "Examples",
    "Factored",
    "Linear",
    "QueryOracle",
    "ReLU",
    "Recovery",
    "Sigmoid",
    "Slots",
    "Softmax",
    "Status",
    "Window",
    "__version__",
    "canonical",
    "distance",
    "estimators",
    "identifiability",
    "learners",
    "oracles",
    "pretrained",
    "random_layer",
    "recover",
]


def __getattr__(name: str) -> ModuleType:
    """`estimators` on first use: scikit-learn takes half a second to import."""
    if name == "estimators":
        return importlib.import_module("attnlearn.estimators")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
