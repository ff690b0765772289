r"""What the rows that are read ask and see: the part of the circuits that given inputs can touch at all.

A score is $[x_t, 1]\,\tilde\Theta\,x_j$ with $\tilde\Theta$ = [qk; query_bias]: only queries in the span of [x, 1] of
the asking tokens matter, against keys in the span of the seen tokens. Where weights sum to one and ignore a constant in
their row, of the keys only the span of differences of tokens that are seen together matters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

from attnlearn.layers.inputs import Inputs
from attnlearn.layers.slots import Slots

SPAN_TOLERANCE = 1e-10  # of the largest singular value of the tokens: what is smaller is rounding


class Types(NamedTuple):
    """Distinct asking tokens, with their 1, and distinct seen tokens; linearly independent each, so scores are free."""

    queries: Float[np.ndarray, "types d_plus_1"]
    keys: Float[np.ndarray, "types d"]


@dataclass(frozen=True)
class Support:
    """Orthonormal bases of what is asked and seen, with their complements.

    - `asked`, `unasked`: of the span of [x, 1] for asking tokens x, in $R^{d+1}$.
    - `keys`, `unseen`: of the span of the seen tokens, or of their differences where weights sum to one, in $R^d$.
    - `means`: the mean token seen by each row, read as the outputs are.
    - `counts`: the numbers of tokens that rows see.
    - `types`: where there are no more distinct tokens than scores can tell apart; `None` otherwise.
    """

    asked: Float[np.ndarray, "r d_plus_1"]
    unasked: Float[np.ndarray, "s d_plus_1"]
    keys: Float[np.ndarray, "p d"]
    unseen: Float[np.ndarray, "q d"]
    means: Float[np.ndarray, "rows d"]
    counts: tuple[int, ...]
    types: Types | None

    @classmethod
    def of(cls, slots: Slots, inputs: Inputs) -> "Support":
        """What `inputs` touch of a layer with these slots."""
        d = inputs.X.shape[-1]
        queries, keys, centred, means, counts = [], [], [], [], set()
        for part in _patterns(slots, inputs):
            asking, tokens, sees = part.tokens[:, part.asking], part.tokens, part.sees
            mean = (sees / sees.sum(axis=1, keepdims=True)) @ tokens
            means.append(mean.mean(axis=1) if inputs.rows == "mean" else mean.reshape(-1, d))
            queries.append(asking.reshape(-1, d))
            keys.append(tokens[:, sees.any(axis=0)].reshape(-1, d))
            centred += [(group - group.mean(axis=1, keepdims=True)).reshape(-1, d) for group in _together(part)]
            counts |= set(sees.sum(axis=1).tolist())
        asking, seen = np.concatenate(queries), np.concatenate(keys)
        asked, unasked = _asked(asking)
        size = np.linalg.norm(seen)
        basis, unseen = _span(np.concatenate(centred) if slots.simplex else seen, size)
        types = _types(asking, seen, (len(asked), len(basis) + slots.simplex))
        return cls(asked, unasked, basis, unseen, np.concatenate(means), tuple(sorted(counts)), types)


class _Part(NamedTuple):
    """Sequences in which the same positions are there: their tokens, who sees whom, and the positions that ask."""

    tokens: Float[np.ndarray, "n k d"]
    sees: Bool[np.ndarray, "r k"]
    asking: Int[np.ndarray, " r"]


def _patterns(slots: Slots, inputs: Inputs) -> Iterator[_Part]:
    X, k = np.asarray(inputs.X), inputs.X.shape[1]
    present = np.ones((1, k), bool) if inputs.present is None else np.asarray(inputs.present)
    patterns, which = np.unique(present, axis=0, return_inverse=True)
    which = np.broadcast_to(which.ravel(), len(X))
    for number, there in enumerate(patterns):
        one = Inputs(X[:1], there[None], inputs.rows)
        asking = np.asarray(one.last) if inputs.rows == "last" else np.flatnonzero(there)
        sees = np.asarray(one.visible(slots))[0]
        yield _Part(X[which == number], sees if inputs.rows == "last" else sees[asking], asking)


def _together(part: _Part) -> Iterator[Float[np.ndarray, "n g d"]]:
    """Tokens that rows compare with each other, directly or through a third."""
    links = part.sees.T.astype(int) @ part.sees
    _, labels = connected_components(links > 0, directed=False)
    for label in np.unique(labels[part.sees.any(axis=0)]):
        yield part.tokens[:, labels == label]


def _span(rows: Float[np.ndarray, "n d"], size: np.floating) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal bases of the span of `rows` and of its complement; `size` tells rounding from content."""
    triangle = np.linalg.qr(rows, mode="r")
    _, values, basis = np.linalg.svd(triangle, full_matrices=True)
    rank = int(np.sum(values > SPAN_TOLERANCE * max(size, np.finfo(float).tiny)))
    return basis[:rank], basis[rank:]


def _asked(asking: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray]:
    """Of [x, 1]: differences of tokens, then one token with its 1. Their sizes may differ by any factor."""
    point = asking.mean(axis=0)
    differences, _ = _span(asking - point, np.linalg.norm(asking))
    rows = np.concatenate([np.pad(differences, ((0, 0), (0, 1))), np.append(point, 1.0)[None]])
    _, _, basis = np.linalg.svd(rows, full_matrices=True)
    return basis[: len(rows)], basis[len(rows) :]


def _types(
    asking: Float[np.ndarray, "rows d"], seen: Float[np.ndarray, "tokens d"], dimensions: tuple[int, int]
) -> Types | None:
    """The distinct tokens where they are as many as the dimensions that they span."""
    found = []
    for tokens, dimension in zip((asking, seen), dimensions, strict=True):
        if len(np.unique(tokens[: 2 * dimension + 2], axis=0)) > dimension:
            return None
        distinct = np.unique(tokens, axis=0)
        if len(distinct) != dimension:
            return None
        found.append(distinct)
    return Types(np.pad(found[0], ((0, 0), (0, 1)), constant_values=1.0), found[1])
