r"""Stage 1: offset and sum of the OV circuits from one-token sequences, and whether the box is an attention layer.

One token attends to itself alone, so $F([x]) = c + x^T W_\Sigma$: $d + 1$ questions, and eight that test the box.
"""

from dataclasses import replace

import numpy as np

from attnlearn._status import Status, Stop
from attnlearn.learners.queries.probing import Affine, Box, largest, orthogonal_rows

REPEATS = 256  # averages of c under noise: c is then known to noise / 16
ROUGHEST = 1e-3  # relative rounding of half precision: a misfit below it may be rounding


def learn_affine(box: Box, key: np.random.Generator) -> Affine:
    r"""Returns $c$ and $W_\Sigma$; stops with `NOT_ATTENTION` or `OV_DEGENERATE` where the answers show it."""
    d = box.width
    zeros = np.zeros((REPEATS if box.noise else 1, 1, d))
    offset = box.ask(zeros)[:, 0].mean(0)
    questions = 4 * box.scale * box.amplitude * orthogonal_rows(key, d, d)
    questions = box.rounded(questions)
    answers = box.ask(questions[:, None])[:, 0] - offset
    affine = Affine(offset, np.linalg.solve(questions, answers))
    return replace(affine, causal=_sees_causally(box, affine, key))


def _sees_causally(box: Box, affine: Affine, key: np.random.Generator) -> bool:
    """Whether the first token of three sees itself alone; on the way, what every layer of the family satisfies.

    Eight questions: one-token answers are affine, tokens before the last may trade places, a repeated token changes
    nothing, some token moves the answer to another, and it and its mirror image together move it by their full
    values. One of them is a repetition.
    """
    x, a, b = box.scale * key.standard_normal((3, box.width))
    # A short token asks softly: it sees itself alone only where a mask hides the others.
    x, a, b, far = box.rounded(np.stack([x, a / 100, b, 10 * a]))
    long = box.rounded(np.array([x * 3.0, a + b]))
    single = box.ask(long[:, None])[:, 0]
    three = box.ask(np.array([[a, b, x], [b, a, x]]))
    box.oracle.check_repeat()
    twice, plus, minus = box.ask(np.array([[x, x], [x + far, x], [x - far, x]]))[:, -1] - affine.of(x[None])
    size = max(largest(single), largest(affine.offset), largest(affine.ov_sum) * box.scale)
    # Errors of ov_sum add up over d entries; sqrt(d) of them in the mean, 100 times that is a safe bound.
    limit = 100 * np.sqrt(box.width) * (box.oracle.epsilon * size + box.noise) + 1e-300

    misfit = largest(single - affine.of(long))
    if misfit > limit:
        cause = "A normalisation, a nonlinearity or a feed-forward part is inside the box."
        if misfit < ROUGHEST * size:
            cause += " If it only computes in a lower precision, declare dtype='float32', or the noise."
        raise Stop(
            Status.NOT_ATTENTION,
            f"One-token answers are not affine in the token: misfit {misfit:.1e} where rounding and noise explain "
            f"{limit:.1e}. {cause}",
        )
    rows = three[:, -1]
    misfit = largest(rows[0] - rows[1])
    if misfit > limit + 100 * box.oracle.epsilon * largest(rows):
        raise Stop(
            Status.NOT_ATTENTION,
            f"The answer to the last token changes by {misfit:.1e} when the tokens before it trade places: "
            "positions matter in this box.",
        )
    if largest(twice) > limit:
        raise Stop(
            Status.NOT_ATTENTION,
            f"A token repeated twice is answered differently from the token alone, by {largest(twice):.1e}: "
            "the weights of a row do not sum to one.",
        )
    moves = max(largest(plus), largest(minus))
    if moves <= limit and largest(affine.ov_sum) * box.scale <= limit:
        raise Stop(Status.OV_DEGENERATE, f"Over all questions the answers stayed within {limit:.1e} of a constant.")
    if moves <= limit:
        raise Stop(
            Status.NOT_ATTENTION,
            f"No token moves the answer to another (by {moves:.1e} at the most): the box maps each token by itself.",
        )
    # Heads may cancel in the sum: then the answers to be compared are large beside it.
    _check_mirrored(far, plus - minus, affine, 10 * limit + 100 * box.oracle.epsilon * moves)
    return bool(largest(three[0, 0] - affine.of(a[None])[0]) <= limit)


def _check_mirrored(v: np.ndarray, moved: np.ndarray, affine: Affine, limit: float) -> None:
    r"""Stops unless $g(x, v) - g(x, -v) = v^T W_\Sigma$, which holds since $\sigma(s) + \sigma(-s) = 1$.

    What a box adds to every token by itself is in $W_\Sigma$, but does not move with $v$.
    """
    missing = v @ affine.ov_sum - moved
    if largest(missing) <= limit:
        return
    evidence = (
        f"Two tokens placed as mirror images of each other move the answer to a third by {largest(missing):.1e} less "
        "or more than by their values: scores are not bilinear in the tokens, or a part of the answer does not come "
        "from attention."
    )
    if missing.shape == v.shape and largest(missing - v) <= limit:
        evidence = (
            "The sum of the OV circuits contains an extra identity: the box adds every token to its answer (a residual "
            "connection). Subtract the tokens from its answers."
        )
    raise Stop(Status.NOT_ATTENTION, evidence)
