r"""What one would write without the theory: projected steps of vectors in $\mathbb R^d$, every gradient by JAX.

The loss of descent is the closed form at the overlaps of the vectors, whose derivatives of $\zeta$ JAX is told; that of
SGD is the mean square error on fresh sequences. One run steps in a Python loop, many in a scan.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from attnlearn.studies.single_location import Design, Experiment
from attnlearn.theory.single_location import embed, overlaps, risk

TASK = Design()  # what all experiments share
GAMMA = float(np.sqrt(TASK.gamma_squared))


class Vectors(NamedTuple):
    """Parameters `k`, `v` (..., d) of unit norm; the task's directions are the first two axes."""

    k: jax.Array
    v: jax.Array

    @classmethod
    def at(cls, states: np.ndarray, d: int) -> "Vectors":
        """Vectors with these overlaps, in JAX's own precision."""
        return cls(*map(jnp.asarray, embed(states, d)))

    @property
    def states(self) -> np.ndarray:
        """Their overlaps (..., 5) in float64, of lengths that float32 has rounded off 1 too."""
        k, v = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (np.asarray(one, float) for one in self))
        return overlaps(k, v, *np.eye(k.shape[-1])[:2])


def batch_loss(vectors: Vectors, lam: jax.Array | float, key: jax.Array, experiment: Experiment) -> jax.Array:
    """Mean square error on a batch of sequences, the informative token first: no order enters the predictor."""
    k, v = vectors
    tokens, noise = jax.random.split(key)
    X = jax.random.normal(tokens, (experiment.batch, TASK.tokens, experiment.d), k.dtype)
    mean = jnp.sqrt(experiment.d / 2) * jnp.eye(1, experiment.d, dtype=k.dtype)
    X = X.at[:, 0].set(mean + GAMMA * X[:, 0])
    y = X[:, 0, 1] + TASK.epsilon * jax.random.normal(noise, (experiment.batch,), k.dtype)
    return jnp.mean(jnp.square(jnp.sum(erf(lam * (X @ k)) * (X @ v), axis=1) - y))


def exact_loss(vectors: Vectors, lam: jax.Array | float, key: jax.Array, experiment: Experiment) -> jax.Array:
    """The closed form; no sequence is drawn."""
    k, v = vectors
    k_star, v_star = jnp.eye(2, experiment.d)
    return risk(
        jnp.stack([k @ k_star, v @ v_star, v @ k_star, k @ v_star, k @ v]), lam, GAMMA, experiment.d, TASK.tokens
    )


def step(
    vectors: Vectors, lam: jax.Array | float, t: jax.Array | int, key: jax.Array, experiment: Experiment
) -> tuple[Vectors, jax.Array]:
    """Step `t` of one run at slope `lam`, and the loss before it."""
    loss = batch_loss if experiment.batch else exact_loss
    value, gradients = jax.value_and_grad(loss)(vectors, lam, jax.random.fold_in(key, t), experiment)
    return Vectors(*(_moved(x, g, experiment.step_size) for x, g in zip(vectors, gradients, strict=True))), value


def _moved(x: jax.Array, gradient: jax.Array, alpha: float) -> jax.Array:
    """A step along the sphere, and back onto it."""
    ahead = x - alpha * (gradient - (x @ gradient) * x)
    return ahead / jnp.linalg.norm(ahead)


_one = jax.jit(step, static_argnames="experiment")
_folded = jax.jit(step, static_argnames=("lam", "experiment"))
Step = Callable[..., tuple[Vectors, jax.Array]]


def loop(experiment: Experiment, starts: np.ndarray, n_logs: int, seed: int, stepped: Step = _one) -> list[Vectors]:
    """The first run alone, a compiled step called from Python; its vectors after every `log_every` steps.

    The slope is an argument of the step, as in the authors' code.
    """
    vectors, key, logs = Vectors.at(starts[0], experiment.d), _keys(seed, len(starts))[0], []
    for block in range(n_logs):
        for t in range(block * experiment.log_every, (block + 1) * experiment.log_every):
            vectors, _ = stepped(vectors, _slope(experiment, t), t, key, experiment)
        logs.append(vectors)
    return jax.block_until_ready(logs)


def folded_loop(experiment: Experiment, starts: np.ndarray, n_logs: int, seed: int) -> list[Vectors]:
    """`loop` with the slope compiled in, so that what depends on it alone is a constant: for a fixed slope."""
    return loop(experiment, starts, n_logs, seed, _folded)


def scan(experiment: Experiment, starts: np.ndarray, n_logs: int, seed: int) -> list[Vectors]:
    """All runs at once, `log_every` steps a call; the same steps as `loop`, with the same sequences.

    A fixed slope is compiled in.
    """
    vectors, keys, logs = Vectors.at(starts, experiment.d), _keys(seed, len(starts)), []
    for block in range(n_logs):
        vectors, _ = _block(vectors, block * experiment.log_every, keys, experiment)
        logs.append(vectors)
    return jax.block_until_ready(logs)


@partial(jax.jit, static_argnames="experiment")
def _block(vectors: Vectors, first: int, keys: jax.Array, experiment: Experiment) -> tuple[Vectors, jax.Array]:
    """The next `log_every` steps of all runs, and their losses."""

    def one(vectors: Vectors, t: jax.Array) -> tuple[Vectors, jax.Array]:
        stepped = jax.vmap(partial(step, experiment=experiment), (0, None, None, 0))
        return stepped(vectors, _slope(experiment, t), t, keys)

    return jax.lax.scan(one, vectors, first + jnp.arange(experiment.log_every))


def _slope(experiment: Experiment, t: Any) -> Any:
    return experiment.lam / (1 + experiment.rate * t) if experiment.rate else experiment.lam


def _keys(seed: int, runs: int) -> jax.Array:
    """A key for every run."""
    return jax.random.split(jax.random.key(seed), runs)
