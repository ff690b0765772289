"""One least-squares problem: examples in their frame, ready to run from any start; in memory or in a stream."""

import abc
import math
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.layers.features import Batch, Outer
from attnlearn.learners._blas import one_blas_thread
from attnlearn.learners.least_squares.conjugate_gradients import eagerly
from attnlearn.learners.least_squares.elimination import Eliminated, eliminate, finish, normal
from attnlearn.learners.least_squares.marquardt import RIDGE_FLOOR, Rows, State, advance, begin
from attnlearn.learners.least_squares.passes import BatchSums, ChunkSums, Form, Sums

SELECTION_RIDGE = 1e-6  # for comparing candidates
STACK_SCALARS = 2**24  # of features, for the candidates that are compared at once
PATIENT_WORK = 2e9  # flops of a step above which each step is a call of its own, to be seen and interrupted


class Fit(NamedTuple):
    """The end of one run: parameters, coefficients, squared residual over squared labels, and what it took."""

    outer: Outer
    W: np.ndarray
    loss: float
    steps: int = 0
    cg_iterations: int = 0


class AbstractProblem(abc.ABC):
    """Examples and the form of their model.

    `rows` divides sums; `width` is (queries', keys', labels') numbers a token; `work` the flops of one CG iteration a
    head and a column, roughly.
    """

    form: Form
    rows: Rows
    width: tuple[int, int, int]
    scalars: int  # observed numbers
    tokens: int  # of a sequence

    @property
    def mean_square(self) -> float:
        """Of a label: what turns a loss into the variance of what is left."""
        return float(self.rows.square) / self.width[2]

    @abc.abstractmethod
    def run(self, outer: Outer, stall: float, steps: int) -> Fit:
        """Levenberg–Marquardt from `outer`, with the ridge taken away at the end."""

    @abc.abstractmethod
    def objectives(self, outers: Outer) -> Float[np.ndarray, " candidates"]:
        """Eliminated objectives of stacked candidates, relative to the labels; infinite where there is none."""

    def work(self, heads: int, rank: int | None) -> float:
        """Floating-point operations of one CG iteration, about, with circuits of this rank (`None`: full)."""
        d = self.width[1]
        return float(self.rows.count) * heads * (d if rank is None else rank) * (12 * d + 8 * self.tokens)


class Resident(AbstractProblem):
    """All sequences in one batch on the device, or sharded over several: XLA then adds the sums over devices."""

    @float64
    def __init__(self, form: Form, batch: Batch, devices: int = 1):
        self.form, self.batch = form, _sharded(batch, devices)
        self.rows = _rows_of(batch)
        self.width = batch.queries.shape[-1], batch.keys.shape[-1], batch.labels.shape[-1]
        self.scalars, self.tokens = int(self.rows.count) * self.width[2], batch.keys.shape[1]

    @float64
    def run(self, outer: Outer, stall: float, steps: int) -> Fit:
        with one_blas_thread():
            state = _begin(self.form, self.batch, self.rows, outer)
            m, _, rank = outer.queries.shape
            patient = self.work(m, rank) * 20 > PATIENT_WORK
            while not state.finished and state.steps < steps:
                most = int(state.steps) + 1 if patient else steps
                state = _advance(self.form, self.batch, self.rows, state, jnp.asarray((stall, most), float))
                progress("least squares", int(state.steps), steps)
            return _fit(state, _finish(self.form, self.batch, self.rows, state), self.rows)

    @float64
    def objectives(self, outers: Outer) -> Float[np.ndarray, " candidates"]:
        columns = outers.queries.shape[1] * (self.width[1] if outers.values is None else outers.values.shape[-1])
        size = max(1, min(len(outers.queries), int(STACK_SCALARS / (float(self.rows.count) * columns))))
        with one_blas_thread():
            found = np.asarray(_objectives(self.form, self.batch, self.rows, outers, size))
        return np.where(np.isfinite(found), found, np.inf)


class Streamed(AbstractProblem):
    """Sequences in chunks that are made anew for each pass, on this machine or on an executor's workers."""

    @float64
    def __init__(self, form: Form, chunks: Callable[[], Iterable[Batch]], executor: Executor | None):
        self.form, self._chunks, self._executor = form, chunks, executor
        count, squares, batch = 0.0, 0.0, None
        for batch in chunks():
            rows = _rows_of(batch)
            count, squares = count + float(rows.count), squares + float(rows.square * rows.count)
        assert batch is not None  # Examples are never empty
        self.rows = Rows(jnp.asarray(count), jnp.asarray(squares / count))
        self.width = batch.queries.shape[-1], batch.keys.shape[-1], batch.labels.shape[-1]
        self.scalars, self.tokens = int(count) * self.width[2], batch.keys.shape[1]

    def _at(self, outer: Outer) -> ChunkSums:
        return ChunkSums(self.form, self._chunks, self._executor, outer)

    @float64
    def run(self, outer: Outer, stall: float, steps: int) -> Fit:
        with one_blas_thread():
            state = begin(outer, self._at, self.rows)
            while not state.finished and state.steps < steps:
                state = advance(state, self._at, self.rows, (stall, int(state.steps) + 1), eagerly)
                progress("least squares", int(state.steps), steps)
            return _fit(state, finish(self._at(state.outer), state.equations, RIDGE_FLOOR, self.rows.count), self.rows)

    @float64
    def objectives(self, outers: Outer) -> Float[np.ndarray, " candidates"]:
        found = []
        for n in range(len(outers.queries)):
            sums = self._at(jax.tree.map(lambda stack: stack[n], outers))  # noqa: B023 (used at once)
            found.append(float(_objective(sums, self.rows)))
        return np.where(np.isfinite(found), found, np.inf)


def _objective(sums: Sums, rows: Rows) -> jax.Array:
    equations = normal(sums, rows.count)
    return eliminate(sums, equations, SELECTION_RIDGE, rows.count).objective / rows.square


def _rows_of(batch: Batch) -> Rows:
    count = jnp.sum(batch.answered())
    return Rows(count, jnp.sum(jnp.square(batch.labels)) / count)


def _fit(state: State, end: Eliminated, rows: Rows) -> Fit:
    outer, loss = jax.tree.map(np.asarray, state.outer), float(end.residual / rows.square)
    loss = loss if math.isfinite(loss) else math.inf  # NaN would be neither better nor worse than another
    return Fit(outer, np.asarray(end.W), loss, int(state.steps), int(state.cg_iterations))


@eqx.filter_jit
def _begin(form, batch, rows, outer):
    return begin(outer, lambda at: BatchSums(form, batch, at), rows)


@eqx.filter_jit
def _advance(form, batch, rows, state, limits):
    return advance(state, lambda at: BatchSums(form, batch, at), rows, (limits[0], limits[1]))


@eqx.filter_jit
def _finish(form, batch, rows, state):
    return finish(BatchSums(form, batch, state.outer), state.equations, RIDGE_FLOOR, rows.count)


@eqx.filter_jit
def _objectives(form, batch, rows, outers, size):
    return jax.lax.map(lambda one: _objective(BatchSums(form, batch, one), rows), outers, batch_size=size)


def _sharded(batch: Batch, devices: int) -> Batch:
    """The batch with its sequences spread over so many devices; filled up with sequences that are not read."""
    if devices == 1:
        return batch
    if devices > len(jax.devices()):
        raise ValueError(f"devices={devices}, and JAX sees {len(jax.devices())} of them")
    mesh = jax.make_mesh((devices,), ("sequences",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.device_put(batch.padded(devices), jax.NamedSharding(mesh, jax.P("sequences")))
