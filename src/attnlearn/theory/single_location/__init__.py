"""Single-location regression [@marion2025]: exact risks, exact dynamics of training, what a predictor can reach."""

from attnlearn.theory.single_location.descent import descend
from attnlearn.theory.single_location.manifold import flow, rates, saddle, separatrix
from attnlearn.theory.single_location.overlaps import (
    OrderParameters,
    basins,
    embed,
    manifold_starts,
    overlaps,
    sphere_starts,
)
from attnlearn.theory.single_location.owen import owens_t, zeta
from attnlearn.theory.single_location.predictors import (
    erf_risk,
    gate_risk,
    linear_attention_risk,
    linear_risk,
    oracle_risk,
)
from attnlearn.theory.single_location.risk import gradient, risk
from attnlearn.theory.single_location.sgd import sgd
from attnlearn.theory.single_location.sharpness import sharpness
from attnlearn.theory.single_location.simulated import bayes_risk, softmax_risk
from attnlearn.theory.single_location.swapped import (
    clipped_below,
    crossover,
    lowest_swapped,
    oracle_stable_below,
    swapped_point,
)
from attnlearn.theory.single_location.trajectory import EdgeOfStability, Trajectory, inverse_time

__all__ = [
    "EdgeOfStability",
    "OrderParameters",
    "Trajectory",
    "basins",
    "bayes_risk",
    "clipped_below",
    "crossover",
    "descend",
    "embed",
    "erf_risk",
    "flow",
    "gate_risk",
    "gradient",
    "inverse_time",
    "linear_attention_risk",
    "linear_risk",
    "lowest_swapped",
    "manifold_starts",
    "oracle_risk",
    "oracle_stable_below",
    "overlaps",
    "owens_t",
    "rates",
    "risk",
    "saddle",
    "separatrix",
    "sgd",
    "sharpness",
    "softmax_risk",
    "sphere_starts",
    "swapped_point",
    "zeta",
]
