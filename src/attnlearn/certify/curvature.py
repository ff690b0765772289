r"""How fast the Jacobian of a layer can change: a bound in closed form, from the sizes of tokens and OV circuits.

The second derivative of one output row in the direction $(\theta_i, \omega_i)$ = norms of the changes of
$\tilde\Theta_i$ and $W_i$ is at most $\sum_i A\,\theta_i^2 + 2B\,\theta_i\omega_i$ with, for the asking token x, its
$q = |[x, 1]|$, and $w = \max_i\|W_i\|_2$:

- softmax, where $\Delta$ is the largest distance of two tokens of the sequence: $A = q^2\Delta^3 w/4$,
  $B = q\Delta^2/4$;
- $\varphi(s_j)$ for each of v visible tokens, where no token is longer than $\ell$: $A = C_2\,q^2\ell^3 w\,V$,
  $B = C_1\,q\,\ell^2\,V$ with $C_1 \ge |\varphi'|$, $C_2 \ge |\varphi''|$, and V = v, or 1 where weights are divided
  by v.

Proof: `docs/theory.md`, section 14.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.certify.jacobian import Jacobian
from attnlearn.layers.slots import Erf, Linear, Sigmoid, Softmax


class Slopes(NamedTuple):
    """Bounds of the first and second derivative of a weight in its score, before it is divided by v."""

    first: float
    second: float


ELEMENTWISE = {
    Sigmoid: Slopes(1 / 4, 1 / (6 * math.sqrt(3))),
    Linear: Slopes(1.0, 0.0),
    Erf: Slopes(2 / math.sqrt(math.pi), 4 / math.sqrt(2 * math.pi * math.e)),
}


def has_bound(jacobian: Jacobian) -> bool:
    """Whether the normaliser has a bounded second derivative that is known here."""
    return type(jacobian.layer.slots.normaliser) in (Softmax, *ELEMENTWISE)


def lipschitz(jacobian: Jacobian, radius: float) -> float:
    r"""K with $\|J(p') - J(p'')\|_2 \le K\,|p' - p''|$ for all p', p'' within `radius` of the layer.

    $K = \big(\sum_a \kappa_a^2\big)^{1/2}$ over the output rows, $\kappa_a = (A + \sqrt{A^2 + 4B^2})/2$ in the words
    of the head of this file, with w for the largest OV circuit in the ball. **Raises:** `KeyError` without a bound.
    """
    layer, free = jacobian.layer, jacobian.unknowns.free
    scores, values = {"qk", "query_bias"} & set(free), "ov" in free
    if not scores:
        return 0.0  # the outputs are linear in ov and offset
    asking, spread, factor = _sizes(jacobian)
    slopes = Slopes(1 / 4, 1 / 4) if layer.slots.simplex else ELEMENTWISE[type(layer.slots.normaliser)]
    largest = np.linalg.norm(layer.ov, 2, axis=(1, 2)).max() + (radius if values else 0.0)
    A = slopes.second * factor[:, None] * asking**2 * spread[:, None] ** 3 * largest
    B = slopes.first * factor[:, None] * asking * spread[:, None] ** 2 if values else np.zeros_like(A)
    rows = (A + np.sqrt(A**2 + 4 * B**2)) / 2
    if jacobian.inputs.rows == "mean":
        there = np.ones_like(rows) if jacobian.inputs.present is None else np.asarray(jacobian.inputs.present, float)
        rows = (rows * there).sum(axis=1, keepdims=True) / there.sum(axis=1, keepdims=True)
    return float(np.linalg.norm(rows[jacobian.answered]))


def _sizes(
    jacobian: Jacobian,
) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Norms of the asking tokens; for each sequence the spread or the longest token, and V."""
    inputs, slots, free = jacobian.inputs, jacobian.layer.slots, jacobian.unknowns.free
    X = np.asarray(inputs.X)
    there = np.ones(X.shape[:2], bool) if inputs.present is None else np.asarray(inputs.present)
    queries = np.asarray(inputs.queries()) * ("qk" in free)
    asking = np.sqrt(np.square(queries).sum(axis=2) + ("query_bias" in free))
    if slots.simplex:
        spread = np.array([_diameter(x[seen]) for x, seen in zip(X, there, strict=True)])
        return asking, spread, np.ones(len(X))
    longest = (np.linalg.norm(X, axis=2) * there).max(axis=1)
    mean = getattr(slots.normaliser, "mean", False)
    return asking, longest, np.ones(len(X)) if mean else there.sum(axis=1).astype(float)


def _diameter(tokens: Float[np.ndarray, "k d"]) -> float:
    return max(float(np.linalg.norm(tokens - token, axis=1).max()) for token in tokens)
