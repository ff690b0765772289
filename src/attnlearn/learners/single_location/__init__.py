"""Single-location regression from samples: where the informative token is, and what it says."""

from attnlearn.learners.single_location.learner import LocatedToken, SingleLocationEM

__all__ = ["LocatedToken", "SingleLocationEM"]
