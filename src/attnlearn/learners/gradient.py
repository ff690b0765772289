r"""A student of the same architecture, trained by Adam on Gaussian sequences: what one would do without a theory.

The baseline that the query learner is measured against. The student has factored circuits (W_Q, W_K, W_V, W_O, a query
bias and an offset); all learning rates are trained side by side on the same answers, the step size falls along a
cosine, and the student with the smallest held-out error wins. No guarantee is known.
"""

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn._types import float64
from attnlearn.data.queries import QueryOracle
from attnlearn.layers.attention import AttentionLayer, Numbers
from attnlearn.layers.factored import Factored
from attnlearn.layers.slots import Slots
from attnlearn.learners._base import AbstractLearner, Learned
from attnlearn.records import Cost, Phase

Data = tuple[np.ndarray, np.ndarray]  # sequences (n, k, d) and answers (n, k, d_out)

BLOCKS = 20  # of steps: held-out error, progress and fresh questions come between them
BLOCK_BYTES = 2**28  # of questions and answers in one block


class GradientDescent(AbstractLearner[QueryOracle]):
    r"""Trains a student by Adam on the mean squared error of the answers.

    **Fields:**

    - `heads`, `head_dim`: of the student; they must be known.
    - `learning_rates`: trained side by side; the one with the smallest held-out error is kept.
    - `steps`: of Adam, for each rate; rounded up to whole blocks.
    - `batch`, `tokens`: sequences in a step, tokens in a sequence.
    - `max_tokens`: token rows asked in all, held-out ones with them; steps draw from the same set again and again.
        `None`: every step asks `batch` new sequences, the same ones for all rates.
    - `held_out`: sequences kept to choose the rate and the step, at most a fifth of a fixed set.
    - `scale`: standard deviation of an entry of a token.
    - `dtype`: "float32" or "float64", of the training.
    - `slots`: normaliser and mask of the student.

    **Guarantee.** None: the loss is not convex. `LEARNED` means that training ended, not that the layer is right; its
    held-out error stands in `evidence`, in the phases and in `arrays["held_out_error"]` (blocks, rates).

    **Cost:** `max_tokens // tokens` sequences, or `held_out + steps * batch`.
    """

    heads: int
    head_dim: int
    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 2e-2)
    steps: int = 2000
    batch: int = 64
    tokens: int = 20
    max_tokens: int | None = None
    held_out: int = 64
    scale: float = 1.0
    dtype: str = "float32"
    slots: Slots = Slots()

    def __check_init__(self):
        for name in ("heads", "head_dim", "steps", "batch", "tokens", "held_out"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates must be positive and at least one, got {self.learning_rates}")
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', got {self.dtype!r}")
        if self.max_tokens is not None and self.max_tokens < 2 * self.tokens:
            raise ValueError(
                f"max_tokens must hold two sequences of {self.tokens} tokens, one to train and one held out, "
                f"got {self.max_tokens}"
            )

    @float64
    def learn(self, source: QueryOracle, key: np.random.Generator) -> Learned:
        """The student with the smallest held-out error; where the run is cut short, the best so far."""
        before, start = source.ledger, time.perf_counter()
        training = _Training(self, source, key)
        status, evidence = Status.LEARNED, ""
        try:
            training.run()
        except Stop as stop:
            status, evidence = stop.status, stop.evidence
        except KeyboardInterrupt:
            status = Status.INTERRUPTED
        seconds = time.perf_counter() - start - training.compile_seconds
        cost = Cost.between(before, source.ledger, seconds, training.compile_seconds)
        return training.outcome(status, evidence, cost)


class _Best(NamedTuple):
    error: float
    rate: float
    step: int
    student: Factored


class _Training:
    """One run: the data, the students of all rates, and the best one so far."""

    def __init__(self, learner: GradientDescent, oracle: QueryOracle, key: np.random.Generator):
        self.learner, self.oracle, self.key = learner, oracle, key
        self.compile_seconds = 0.0
        self.best: _Best | None = None
        self.errors: list[np.ndarray] = []

    def run(self) -> None:
        learner = self.learner
        held_out, fixed = self.data()
        students, rates = self.students(held_out[1].shape[-1]), np.asarray(learner.learning_rates, learner.dtype)
        state = students, jax.vmap(optax.scale_by_adam().init)(students)  # pyright: ignore[reportArgumentType]
        block = self.block_size(held_out)
        steps = -(-learner.steps // block) * block
        cosine = ((1 + np.cos(np.pi * np.arange(steps) / steps)) / 2).astype(learner.dtype)
        compiled = None
        for done in range(0, steps, block):
            sizes, batches = cosine[done : done + block], self.batches(block, fixed)
            if compiled is None:
                begin = time.perf_counter()
                lowered = _train.lower(state, rates, sizes, batches, held_out, learner.slots)  # pyright: ignore
                compiled = lowered.compile()
                self.compile_seconds = time.perf_counter() - begin
            state, errors = compiled(state, rates, sizes, batches, held_out, learner.slots)
            self.keep(np.asarray(errors, np.float64), state[0], done + block)
            progress("gradient descent", done + block, steps)

    def data(self) -> tuple[Data, Data | None]:
        """Held-out sequences with their answers, and the fixed set to train on where there is one."""
        learner = self.learner
        if learner.max_tokens is None:
            return self.ask(learner.held_out), None
        sequences = learner.max_tokens // learner.tokens
        kept = min(learner.held_out, max(1, sequences // 5))
        X, Y = self.ask(sequences)
        return (X[:kept], Y[:kept]), (X[kept:], Y[kept:])

    def ask(self, sequences: int) -> Data:
        """Gaussian sequences and their answers, in the precision of the training."""
        learner = self.learner
        X = learner.scale * self.key.standard_normal((sequences, learner.tokens, self.oracle.width))
        X = X.astype(self.oracle.dtype).astype(learner.dtype)  # trained on just what was asked
        return X, self.oracle.ask(X).astype(learner.dtype)

    def batches(
        self, block: int, fixed: Data | None
    ) -> tuple[Float[np.ndarray, "block batch k d"], Float[np.ndarray, "block batch k d_out"]]:
        """The data of a block of steps: new questions, or draws from the fixed set."""
        shape = (block, self.learner.batch)
        if fixed is None:
            X, Y = self.ask(block * self.learner.batch)
            return X.reshape(*shape, *X.shape[1:]), Y.reshape(*shape, *Y.shape[1:])
        drawn = self.key.integers(len(fixed[0]), size=shape)
        return fixed[0][drawn], fixed[1][drawn]

    def block_size(self, data: Data) -> int:
        """Steps in a block."""
        step_bytes = self.learner.batch * sum(part[0].nbytes for part in data)
        return max(1, min(-(-self.learner.steps // BLOCKS), BLOCK_BYTES // step_bytes))

    def students(self, width_out: int) -> Factored:
        """One student a rate, all equal, with scores and outputs of order one on tokens of this scale."""
        learner, d = self.learner, self.oracle.width
        heads, r, rates = learner.heads, learner.head_dim, len(learner.learning_rates)
        token = learner.scale * np.sqrt(d)
        queries, keys = self.key.standard_normal((2, heads, d, r)) / (token * r**0.25)
        student = Factored(
            queries=np.concatenate([queries, np.zeros((heads, 1, r))], axis=1),
            keys=keys,
            values=self.key.standard_normal((heads, d, r)) / token,
            outputs=self.key.standard_normal((heads, r, width_out)) / np.sqrt(heads * r),
            offset=np.zeros(width_out),
        )
        return jax.tree.map(lambda x: jnp.asarray(np.stack([x] * rates), learner.dtype), student)

    def keep(self, errors: Float[np.ndarray, " rates"], students: Factored, step: int) -> None:
        self.errors.append(errors)
        winner = int(np.argmin(np.where(np.isnan(errors), np.inf, errors)))
        if np.isfinite(errors[winner]) and (self.best is None or errors[winner] < self.best.error):
            student = jax.tree.map(lambda x: np.asarray(x[winner], np.float64), students)
            self.best = _Best(float(errors[winner]), self.learner.learning_rates[winner], step, student)

    def outcome(self, status: Status, evidence: str, cost: Cost) -> Learned:
        best, arrays, phases = self.best, {}, []
        if self.errors:
            arrays["held_out_error"] = np.stack(self.errors)
            for rate, errors in zip(self.learner.learning_rates, arrays["held_out_error"].T, strict=True):
                phases.append(Phase(f"rate {rate:g}", {"held_out_error": [float(error) for error in errors]}))
        if best is None:
            if status is Status.LEARNED:
                status, evidence = Status.HEADS_UNRESOLVED, "No rate ended at a finite error on held-out sequences."
            return Learned(None, status, cost, tuple(phases), evidence, arrays)
        found = f"Relative error {best.error:.3g} on held-out sequences, at rate {best.rate:g} after {best.step} steps."
        layer = AttentionLayer(*best.student.circuits(), slots=self.learner.slots)
        return Learned(layer, status, cost, tuple(phases), f"{evidence} {found}".strip(), arrays)


def outputs(student: Factored, slots: Slots, X: Float[Numbers, "n k d"]) -> Float[jax.Array, "n k d_out"]:
    """Outputs of factored circuits, at the cost of the factors. Pure JAX."""
    queries = jnp.einsum("nte,mer->nmtr", X, student.queries[:, :-1]) + student.queries[None, :, -1:, :]
    scores = jnp.einsum("nmtr,nje,mer->nmtj", queries, X, student.keys)
    weights = slots.normaliser(scores, jnp.broadcast_to(slots.visible(X.shape[1]), scores.shape))
    mixed = jnp.einsum("nmtj,nje,mes->nmts", weights, X, student.values)
    return jnp.einsum("nmts,mso->nto", mixed, student.outputs) + student.offset[None, None, :]


def _loss(student: Factored, slots: Slots, data: tuple) -> jax.Array:
    X, Y = data
    return jnp.mean(jnp.square(outputs(student, slots, X) - Y))


def _relative_error(student: Factored, slots: Slots, data: tuple) -> jax.Array:
    """Root mean square of the error over that of the answers around their mean."""
    centred = data[1] - jnp.mean(data[1], axis=(0, 1), keepdims=True)
    return jnp.sqrt(_loss(student, slots, data) / jnp.mean(jnp.square(centred)))


@eqx.filter_jit
def _train(state, rates, sizes, data, held_out, slots):
    """A block of steps of Adam for every rate at once, and the held-out errors after it."""
    adam = optax.scale_by_adam()

    def train(state, rate):
        def step(state, now):
            (student, moments), (size, batch) = state, now
            updates, moments = adam.update(jax.grad(_loss)(student, slots, batch), moments)
            return (jax.tree.map(lambda x, change: x - rate * size * change, student, updates), moments), None

        state, _ = jax.lax.scan(step, state, (sizes, data))
        return state, _relative_error(state[0], slots, held_out)

    return jax.vmap(train)(state, rates)
