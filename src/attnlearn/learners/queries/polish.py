r"""Refines a layer that is nearly right by Gauss-Newton steps on examples, within given ranks.

For float32 and noisy black boxes: the algebra amplifies an error of the answers, least squares over many answers
averages it. Each step solves $\min_\delta \|J\delta - (Y - F(X))\|$ by conjugate gradients, without a matrix, in
coordinates that precondition it (`coordinates.py`). Residuals are in float64; products with J may be in float32, since
the next step corrects them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.layers.attention import AttentionLayer, Numbers
from attnlearn.layers.factored import Factored
from attnlearn.layers.products import Linearisation, linearise
from attnlearn.layers.slots import Slots
from attnlearn.learners.queries.coordinates import Coordinates, coordinates

Example = tuple[np.ndarray, np.ndarray]  # sequences (n, k, d) of one length and answers (n, k, d_out)


@dataclass(frozen=True)
class PolishOptions:
    """When to stop.

    `least_gain`: the factor by which a step must lower the root mean square residual for another one to follow;
    from the noise floor a step can only fit noise. The conjugate gradients of a step end when one of them lowers the
    squared residual by less than `least_progress` of it (what is left is noise, or beyond the linearisation), when
    $\\|J^\\top r\\|$ is below `rtol` of its start, or after `max_cg`. `products`: the precision of products with J.
    """

    max_steps: int = 8
    least_gain: float = 2.0
    max_cg: int = 100
    least_progress: float = 1e-3
    rtol: float = 1e-7
    products: type[np.floating] = np.float32


@dataclass(frozen=True)
class Polished:
    """The best layer met, with the root mean square residual before and after, and the work done."""

    layer: AttentionLayer
    rms_before: float
    rms_after: float
    steps: int
    cg_iterations: int


class _Fit(NamedTuple):
    """A layer on the examples: its coordinates, the derivative and the residual Y - F(X) of every block."""

    here: Coordinates
    jacobians: list[Linearisation]
    residuals: list[Float[jax.Array, "_ _ d_out"]]
    rms: float  # root mean square of all residuals


@float64
def polish(
    layer: AttentionLayer,
    examples: Sequence[Example],
    ranks: int | Sequence[int] | None = None,
    options: PolishOptions = PolishOptions(),
) -> Polished:
    r"""The layer of the given ranks that fits the examples best, near `layer`.

    `ranks` bounds the ranks of $[\Theta_i; \beta_i^\top]$ and of $W_i$, one number for all heads or one a head; `None`
    keeps those of `layer`. `examples` need at least as many answers as there are unknowns,
    $d_{out} + \sum_i r_i (3d + 1 + d_{out} - 2 r_i)$; from four times as many on, noise is not amplified much.

    **Guarantee.** `rms_after` is at most the residual of `layer` truncated to `ranks`, certain. That the steps end at
    the least squares solution is only observed, from relative errors of 1e-2 and below.

    Cost: per step one forward pass and, per conjugate gradient, about four.
    """
    blocks = [_checked(layer, X, Y) for X, Y in examples]
    if not blocks:
        raise ValueError("polish wants at least one block of examples (X, Y)")
    best = _fit(_truncated(layer, ranks), layer.slots, blocks)
    before, steps, iterations = best.rms, 0, 0
    while steps < options.max_steps and best.rms > 0:
        change, used = _step(best, options)
        steps, iterations = steps + 1, iterations + used
        candidate = jax.tree.map(np.add, best.here.at, change)
        if not all(np.isfinite(part).all() for part in jax.tree.leaves(candidate)):
            break
        tried = _fit(candidate, layer.slots, blocks)
        improved = tried.rms * options.least_gain <= best.rms
        best = min(best, tried, key=lambda fit: fit.rms)
        if not improved:
            break
    return Polished(best.here.at.layer(layer.slots), before, best.rms, steps, iterations)


def _checked(layer: AttentionLayer, X: np.ndarray, Y: np.ndarray) -> Example:
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    if X.ndim != 3 or X.shape[-1] != layer.width or Y.shape != (*X.shape[:2], layer.width_out) or 0 in X.shape:
        raise ValueError(
            f"examples have shapes X {X.shape}, Y {Y.shape}; wanted (n, k, {layer.width}) and "
            f"(n, k, {layer.width_out}), none empty"
        )
    return X, Y


def _truncated(layer: AttentionLayer, ranks: int | Sequence[int] | None) -> Factored:
    """Balanced factors, their columns beyond a head's rank set to zero."""
    if ranks is None:
        return Factored.of(layer)
    each = np.broadcast_to(np.asarray(ranks), (layer.heads,))
    factors = Factored.of(layer, int(each.max()))

    def kept(columns: int) -> Float[np.ndarray, "heads 1 columns"]:
        return np.asarray(np.arange(columns) < each[:, None], float)[:, None, :]

    qk, ov = kept(factors.queries.shape[2]), kept(factors.values.shape[2])
    return Factored(
        factors.queries * qk, factors.keys * qk, factors.values * ov, factors.outputs * ov.swapaxes(1, 2), layer.offset
    )


def _fit(at: Factored, slots: Slots, blocks: list[Example]) -> _Fit:
    here = coordinates(at, [X for X, _ in blocks])
    jacobians = [linearise(here.at, slots, X) for X, _ in blocks]
    residuals = [jnp.asarray(Y) - jacobian.outputs() for jacobian, (_, Y) in zip(jacobians, blocks, strict=True)]
    numbers = sum(residual.size for residual in residuals)
    return _Fit(here, jacobians, residuals, float(np.sqrt(_dot(residuals, residuals) / numbers)))


def _step(fit: _Fit, options: PolishOptions) -> tuple[Factored, int]:
    """The Gauss-Newton change of the factors `fit.here.at`, and the conjugate gradients it took (CGLS)."""
    here = fit.here.astype(options.products)
    jacobians = [jacobian.astype(options.products) for jacobian in fit.jacobians]
    rest = [jnp.asarray(part / fit.rms, options.products) for part in fit.residuals]  # of order one: no underflow

    def gradient(rows: list[Float[jax.Array, "_ _ d_out"]]) -> Factored:
        parts = [jacobian.transpose(part) for jacobian, part in zip(jacobians, rows, strict=True)]
        return here.restrict(jax.tree.map(lambda *arrays: sum(arrays[1:], arrays[0]), *parts))

    direction = slope = gradient(rest)
    solution = jax.tree.map(jnp.zeros_like, slope)
    start = square = _dot(slope, slope)
    used, left, lowered = 0, _dot(rest, rest), np.inf
    while used < options.max_cg and square > options.rtol**2 * start and lowered > options.least_progress * left:
        tangent = here.embed(direction)
        image = [jacobian.apply(tangent) for jacobian in jacobians]
        length = square / _dot(image, image)
        solution = _add(solution, length, direction)
        rest = _add(rest, -length, image)
        lowered = length * square
        left -= lowered
        slope = gradient(rest)
        square, last = _dot(slope, slope), square
        direction = _add(slope, square / last, direction)
        used += 1
        progress("polish", used, options.max_cg)  # of this step
    return jax.tree.map(lambda part: fit.rms * np.asarray(part, np.float64), here.embed(solution)), used


def _dot(a: object, b: object) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(jnp.vdot(x, y, preferred_element_type=jnp.float64) for x, y in pairs))


@jax.jit
def _add(a, factor: Numbers | float, b):
    """a + factor b, in the precision of a."""
    return jax.tree.map(lambda x, y: x + jnp.asarray(factor, x.dtype) * y, a, b)
