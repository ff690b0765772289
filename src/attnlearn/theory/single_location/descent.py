r"""Projected gradient descent of erf attention, exact in five scalars whatever the width [@marion2025].

Gradients stay in the span of $k^\star, v^\star, k, v$, so that the five overlaps are a closed recursion: `step` is the
step of the vectors, written in their overlaps. All runs are stepped together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.theory.single_location.door import checked_number, checked_runs
from attnlearn.theory.single_location.overlaps import OrderParameters, on_spheres
from attnlearn.theory.single_location.risk import Constants, constants, slopes, total
from attnlearn.theory.single_location.sharpness import spectra
from attnlearn.theory.single_location.trajectory import (
    EdgeOfStability,
    Schedule,
    Trajectory,
    checked_lengths,
    factors,
)

STABLE = 2.0  # step size times sharpness, up to which a step of descent contracts


def step(state: OrderParameters, c: Constants, alpha: Any) -> OrderParameters:
    r"""One step $k\leftarrow\mathrm{unit}(k-\alpha(\nabla_k-\langle k,\nabla_k\rangle k))$, $v$ likewise from there."""
    kappa, nu, theta, eta, rho = state
    R = slopes(state, c)
    # The gradients' products with k* and v*, with their own vector and the other one, and with each other.
    k_kstar, k_vstar, k_v = R.kappa + R.rho * theta, R.eta + R.rho * nu, R.kappa * theta + R.eta * nu + R.rho
    v_kstar, v_vstar, v_k = R.theta + R.rho * kappa, R.nu + R.rho * eta, R.nu * eta + R.theta * kappa + R.rho
    k_k = R.kappa * kappa + R.eta * eta + R.rho * rho
    v_v = R.nu * nu + R.theta * theta + R.rho * rho
    k_square = R.kappa * k_kstar + R.eta * k_vstar + R.rho * k_v
    v_square = R.nu * v_vstar + R.theta * v_kstar + R.rho * v_k
    both = R.kappa * v_kstar + R.eta * v_vstar + R.rho * (R.nu * nu + R.theta * theta + R.rho * rho)
    A, B = 1 + alpha * k_k, 1 + alpha * v_v
    k_norm = jnp.sqrt(1 + alpha**2 * (k_square - k_k**2))
    v_norm = jnp.sqrt(1 + alpha**2 * (v_square - v_v**2))
    return OrderParameters(
        kappa=(A * kappa - alpha * k_kstar) / k_norm,
        nu=(B * nu - alpha * v_vstar) / v_norm,
        theta=(B * theta - alpha * v_kstar) / v_norm,
        eta=(A * eta - alpha * k_vstar) / k_norm,
        rho=(A * B * rho - alpha * (A * v_k + B * k_v) + alpha**2 * both) / (k_norm * v_norm),
    )


def descend(
    overlaps: Any,
    lam: Any,
    gamma: Any,
    d: Any,
    n_tokens: Any,
    step_size: Any,
    n_steps: int,
    log_every: int,
    schedule: Schedule | None = None,
) -> Trajectory:
    r"""Projected gradient descent on the exact risk, from every start at once.

    **Arguments:**

    - `overlaps` (..., 5): starts; `lam`: slope, broadcasts against the leading axes.
    - `gamma`, `d`, `n_tokens`: the task, as for `risk`.
    - `step_size`: $\alpha$; `n_steps`: steps, a multiple of `log_every`.
    - `schedule`: step -> factor on `lam`, step 0 first; `inverse_time(1e-4)` is the authors'. `None`: fixed.

    **Cost:** about 0.2 µs a step and run for 30 runs, whatever the width and the length; a log costs as much as 100
    steps, since it takes the sharpness of every run.

    **Guarantee:** equal to descent of the vectors up to rounding while step size times sharpness is at most 2; the
    first step beyond that is in `warnings`, for every run that goes there. Seen before every log, and bisected between
    two logs. Convergence is proved for the flow, and by [@marion2025] for steps that are small enough; here it is seen.

    **Raises:** `ValueError` for bad overlaps, slopes, sizes, steps, or a schedule that gives factors of 0 or less.
    """
    n_logs = checked_lengths(n_steps, log_every)
    runs = checked_runs(overlaps, lam, gamma, d, n_tokens)
    alpha = checked_number("step_size", step_size)
    blocks, logs, states = [], [], runs.overlaps
    for number in range(n_logs):
        progress("descent", number, n_logs)
        factor = factors(schedule, number * log_every, log_every)[:, None]
        block = _Block(states, runs.lam * factor, alpha, runs.numbers)
        before = block.states(log_every - 1)
        states = replace(block, start=before, slopes=block.slopes[-1:]).states(1)
        lam_then = np.broadcast_to(block.lam(log_every - 1), len(states))
        logs.append((states, lam_then, block.risk(states), block.risk(before)))
        blocks.append(block)
    progress("descent", n_logs, n_logs)
    after, lam_then, risks, risks_before = (runs.shaped(np.stack(part, axis=1)) for part in zip(*logs, strict=True))
    steps = log_every * np.arange(1, n_logs + 1)
    return Trajectory(after, risks, lam_then, steps, risks_before, tuple(_crossings(blocks, log_every)))


@dataclass(frozen=True)
class _Block:
    """The steps between two logs: states (runs, 5) before the first, slopes (1 or steps, 1 or runs), and the task."""

    start: Float[np.ndarray, "runs 5"]
    slopes: Float[np.ndarray, "one_or_steps one_or_runs"]
    alpha: float
    numbers: tuple[float, float, float]

    def lam(self, step: Any) -> Any:
        """The slopes at which step `step`, a number or one for every run, is made."""
        rows = np.asarray(step) % len(self.slopes)
        return self.slopes[rows, np.arange(self.slopes.shape[1]) if rows.ndim else slice(None)]

    @float64
    def states(self, steps: Any) -> Float[np.ndarray, "runs 5"]:
        """The states after `steps` steps, a number or one for every run."""
        until = np.broadcast_to(steps, len(self.start))
        start = OrderParameters(*map(np.ascontiguousarray, self.start.T))
        return on_spheres(np.stack(_advance(start, self.slopes, self.alpha, self.numbers, until), axis=1))

    def risk(self, states: Float[np.ndarray, "runs 5"]) -> Float[np.ndarray, " runs"]:
        """The risk of `states` at the slope of the last step."""
        return total(states, np.broadcast_to(self.slopes[-1], len(states)), *self.numbers)

    def products(self, steps: Any) -> Float[np.ndarray, " runs"]:
        """Step size times sharpness before step `steps`, a number or one for every run."""
        lam = np.broadcast_to(self.lam(steps), len(self.start))
        return self.alpha * spectra(self.states(steps), lam, self.numbers)[:, -1]


@jax.jit
def _advance(
    start: OrderParameters, slopes: jax.Array, alpha: Any, numbers: tuple[Any, ...], until: jax.Array
) -> OrderParameters:
    """Every run from `start` through its first `until` steps."""

    def one(t: jax.Array, state: OrderParameters) -> OrderParameters:
        stepped = step(state, constants(slopes[t % len(slopes)], *numbers), alpha)
        return jax.tree.map(lambda new, old: jnp.where(t < until, new, old), stepped, state)

    return jax.lax.fori_loop(0, jnp.max(until), one, start)


def _crossings(blocks: Sequence[_Block], length: int) -> Iterator[EdgeOfStability]:
    """For every run the first step beyond the edge: looked for at every log and at the last step, bisected between."""
    found: set[int] = set()
    looks = [(0, 0), *((number, length) for number in range(len(blocks) - 1)), (len(blocks) - 1, length - 1)]
    for number, at in looks:
        ahead = at == length  # the step after a block is the first of the next one
        products = blocks[number + 1].products(0) if ahead else blocks[number].products(at)
        new = sorted(set(map(int, np.flatnonzero(products > STABLE))) - found)
        if not new:
            continue
        found |= set(new)
        steps, products = _bisected(blocks[number], products, at)
        for run in new:
            yield EdgeOfStability(run, number * length + int(steps[run]), float(products[run]))


def _bisected(block: _Block, products: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray]:
    """A step of each run at which it crosses the edge, from the first step of `block` to step `at`, where its product
    is `products`; and the product there."""
    low, high = np.zeros(len(products), int), np.full(len(products), at)
    while (high - low).max() > 1:
        middle = (low + high) // 2
        there = block.products(middle)
        beyond = there > STABLE
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        products = np.where(beyond, there, products)
    return high, products
