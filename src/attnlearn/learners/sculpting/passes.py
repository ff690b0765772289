"""Passes over all examples, a chunk at a time: each result is a pure function of a chunk, and results add up."""

from concurrent.futures import Executor
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.data.examples import Examples
from attnlearn.learners._blas import one_blas_thread
from attnlearn.learners._chunks import over_chunks
from attnlearn.learners.sculpting.certificates import WIDEST, Edges, edges
from attnlearn.learners.sculpting.crude import Moments, moments
from attnlearn.learners.sculpting.ov_sum import Sample
from attnlearn.learners.sculpting.tokens import AbstractTokens

ACCEPTED = 0.1  # residual in the metric below which a row counts as an accepted edge
CHUNK_SCALARS = 2**19  # entries of the tokens in a chunk, by default: an executor holds 64 chunks


class Passes:
    """The examples, in chunks of so many sequences, on this machine or on an executor's workers."""

    def __init__(self, examples: Examples, tokens: AbstractTokens, chunk: int | None, executor: Executor | None):
        n, k, d = examples.X.shape
        self.examples, self.tokens, self._executor = examples, tokens, executor
        self._chunk = chunk or max(1, min(n, CHUNK_SCALARS // (k * d)))

    def moments(self) -> Moments:
        """The sums of phase (i), after a look at every token."""
        return self._sum("crude sums", partial(_moments, self.tokens))

    def certificates(
        self, inverse: Float[np.ndarray, "o d"], metric: Float[np.ndarray, "d d"], error: float, most: int
    ) -> "Certificates":
        """The `most` edges of least slack of all rows."""
        return self._sum("certificates", partial(_certificates, self.tokens, (inverse, metric, error, most)))

    def sample(self, sequences: int) -> Sample:
        """The first examples, in memory."""
        part = next(iter(self.examples.chunks(sequences)))
        return Sample(part.X, part.Y)

    def _sum(self, name, work):
        chunks = ((part.X, part.Y) for part in self.examples.chunks(self._chunk))
        total = -(-len(self.examples) // self._chunk)
        return reduce(lambda sums, part: sums.plus(part), over_chunks(chunks, work, self._executor, (name, total)))


class Certificates(NamedTuple):
    """The edges of least slack, how many rows were looked at, and how many had an edge with a small residual."""

    edges: Edges
    rows: int
    accepted: int
    error: float
    most: int

    def plus(self, other: "Certificates") -> "Certificates":
        """The best edges of both."""
        both = Edges.joined([self.edges, other.edges])
        best = _least(both, self.error, self.most)
        return Certificates(best, self.rows + other.rows, self.accepted + other.accepted, self.error, self.most)


def _moments(tokens: AbstractTokens, chunk: tuple[np.ndarray, np.ndarray]) -> Moments:
    X, Y = chunk
    tokens.refuse(X)
    with one_blas_thread():  # in a worker too
        return moments(X, Y)


def _certificates(
    tokens: AbstractTokens, arguments: tuple[np.ndarray, np.ndarray, float, int], chunk: tuple[np.ndarray, np.ndarray]
) -> Certificates:
    (inverse, metric, error, most), (X, Y) = arguments, chunk
    with one_blas_thread():
        found = edges(Y @ inverse, X, tokens, metric)
    accepted = int((found.residual < ACCEPTED).sum())
    return Certificates(_least(found, error, most), X.shape[0] * X.shape[1], accepted, error, most)


def _least(found: Edges, error: float, most: int) -> Edges:
    found = found.take(np.flatnonzero(found.residual < WIDEST))
    if len(found.u) <= most:
        return found
    order = np.argpartition(found.slack(error), most)[:most]
    return found.take(np.sort(order))
