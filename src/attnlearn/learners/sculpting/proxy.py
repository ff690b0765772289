r"""Phase (iii), the elastic body and its minimum-norm point: a direction that raises the margin of every head.

Rows whose effective token is nearest to one token $u$ of their example give half-spaces
$\langle\Theta,x_a(u-x_c)^\top\rangle\ge M$ for every token $x_c\ne u$, which all heads obey. Early certificates are
often false, so the body is elastic: with unit normals $A_t$,
$$\min_\theta\ \frac{|\theta|^2}{2C}+\frac1{2T}\sum_t(1-\langle A_t,\theta\rangle)_+^2 .$$
For the minimum-norm point $\theta_0$ of the affine hull, $\langle\Theta_i,\theta_0\rangle=|\theta_0|^2$ for all heads.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn.learners.sculpting.tokens import EQUAL, Nearest


@dataclass(frozen=True)
class Body:
    """The elastic body: how hard it is ($C$), steps of FISTA, and at most so many half-spaces."""

    hardness: float = 20.0
    steps: int = 200
    half_spaces: int = 30_000


def proxy(
    X: Float[np.ndarray, "n k d"], near: Nearest, share: float, body: Body, key: np.random.Generator
) -> Float[np.ndarray, "d d"]:
    """The minimum-norm point of the body that the purest `share` of the rows carves. Only its direction matters."""
    A = half_spaces(X, near, share, body.half_spaces, key)
    return minimum_norm(A, body).reshape(X.shape[-1], -1)


def half_spaces(
    X: Float[np.ndarray, "n k d"], near: Nearest, share: float, most: int, key: np.random.Generator
) -> Float[np.ndarray, "T dd"]:
    """Unit normals of the half-spaces of the purest `share` of the rows, a random part where there are too many."""
    telling = np.ptp(X, axis=1).any(axis=-1)  # not all tokens of the example are equal
    if not telling.any():
        return np.zeros((0, X.shape[-1] ** 2))
    residual = np.where(telling[:, None], near.residual, np.inf)
    example, row = np.nonzero(residual <= np.quantile(near.residual[telling], share))
    beyond = X[example, near.token[example, row]][:, None] - X[example]
    length = np.linalg.norm(beyond, axis=-1)
    which, other = np.nonzero(length**2 > EQUAL * X.shape[-1])
    if len(which) > most:
        part = key.choice(len(which), most, replace=False)
        which, other = which[part], other[part]
    query, normal = X[example, row][which], beyond[which, other]
    scale = np.linalg.norm(query, axis=1) * length[which, other]
    return (query[:, :, None] * (normal / scale[:, None])[:, None, :]).reshape(len(which), X.shape[-1] ** 2)


def minimum_norm(A: Float[np.ndarray, "T dd"], body: Body) -> Float[np.ndarray, " dd"]:
    """The minimiser, by FISTA from zero with step $1/L$, $L=1/C+|A^TA/T|_2$."""
    if not len(A):
        return np.zeros(A.shape[1])
    largest = np.linalg.eigvalsh(A.T @ A / len(A))[-1]
    step = 1 / (1 / body.hardness + largest)
    at = ahead = np.zeros(A.shape[1])
    momentum = 1.0
    for _ in range(body.steps):
        short = np.maximum(1 - A @ ahead, 0)
        after = ahead - step * (ahead / body.hardness - A.T @ short / len(A))
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = after + (momentum - 1) / faster * (after - at)
        at, momentum = after, faster
    return at
