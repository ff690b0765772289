r"""Which model do the data speak for? Counts of unknowns, the loss a right model reaches, and a criterion.

$$\mathrm{BIC} = N_{obs}\log\frac{\|R\|^2}{\|Y\|^2} + p\log N_{obs}$$

with $p$ degrees of freedom. Below the loss that rounding leaves, fits count as equal and the fewer unknowns win.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn.learners.least_squares.frame import Model

CLEAN_LOSS = 1e-14  # squared residual over squared labels that an exact fit goes below
CHI_SQUARES = 4.0  # standard deviations of the residual's square that noise may take it above its mean


def unknowns(model: Model, heads: int, width: tuple[int, int, int]) -> int:
    """Degrees of freedom of a layer with distinct heads; `width` of queries (a 1 with them), keys and outputs.

    A map (a, b) of rank r has r (a + b - r).
    """
    queries, keys, outputs = width
    rank = math.inf if model.head_dim is None else model.head_dim

    def free(rows: int, columns: int) -> int:
        r = int(min(rank, rows, columns))
        return r * (rows + columns - r)

    return heads * (free(queries, keys) + free(keys, outputs)) + outputs * model.offset


def floor_loss(dtype: np.dtype) -> float:
    """The loss that labels of this precision leave to an exact layer."""
    return max(CLEAN_LOSS, (8 * float(jnp.finfo(dtype).eps)) ** 2)


def noise_loss(noise: float, counts: tuple[int, int], mean_square: float) -> float:
    r"""The loss that a right model stays below with label noise $\sigma$; `counts` of observed numbers and unknowns.

    $\sigma^2(1 - p/N_{obs})$ over the labels' mean square, and 5 % or four standard deviations more.
    """
    observed, p = counts
    slack = 1 + max(0.05, CHI_SQUARES * math.sqrt(2 / max(observed - p, 1)))
    return slack * noise**2 * (1 - p / observed) / mean_square


def criterion(loss: float, counts: tuple[int, int], floor: float) -> float:
    """BIC; smaller is better."""
    observed, p = counts
    return observed * math.log(max(loss, floor)) + p * math.log(observed)


def log_likelihood_ratios(losses: Float[np.ndarray, " models"], observed: int, floor: float) -> np.ndarray:
    """How much less likely the data are than under the best model, in natural logarithms; Gaussian noise, its level
    fitted to each."""
    logarithms = np.log(np.maximum(losses, floor))
    return 0.5 * observed * (logarithms - logarithms.min())
