"""What a run of the dynamics leaves behind, and the schedules of the slope."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from attnlearn.theory.single_location.door import checked_whole

Schedule = Callable[[float], float]


class EdgeOfStability(NamedTuple):
    """A fixed step is stable only while step size times sharpness is at most 2; run `run` crossed that at `step`."""

    run: int
    step: int
    product: float

    def __str__(self) -> str:
        return (
            f"edge of stability: run {self.run} takes step {self.step} with step size times sharpness "
            f"{self.product:.3f} > 2. From there on its path depends on rounding; a smaller step size avoids that."
        )


@dataclass(frozen=True)
class Trajectory:
    r"""Runs of the dynamics, logged after every `log_every` steps; the start is not among the logs.

    - `overlaps` (..., n_logs, 5), `risk` and `lam` (..., n_logs): the state after step `steps[i]`, its exact excess
      risk, and the slope $\lambda$ at which that step was made and the risk is taken. The risk of a flow is $R_0$,
      without the part that depends on $L$ alone.
    - `risk_before_step` (..., n_logs): the risk at the same slope before the last step, which is what the authors'
      code logs beside the overlaps after it. `None` where there are no steps of descent.
    - `steps` (n_logs,): steps made; for a flow its times.
    - `warnings`: an `EdgeOfStability` for every run that crossed it, with the first step; runs are counted in C order.
    """

    overlaps: Float[np.ndarray, "*runs n_logs 5"]
    risk: Float[np.ndarray, "*runs n_logs"]
    lam: Float[np.ndarray, "*runs n_logs"]
    steps: Int[np.ndarray, " n_logs"] | Float[np.ndarray, " n_logs"]
    risk_before_step: Float[np.ndarray, "*runs n_logs"] | None = None
    warnings: tuple[EdgeOfStability, ...] = ()


@dataclass(frozen=True)
class InverseTime:
    r"""The factor $1/(1+\mathrm{rate}\cdot t)$ on the slope; $t=0$ at the first step."""

    rate: float

    def __call__(self, step: Any) -> Any:
        return 1 / (1 + self.rate * step)


def inverse_time(rate: float) -> InverseTime:
    r"""The schedule $\lambda_t=\lambda_0/(1+\mathrm{rate}\cdot t)$; the authors take 1e-4 [@marion2025].

    **Raises:** `ValueError` for a rate that is negative or not finite.
    """
    if not (np.isfinite(rate) and rate >= 0):
        raise ValueError(f"the rate of a schedule must be finite and at least 0, got {rate!r}")
    return InverseTime(float(rate))


def factors(schedule: Schedule | None, first: int, steps: int) -> Float[np.ndarray, " one_or_steps"]:
    """The factors of the steps `first`, ..., `first + steps - 1`; a single 1 where there is no schedule.

    **Raises:** `ValueError` for a factor that is not finite and above 0.
    """
    if schedule is None:
        return np.ones(1)
    if not callable(schedule):
        raise ValueError(f"a schedule must map a step to a factor, such as inverse_time(1e-4), got {schedule!r}")
    found = np.array([float(schedule(step)) for step in range(first, first + steps)])
    bad = ~(np.isfinite(found) & (found > 0))
    if bad.any():
        step = first + int(np.argmax(bad))
        raise ValueError(f"the schedule must give finite factors above 0, got {found[step - first]} at step {step}")
    return found


def checked_lengths(n_steps: int, log_every: int) -> int:
    """How often a run of `n_steps` is logged; `ValueError` where that is no whole number above 0."""
    n_steps, log_every = checked_whole("n_steps", n_steps, 1), checked_whole("log_every", log_every, 1)
    if n_steps % log_every:
        raise ValueError(
            f"n_steps must be a multiple of log_every, got {n_steps} and {log_every}: "
            f"take n_steps = {max(1, n_steps // log_every) * log_every}"
        )
    return n_steps // log_every
