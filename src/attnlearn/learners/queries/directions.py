r"""Stage 3: the direction in which every head turns towards $v_0$.

With the atoms $A$ known, column $i$ of $g(x, t v_0) A^+ / t$ is $\sigma(t s_i(x))$; its logit is affine in $x$:
$s_i(x) = \theta_i^T x + b_i$ with $\theta_i = \Theta_i v_0$ and $b_i = \beta_i^T v_0$. $K + 1$ questions, plus pilots.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn._status import Status, Stop
from attnlearn.learners.queries.atoms import Atoms
from attnlearn.learners.queries.probing import Affine, Box, Rows, largest, logit, moved, orthogonal_rows

PILOTS = 24
ROUNDS = 12


@dataclass(frozen=True)
class Directions:
    """`theta` (m, d), projected on the span of the `probes` rows asked, and `bias` (m,); `pilots` questions before."""

    theta: Float[np.ndarray, "m d"]
    bias: Float[np.ndarray, " m"]
    probes: int
    pilots: int


def learn_directions(
    box: Box, affine: Affine, atoms: Atoms, key: np.random.Generator, probes: int, logit_range: float = 2.0
) -> Directions:
    r"""Returns $\theta_i$ and $b_i$ of every head from `probes` directions of $x$ and the origin."""
    span = box.rounded(box.scale / box.amplitude * orthogonal_rows(key, probes, box.width))
    x = np.concatenate([np.zeros((1, box.width)), span])
    inverse = np.linalg.pinv(atoms.atoms)

    def weights(x: Rows, length: float) -> np.ndarray:
        return moved(box, affine, x, np.broadcast_to(length * atoms.v0, x.shape)) / length @ inverse

    before = box.calls
    length = moderate_length(weights, x[:PILOTS], box.amplitude, logit_range)
    pilots = box.calls - before
    logits = logit(weights(x, length)) / length
    return Directions(np.linalg.pinv(span).dot(logits[1:] - logits[0]).T, logits[0], probes, pilots)


def moderate_length(weights, pilots: Rows, length: float, logit_range: float) -> float:
    """The length of $v_0$ at which the largest logit of the pilots is near `logit_range`."""
    for _ in range(ROUNDS):
        p = weights(pilots, length)
        if not np.all((p > 0) & (p < 1)):
            length /= 4
            continue
        reached = largest(logit(p))
        if 0.25 * logit_range < reached < 2 * logit_range:
            return length
        length *= logit_range / max(reached, 1e-3 * logit_range)
    raise Stop(
        Status.READOUT_ILL_CONDITIONED,
        f"No length of the probing token keeps the attention weights between 0 and 1 (last tried {length:.1e}).",
    )
