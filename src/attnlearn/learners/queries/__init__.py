"""Learning a layer from chosen questions to a black box."""

from attnlearn.learners.queries.learner import MultiHeadQueries

__all__ = ["MultiHeadQueries"]
