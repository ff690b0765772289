"""The layer and its slots, its symmetries, and the distance of two layers."""

from attnlearn.layers.attention import AttentionLayer, random_layer
from attnlearn.layers.factored import Factored
from attnlearn.layers.matching import Distance, HeadDistance, distance
from attnlearn.layers.pooling import attention_pooling
from attnlearn.layers.slots import (
    AbstractElementwise,
    AbstractMask,
    AbstractNormaliser,
    Causal,
    Erf,
    Linear,
    ReLU,
    Sigmoid,
    Slots,
    Softmax,
    Symmetry,
    Window,
)
from attnlearn.layers.symmetries import canonical, constant_direction, gauge_dimension, random_gauge
from attnlearn.layers.weights import Projections

__all__ = [
    "AbstractElementwise",
    "AbstractMask",
    "AbstractNormaliser",
    "AttentionLayer",
    "Causal",
    "Distance",
    "Erf",
    "Factored",
    "HeadDistance",
    "Linear",
    "Projections",
    "ReLU",
    "Sigmoid",
    "Slots",
    "Softmax",
    "Symmetry",
    "Window",
    "attention_pooling",
    "canonical",
    "constant_direction",
    "distance",
    "gauge_dimension",
    "random_gauge",
    "random_layer",
]
