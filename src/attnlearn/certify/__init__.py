"""What can be proved or bounded about a layer, whoever made it."""

from attnlearn.certify.fresh_queries import FreshQueryOptions, Kind, fresh_queries
from attnlearn.certify.identifiability import Direction, Identifiability, identifiability

__all__ = ["Direction", "FreshQueryOptions", "Identifiability", "Kind", "fresh_queries", "identifiability"]
