r"""Projected gradient descent of erf attention, exact in five scalars whatever the width [@marion2025].

Gradients stay in the span of $k^\star, v^\star, k, v$, so that the five overlaps are a closed recursion: `step` is the
step of the vectors, written in their overlaps. All runs are stepped together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.theory.single_location.door import checked_number, checked_runs
from attnlearn.theory.single_location.overlaps import OrderParameters, on_spheres
from attnlearn.theory.single_location.risk import Constants, constants, excess, slopes
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
    both = R.kappa * v_kstar + R.eta * v_vstar + R.rho * v_v
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

    **Cost:** a step of 30 runs takes about 4 µs whatever the width and the length; a log takes as long as 200 steps,
    since it looks at the sharpness of every run.

    **Guarantee:** equal to descent of the vectors up to rounding while step size times sharpness is at most 2; the
    first step beyond that is in `warnings`, for every run that goes there. Seen before every log, and bisected between
    two logs. Convergence is proved for the flow, and by [@marion2025] for steps that are small enough; here it is seen.

    **Raises:** `ValueError` for bad overlaps, slopes, sizes, steps, or a schedule that gives factors of 0 or less.
    """
    n_logs = checked_lengths(n_steps, log_every)
    runs = checked_runs(overlaps, lam, gamma, d, n_tokens)
    alpha = checked_number("step_size", step_size)
    blocks, states = [], runs.overlaps
    for number in range(n_logs):
        progress("descent", number, n_logs)
        factor = factors(schedule, number * log_every, log_every)[:, None]
        blocks.append(_Block.walked(states, runs.lam * factor, alpha, runs.numbers, log_every))
        states = blocks[-1].end.after
    progress("descent", n_logs, n_logs)
    ends = [block.end for block in blocks]
    return Trajectory(
        overlaps=runs.shaped(np.stack([end.after for end in ends], axis=1)),
        risk=runs.shaped(np.stack([end.risk for end in ends], axis=1)),
        lam=runs.shaped(np.stack([np.broadcast_to(block.slopes[-1], len(states)) for block in blocks], axis=1)),
        steps=log_every * np.arange(1, n_logs + 1),
        risk_before_step=runs.shaped(np.stack([end.risk_before for end in ends], axis=1)),
        warnings=tuple(_crossings(blocks, log_every)),
    )


class _End(NamedTuple):
    """Where runs are after their last step and were before it (runs, 5), with the risks at the last slope (runs)."""

    after: Any
    before: Any
    risk: Any
    risk_before: Any


@dataclass(frozen=True)
class _Block:
    """The steps between two logs: states (runs, 5) before the first, slopes (1 or steps, 1 or runs), and the end."""

    start: Float[np.ndarray, "runs 5"]
    slopes: Float[np.ndarray, "one_or_steps one_or_runs"]
    alpha: float
    numbers: tuple[float, float, float]
    end: _End

    @classmethod
    def walked(cls, start: Any, slopes: Any, alpha: float, numbers: tuple[float, float, float], steps: int) -> "_Block":
        """The block of `steps` steps from `start`."""
        return cls(start, slopes, alpha, numbers, _walk(start, slopes, alpha, numbers, steps))

    def lam(self, steps: Any) -> Float[np.ndarray, " runs"]:
        """The slopes at which step `steps`, a number or one for every run, is made."""
        run = np.arange(len(self.start))
        return self.slopes[np.broadcast_to(steps, run.shape) % len(self.slopes), run % self.slopes.shape[1]]

    def products(self, steps: Any) -> Float[np.ndarray, " runs"]:
        """Step size times sharpness before step `steps`, a number or one for every run."""
        states = _walk(self.start, self.slopes, self.alpha, self.numbers, steps).after
        return self.alpha * spectra(states, self.lam(steps), self.numbers)[:, -1]


@float64
def _walk(start: Any, slopes: Any, alpha: float, numbers: tuple[float, float, float], steps: Any) -> _End:
    """The end of `steps` steps, a number or one for every run."""
    until = np.broadcast_to(steps, len(start))
    found = _End(*map(np.asarray, _advance(np.ascontiguousarray(start.T), slopes, alpha, numbers, until)))
    return found._replace(after=on_spheres(found.after), before=on_spheres(found.before))


@jax.jit
def _advance(start: jax.Array, slopes: jax.Array, alpha: Any, numbers: tuple[Any, ...], until: jax.Array) -> _End:
    """Every run from `start` (5, runs) through its first `until` steps."""

    def one(t: jax.Array, states: tuple[OrderParameters, OrderParameters]) -> tuple[OrderParameters, OrderParameters]:
        now, before = states
        stepped = step(now, constants(slopes[t % len(slopes)], *numbers), alpha)
        choose = lambda new, old: jax.tree.map(lambda a, b: jnp.where(t < until, a, b), new, old)  # noqa: E731
        return choose(stepped, now), choose(now, before)

    first = OrderParameters(*start)
    after, before = jax.lax.fori_loop(0, jnp.max(until), one, (first, first))
    last = constants(slopes[-1], *numbers)
    risks = [excess(state, last) + last.apart for state in (after, before)]
    return _End(jnp.stack(after, axis=1), jnp.stack(before, axis=1), *risks)


def _crossings(blocks: Sequence[_Block], length: int) -> Iterator[EdgeOfStability]:
    """For every run the first step beyond the edge: looked for at every log and at the last step, bisected between."""
    found: set[int] = set()
    for number, products in enumerate(_looks(blocks, length)):
        new = sorted(set(map(int, np.flatnonzero(products > STABLE))) - found)
        if not new:
            continue
        found |= set(new)
        steps, block = np.zeros(len(products), int), max(number - 1, 0)
        if number:
            at = length if number < len(blocks) else length - 1
            steps, products = _bisected(blocks[block], products, at)
        for run in new:
            yield EdgeOfStability(run, block * length + int(steps[run]), float(products[run]))


def _looks(blocks: Sequence[_Block], length: int) -> Float[np.ndarray, "looks runs"]:
    """Step size times sharpness before the first step of every block, and before the very last step."""
    last = blocks[-1]
    states = np.stack([block.start for block in blocks] + [last.end.before])
    lam = np.stack([block.lam(0) for block in blocks] + [last.lam(length - 1)])
    return last.alpha * spectra(states.reshape(-1, 5), lam.ravel(), last.numbers)[:, -1].reshape(lam.shape)


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
