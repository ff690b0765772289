r"""The heads that atoms miss: jumps along a circle of $v$, at one fixed querying token.

With $x$ fixed every head has $s_i(v) = u_i^T v$, $u_i = [\Theta_i; \beta_i]^T [x, 1]$, so it flips exactly once on a
half circle of $v$, also when it ignores $x$, nearly equals another head, or heads are more than outputs.
Between two flips the answer is linear in $v$, $g(x, t v)/t = v^T M$, and over a flip $M$ changes by $\pm W_i$.
Heads with $u_i = 0$ (uniform attention) and mirror images $\Theta, -\Theta$ are resolved in `mirrors`.
"""

import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.probing import Affine, Answers, Box, largest, moved, orthogonal_rows

LENGTH = 1e11  # of v: a transition of a head with scores of order 1 is then a hundred times narrower than NARROWEST
GRID = 32
NARROWEST = 1e-7  # flips closer than this angle count as one
MAX_FLIPS = 64


def learn_jumps(box: Box, affine: Affine, key: np.random.Generator) -> tuple[Float[np.ndarray, "flips d d_out"], float]:
    """The change of $M$ over every flip of the half circle, and its relative precision; none where no head flips."""
    x = 10 * box.scale * key.standard_normal(box.width)
    plane = box.scale * key.standard_normal((2, box.width))
    start = key.uniform(0, np.pi)
    flips = start + _flips(box, affine, x, plane, start)
    if len(flips) == 0:
        return np.zeros((0, box.width, len(affine.offset))), 0.0
    # The cell before the first flip and the one after the last are each other's mirror: M(v) + M(-v) = W_Sigma.
    edges = np.concatenate([[flips[-1] - np.pi], flips])
    steps = 0.1 * np.minimum(np.diff(edges) / 2, 0.5) / np.sqrt(box.width)
    centers = _on_circle(plane, (edges[1:] + edges[:-1]) / 2)
    cells = [_cell(box, affine, x, v, step, key) for v, step in zip(centers, steps, strict=True)]
    precision = box.epsilon(box.scale * LENGTH) / float(steps.min())
    return np.diff(np.stack([*cells, affine.ov_sum - cells[0]]), axis=0), precision


def _on_circle(plane: np.ndarray, angles: np.ndarray) -> np.ndarray:
    return np.cos(angles)[:, None] * plane[0] + np.sin(angles)[:, None] * plane[1]


def _flips(box: Box, affine: Affine, x: np.ndarray, plane: np.ndarray, start: float) -> np.ndarray:
    r"""Angles in [0, pi] after `start` at which some head flips, by halving every interval that holds one.

    Inside a cell $g$ is linear in $v$, so the middle of an interval answers $(g_1 + g_2) / 2 \cos(\delta/2)$.
    """

    def ask(angles: np.ndarray) -> Answers:
        v = LENGTH * _on_circle(plane, start + angles)
        return moved(box, affine, np.broadcast_to(x, v.shape), v) / LENGTH

    grid = np.linspace(0, np.pi, GRID + 1)
    left, right = grid[:-1], grid[1:]
    values = ask(grid)
    at_left, at_right = values[:-1], values[1:]
    limit = max(1e5 * box.epsilon(box.scale * LENGTH), 1e-10) * largest(values)
    width = np.pi / GRID
    while True:
        middle = (left + right) / 2
        at_middle = ask(middle)
        expected = (at_left + at_right) / (2 * np.cos(width / 2))
        broken = np.abs(at_middle - expected).max(1) > limit
        progress("circle", int(np.log2(np.pi / width)), 25)
        left, middle, right = left[broken], middle[broken], right[broken]
        at_left, at_middle, at_right = at_left[broken], at_middle[broken], at_right[broken]
        if width < NARROWEST or not len(left):
            break
        if len(left) > MAX_FLIPS:
            raise Stop(
                Status.HEADS_UNRESOLVED,
                f"Along a circle of one token the hard answer breaks in {len(left)} places: more than heads explain, "
                "or some head has scores too small to become hard.",
            )
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        at_left, at_right = np.concatenate([at_left, at_middle]), np.concatenate([at_middle, at_right])
        width /= 2
    angles = np.sort(middle)
    return angles[np.concatenate([[True], np.diff(angles) > 3 * NARROWEST])] if len(angles) else angles


def _cell(
    box: Box, affine: Affine, x: np.ndarray, center: np.ndarray, step: float, key: np.random.Generator
) -> Float[np.ndarray, "d d_out"]:
    """$M$ around $v$ = `center`, by steps so short that no head flips: a tenth of the way to the next one."""
    basis = box.scale * orthogonal_rows(key, box.width, box.width)
    v = LENGTH * np.concatenate([center[None], center + step * basis])
    answers = moved(box, affine, np.broadcast_to(x, v.shape), v) / LENGTH
    return np.linalg.solve(basis, (answers[1:] - answers[0]) / step)
