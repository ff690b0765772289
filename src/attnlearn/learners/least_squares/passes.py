r"""Everything that a step needs of the data is a sum over sequences; here are the sums, over one batch or over many.

With $J V = (\partial_V \Phi) W$ at fixed coefficients $W$ and the features $\Phi$ of a point $\theta$:

| pass | sums |
| --- | --- |
| `normal` | $\Phi^\top\Phi$, $\Phi^\top Y$ |
| `refine` | $\Phi^\top R$, $\|R\|^2$ with $R = Y - \Phi W$ |
| `gradient` | $J^\top R$ and an estimate of the diagonal of $J^\top J$ |
| `push`, `pull` | $\Phi^\top J V$, then $J^\top(J V - \Phi C)$ |
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.layers.features import Batch, Outer, features
from attnlearn.learners._chunks import over_chunks

Matrix = Float[jax.Array, "_ _"]

SAMPLES = 32  # of a diagonal entry: random signs times the entries of a column, over which it is averaged


class Form(NamedTuple):
    """How outputs depend on the parameters: the normaliser, and whether there is an offset."""

    normaliser: Any
    offset: bool


@runtime_checkable
class Sums(Protocol):
    """The passes at one point; results are sums over all rows."""

    def normal(self) -> tuple[Matrix, Matrix]: ...
    def refine(self, W: Matrix) -> tuple[Matrix, jax.Array]: ...
    def gradient(self, W: Matrix) -> tuple[Outer, Outer]: ...
    def push(self, W: Matrix, V: Outer) -> Matrix: ...
    def pull(self, W: Matrix, V: Outer, C: Matrix) -> Outer: ...


class BatchSums:
    """The passes over one batch, with the linearised features kept. Pure JAX."""

    def __init__(self, form: Form, batch: Batch, outer: Outer):
        phi, self._tangent = jax.linearize(lambda at: features(at, form.normaliser, batch, form.offset), outer)
        self._shape, self._width = phi.shape, batch.keys.shape[-1]
        self._cotangent = jax.linear_transpose(self._tangent, outer)
        self.phi, self.labels = _rows(phi), _rows(jnp.asarray(batch.labels))
        self._answered = batch.answered().reshape(-1, 1)

    def normal(self) -> tuple[Matrix, Matrix]:
        return self.phi.T @ self.phi, self.phi.T @ self.labels

    def refine(self, W: Matrix) -> tuple[Matrix, jax.Array]:
        residual = self.labels - self.phi @ W
        return self.phi.T @ residual, jnp.sum(residual * residual)

    def gradient(self, W: Matrix) -> tuple[Outer, Outer]:
        residual = self.labels - self.phi @ W
        # E (J^T e)^2 = diag J^T J for independent random signs e
        probes = max(1, SAMPLES // self._width)
        signs = jax.random.rademacher(jax.random.key(0), (probes, *residual.shape), residual.dtype)
        images = jax.vmap(lambda sign: self._transpose(W, sign * self._answered))(signs)
        return self._transpose(W, residual), jax.tree.map(lambda image: jnp.mean(image**2, axis=0), images)

    def push(self, W: Matrix, V: Outer) -> Matrix:
        return self.phi.T @ self._apply(W, V)

    def pull(self, W: Matrix, V: Outer, C: Matrix) -> Outer:
        return self._transpose(W, self._apply(W, V) - self.phi @ C)

    def curvature(self, W: Matrix, V: Outer, solve: Callable[[Matrix], Matrix]) -> Outer:
        """`pull(W, V, solve(push(W, V)))` with one product with J instead of two."""
        image = self._apply(W, V)
        return self._transpose(W, image - self.phi @ solve(self.phi.T @ image))

    def _apply(self, W: Matrix, V: Outer) -> Matrix:
        return _rows(self._tangent(V)) @ W

    def _transpose(self, W: Matrix, rows: Matrix) -> Outer:
        return self._cotangent((rows @ W.T).reshape(self._shape))[0]


def _rows(array: Float[jax.Array, "n read e"]) -> Matrix:
    return array.reshape(-1, array.shape[-1])


class ChunkSums:
    """The passes over many batches, one after the other or on an executor; nothing is kept between two passes."""

    def __init__(self, form: Form, chunks: Callable[[], Iterable[Batch]], executor: Executor | None, outer: Outer):
        self._form, self._chunks, self._executor, self._outer = form, chunks, executor, outer

    def normal(self) -> tuple[Matrix, Matrix]:
        return self._sum("normal")

    def refine(self, W: Matrix) -> tuple[Matrix, jax.Array]:
        return self._sum("refine", W)

    def gradient(self, W: Matrix) -> tuple[Outer, Outer]:
        return self._sum("gradient", W)

    def push(self, W: Matrix, V: Outer) -> Matrix:
        return self._sum("push", W, V)

    def pull(self, W: Matrix, V: Outer, C: Matrix) -> Outer:
        return self._sum("pull", W, V, C)

    def curvature(self, W: Matrix, V: Outer, solve: Callable[[Matrix], Matrix]) -> Outer:
        """`pull(W, V, solve(push(W, V)))`: two passes."""
        return self.pull(W, V, solve(self.push(W, V)))

    def _sum(self, name: str, *arguments: Any) -> Any:
        arguments = jax.tree.map(np.asarray, (self._outer, *arguments))
        total = None
        for part in self._parts(partial(chunk_pass, name, self._form, arguments)):
            total = part if total is None else jax.tree.map(np.add, total, part)
        return jax.tree.map(jnp.asarray, total)

    def _parts(self, work: Callable[[Batch], Any]) -> Iterator[Any]:
        # NumPy: another process would read JAX arrays in its own precision
        chunks = (jax.tree.map(np.asarray, chunk) for chunk in self._chunks())
        return over_chunks(chunks, work, self._executor)


@float64
def chunk_pass(name: str, form: Form, arguments: tuple, batch: Batch) -> Any:
    """One pass over one chunk, a pure function of picklable arguments; NumPy arrays."""
    return jax.tree.map(np.asarray, _compiled_pass(name, form, arguments, batch))


@eqx.filter_jit
def _compiled_pass(name: str, form: Form, arguments: tuple, batch: Batch) -> Any:
    outer, *rest = arguments
    return getattr(BatchSums(form, batch, outer), name)(*rest)
