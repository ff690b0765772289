"""Learns attention layers from queries and examples, and says how far to trust the answer."""

import importlib.metadata

from attnlearn import learners
from attnlearn._status import Status
from attnlearn.certify import identifiability
from attnlearn.data import QueryOracle, oracles, pretrained
from attnlearn.layers import AttentionLayer, Causal, Factored, Slots, Softmax, canonical, distance, random_layer
from attnlearn.recovery import Recovery, recover

__version__ = importlib.metadata.version("attnlearn")

__all__ = [
    "AttentionLayer",
    "Causal",
    "Factored",
    "QueryOracle",
    "Recovery",
    "Slots",
    "Softmax",
    "Status",
    "__version__",
    "canonical",
    "distance",
    "identifiability",
    "learners",
    "oracles",
    "pretrained",
    "random_layer",
    "recover",
]
