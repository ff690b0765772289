"""Learning from examples by least squares: variable projection with a matrix-free Levenberg–Marquardt."""

from attnlearn.learners.least_squares.learner import VariableProjection

__all__ = ["VariableProjection"]
