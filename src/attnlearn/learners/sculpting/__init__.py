"""Sculpting: a layer from random examples by carving the affine hull of its attention matrices."""

from attnlearn.learners.sculpting.learner import Sculpting
from attnlearn.learners.sculpting.polish import LeastSquares
from attnlearn.learners.sculpting.sharpen import Sharpening

__all__ = ["LeastSquares", "Sculpting", "Sharpening"]
