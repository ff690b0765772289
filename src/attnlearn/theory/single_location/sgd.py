"""Stochastic gradient descent with fresh batches: runs of `batch_step`, with what is random drawn beside them."""

import functools
import numbers
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.theory.single_location.batch_step import Batches, Draws, step
from attnlearn.theory.single_location.door import checked_number, checked_runs, checked_whole, checked_width
from attnlearn.theory.single_location.overlaps import embed, measured
from attnlearn.theory.single_location.risk import total
from attnlearn.theory.single_location.trajectory import Schedule, Trajectory, checked_lengths, factors

_DRAWN = 2**22  # numbers drawn at a time


def sgd(
    overlaps: Any,
    lam: Any,
    gamma: Any,
    d: Any,
    n_tokens: Any,
    step_size: Any,
    n_steps: int,
    log_every: int,
    schedule: Schedule | None = None,
    batch_size: int = 5,
    epsilon: float = 0.1,
    seed: int = 0,
) -> Trajectory:
    r"""Projected stochastic gradient descent on fresh batches, every run with its own, from every start at once.

    **Arguments:** as for `descend`, and `batch_size` sequences a step with label noise `epsilon`; all randomness comes
    from `seed`. The squared loss is averaged over the batch. `risk` is the closed form: no test set, no noise of one.

    **Cost:** $2B(L-1)+5B+9$ normal and 2 chi numbers a step and run, drawn beside the steps in one thread.

    **Guarantee:** the overlaps after every step have the law that steps of vectors in $\mathbb R^d$ give them
    (Gaussian conditioning; in float64 up to rounding).

    **Raises:** as `descend`; `ValueError` for $d<6$, a batch below 1, or negative noise.
    """
    n_logs = checked_lengths(n_steps, log_every)
    runs = checked_runs(overlaps, lam, gamma, checked_width(d, least=6), n_tokens)
    batch_size, seed = checked_whole("batch_size", batch_size, 1), checked_whole("seed", seed, 0)
    if not (isinstance(epsilon, numbers.Real) and np.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon must be finite and at least 0, got {epsilon!r}")
    task = Batches(*map(float, (runs.numbers[0], d, epsilon, checked_number("step_size", step_size))))
    source = _Source(np.random.Generator(np.random.SFC64(seed)), len(runs.overlaps), batch_size, int(n_tokens), int(d))
    vectors, logs = _Vectors.at(runs.overlaps), []
    pieces = _pieces(n_steps, log_every, source.steps)
    with ThreadPoolExecutor(1) as ahead:
        drawn = ahead.submit(source.draw, pieces[0].steps)
        for number, piece in enumerate(pieces):
            now = drawn.result()
            if number + 1 < len(pieces):
                drawn = ahead.submit(source.draw, pieces[number + 1].steps)
            slopes = runs.lam * factors(schedule, piece.first, piece.steps)[:, None]
            vectors = vectors.after(now, slopes, task, batch_size)
            if piece.logged:
                lam_then = np.broadcast_to(slopes[-1], len(runs.overlaps))
                logs.append((vectors.overlaps, lam_then, total(vectors.overlaps, lam_then, *runs.numbers)))
                progress("sgd", len(logs), n_logs)
    after, lam_then, risks = (runs.shaped(np.stack(part, axis=1)) for part in zip(*logs, strict=True))
    return Trajectory(after, risks, lam_then, log_every * np.arange(1, n_logs + 1))


class _Piece(NamedTuple):
    """Steps for which random numbers are drawn at once; `logged`: a log follows."""

    first: int
    steps: int
    logged: bool


def _pieces(n_steps: int, log_every: int, most: int) -> list[_Piece]:
    """Pieces of at most `most` steps; none reaches over a log."""
    found = []
    for block in range(0, n_steps, log_every):
        starts = range(block, block + log_every, most)
        ends = [*starts[1:], block + log_every]
        found += [_Piece(a, b - a, b == block + log_every) for a, b in zip(starts, ends, strict=True)]
    return found


@dataclass(frozen=True)
class _Source:
    """Where the random numbers of the steps come from."""

    key: np.random.Generator
    runs: int
    batch: int
    tokens: int
    d: int

    @property
    def normals(self) -> int:
        """Normal numbers a step and run."""
        return 2 * self.batch * (self.tokens - 1) + 5 * self.batch + 9

    @property
    def steps(self) -> int:
        """Steps that are drawn at a time."""
        return max(1, _DRAWN // (self.normals * self.runs))

    def draw(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Normal numbers (steps, normals, runs) and chi numbers (steps, 2, runs)."""
        chi = [np.sqrt(self.key.chisquare(self.d - gone, (steps, self.runs))) for gone in (4, 5)]
        return self.key.standard_normal((steps, self.normals, self.runs)), np.stack(chi, axis=1)


def _sorted(normal: jax.Array, chi: jax.Array, batch: int) -> Draws:
    """The draws of one step out of its numbers (normals, runs) and (2, runs)."""
    runs, others = normal.shape[1], (normal.shape[0] - 5 * batch - 9) // (2 * batch)
    shapes = ((batch, others), (batch, others), (4, batch), (batch,), (2, 4), ())
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = [part.reshape(*shape, runs) for part, shape in zip(jnp.split(normal, ends[:-1]), shapes, strict=True)]
    s, t, informative, noise, residual, mixed = parts
    return Draws(s, t, informative, noise, residual, chi[0], mixed, chi[1])


class _Vectors(NamedTuple):
    """All runs in their moving frames: `k` and `v` (4, runs)."""

    k: Any
    v: Any

    @classmethod
    def at(cls, states: Float[np.ndarray, "runs 5"]) -> "_Vectors":
        return cls(*(vector.T.copy() for vector in embed(states, 4)))

    @property
    def overlaps(self) -> Float[np.ndarray, "runs 5"]:
        return measured(np.asarray(self.k).T, np.asarray(self.v).T, *np.eye(4)[:2])

    @float64
    def after(self, drawn: tuple[np.ndarray, np.ndarray], slopes: np.ndarray, task: Batches, batch: int) -> "_Vectors":
        """All runs after the steps for which there are draws."""
        return _Vectors(*_advance((self.k, self.v), drawn, slopes, task, batch))


@functools.partial(jax.jit, static_argnames="batch")
def _advance(vectors: Any, drawn: Any, slopes: jax.Array, task: Batches, batch: int) -> Any:
    """`vectors` after a step for every row of `drawn`; slopes (1 or steps, 1 or runs)."""

    def one(vectors: Any, now: tuple[jax.Array, tuple[jax.Array, jax.Array]]) -> tuple[Any, None]:
        t, (normal, chi) = now
        return step(vectors[0], vectors[1], _sorted(normal, chi, batch), slopes[t % len(slopes)], task), None

    return jax.lax.scan(one, vectors, (jnp.arange(len(drawn[0])), drawn))[0]
