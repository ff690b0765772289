"""Learners: each recovers a layer from a source and never sees the target."""

from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.learners.gradient import GradientDescent
from attnlearn.learners.least_squares import VariableProjection
from attnlearn.learners.queries import MultiHeadQueries
from attnlearn.learners.sculpting import LeastSquares, Sculpting, Sharpening
from attnlearn.learners.single_location import LocatedToken, SingleLocationEM

__all__ = [
    "AbstractLearner",
    "GradientDescent",
    "Learned",
    "LeastSquares",
    "LocatedToken",
    "MultiHeadQueries",
    "Sculpting",
    "Sharpening",
    "SingleLocationEM",
    "VariableProjection",
]
