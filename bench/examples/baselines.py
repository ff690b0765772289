r"""What one would do without the learner: Adam and L-BFGS on the same examples, softmax without a mask.

All minimise $\|Y - \Phi(T) W\|_F^2 / N$ in float64 from one random start, $\Theta \sim N(0, 1/d^2)$ and
$W \sim N(0, 1/d)$: jointly in the QK circuits $T$ (d, m d) side by side and the OV circuits $W$ (m d, d_out), or with
$W$ eliminated by least squares. `whiten` gives them our preparation: tokens $X M^{-1/2}$ with $M$ their uncentred
second moment.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from jax.flatten_util import ravel_pytree
from threadpoolctl import threadpool_limits

import attnlearn as al
from bench.examples.fit import Run

RATES = (0.003, 0.01, 0.03, 0.1)  # of Adam; the best for each instance is kept in hindsight, in its favour
FINAL_RATE = 1e-4  # of the rate, at the end of the cosine
RIDGE = 1e-10  # of the elimination
PAIRS, ITERATIONS = 20, 5000  # of L-BFGS
CHECKS = 100  # steps of Adam between two looks at the layer
LOOKS = 10  # iterations of L-BFGS between two


class Circuits(NamedTuple):
    """$T$ (d, m d) and $W$ (m d, d_out), or stacks of them."""

    T: jax.Array
    W: jax.Array


class Data(NamedTuple):
    """Tokens (n, k, d), perhaps whitened, outputs (n k, d_out), and the root $P$ that whitened them."""

    X: jax.Array
    Y: jax.Array
    root: np.ndarray

    @classmethod
    def of(cls, examples: al.Examples, whiten: bool) -> "Data":
        X, Y, d = examples.inputs.X, examples.targets, examples.width
        root = np.eye(d)
        if whiten:
            eigenvalues, axes = np.linalg.eigh(np.einsum("nkd,nke->de", X, X) / examples.tokens)
            root = axes / np.sqrt(eigenvalues) @ axes.T
        return cls(jnp.asarray(X @ root), jnp.asarray(Y.reshape(-1, Y.shape[-1])), root)

    def layer(self, circuits: Circuits) -> al.AttentionLayer:
        """The layer with these circuits, in the coordinates of the user."""
        d = len(self.root)
        qk = np.asarray(circuits.T).reshape(d, -1, d).swapaxes(0, 1)
        ov = np.asarray(circuits.W).reshape(qk.shape[0], d, -1)
        return al.AttentionLayer(self.root @ qk @ self.root, self.root @ ov)


def start(data: Data, heads: int, key: np.random.Generator) -> Circuits:
    """Small random circuits."""
    d = data.X.shape[-1]
    T, W = key.standard_normal((d, heads * d)) / d, key.standard_normal((heads * d, data.Y.shape[1])) / np.sqrt(d)
    return Circuits(jnp.asarray(T), jnp.asarray(W))


def features(T: jax.Array, X: jax.Array) -> jax.Array:
    r"""$\Phi$ (n k, m d): what every head reads for every row."""
    n, k, d = X.shape
    queries = (X.reshape(-1, d) @ T).reshape(n, -1, d)
    weights = jax.nn.softmax(queries @ X.swapaxes(1, 2), axis=-1)
    return (weights @ X).reshape(n * k, -1)


def loss(circuits: Circuits, X: jax.Array, Y: jax.Array) -> jax.Array:
    """Mean squared norm of a row of the residual."""
    return jnp.sum(jnp.square(features(circuits.T, X) @ circuits.W - Y)) / len(Y)


def eliminated(T: jax.Array, X: jax.Array, Y: jax.Array) -> jax.Array:
    """$W$ that fits best given $T$, with the ridge."""
    Phi = features(T, X)
    normal = Phi.T @ Phi / len(Y) + RIDGE * jnp.eye(Phi.shape[1])
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(normal), Phi.T @ Y / len(Y))


def eliminated_loss(T: jax.Array, X: jax.Array, Y: jax.Array) -> jax.Array:
    """The loss at the best $W$, which is stationary: it needs no derivative."""
    W = jax.lax.stop_gradient(eliminated(T, X, Y))
    return loss(Circuits(T, W), X, Y) + RIDGE * jnp.sum(jnp.square(W))


@partial(jax.jit, static_argnames=("steps", "every"))
def _train(begin: Circuits, rate: jax.Array, X: jax.Array, Y: jax.Array, steps: int, every: int) -> Circuits:
    """Full-batch Adam with a cosine decay; the circuits after every `every` steps."""
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps, FINAL_RATE))  # pyright: ignore[reportArgumentType]

    def step(state, _):
        circuits, moments = state
        updates, moments = adam.update(jax.grad(loss)(circuits, X, Y), moments)
        return (optax.apply_updates(circuits, updates), moments), None

    def block(state, _):
        state, _ = jax.lax.scan(step, state, None, every)
        return state, state[0]

    return jax.lax.scan(block, (begin, adam.init(begin)), None, steps // every)[1]


_joint = jax.jit(jax.value_and_grad(loss))
_projected = jax.jit(jax.value_and_grad(eliminated_loss))
_eliminated = jax.jit(eliminated)


@dataclass(frozen=True)
class Adam:
    """`optax.adam` on all examples at once, one run for every rate, each timed by itself."""

    heads: int
    steps: int = 4000
    whiten: bool = False
    rates: tuple[float, ...] = RATES

    @property
    def name(self) -> str:
        return "Adam" + ", whitened" * self.whiten

    def runs(self, examples: al.Examples, key: np.random.Generator) -> Iterator[Run]:
        with jax.enable_x64(True):
            data = Data.of(examples, self.whiten)
            begin, every = start(data, self.heads, key), min(CHECKS, self.steps)
            compiling = time.perf_counter()
            train = _train.lower(begin, jnp.asarray(0.0), data.X, data.Y, steps=self.steps, every=every).compile()
            compiling = time.perf_counter() - compiling
            for rate in self.rates:
                before = time.perf_counter()
                seen = jax.block_until_ready(train(begin, jnp.asarray(rate), data.X, data.Y))
                seconds = np.linspace(0, time.perf_counter() - before, len(seen.T) + 1)[1:]  # all steps cost the same
                layers = _finite(data, seconds, zip(np.asarray(seen.T), np.asarray(seen.W), strict=True))
                yield Run(layers, setting=f"{self.steps:,} at {rate:g}", compile_seconds=compiling)


@dataclass(frozen=True)
class LBFGS:
    """SciPy's L-BFGS-B, jointly or on the eliminated objective; it stops where its line search finds nothing lower."""

    heads: int
    project: bool = False
    whiten: bool = False

    @property
    def name(self) -> str:
        return f"L-BFGS, {'projected' if self.project else 'joint'}" + ", whitened" * self.whiten

    def runs(self, examples: al.Examples, key: np.random.Generator) -> Iterator[Run]:
        with jax.enable_x64(True):
            data = Data.of(examples, self.whiten)
            begin = start(data, self.heads, key)
            begin = begin.T if self.project else begin
            flat, unravel = ravel_pytree(begin)
            function = _projected if self.project else _joint
            compiling = time.perf_counter()
            jax.block_until_ready(function(begin, data.X, data.Y))
            compiling = time.perf_counter() - compiling
            seen = _minimise(lambda x: function(unravel(jnp.asarray(x)), data.X, data.Y), np.asarray(flat))
            found = (unravel(jnp.asarray(x)) for _, x in seen)
            if self.project:
                found = (Circuits(T, _eliminated(T, data.X, data.Y)) for T in found)
            layers = _finite(data, [seconds for seconds, _ in seen], found)
            yield Run(layers, compile_seconds=compiling)


def _minimise(function: Callable[[np.ndarray], Any], begin: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Points on the way with the seconds until each, the last one at the end."""
    seen, before, iterations = [], time.perf_counter(), 0

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = function(x)
        return float(value), np.concatenate([np.ravel(part) for part in jax.tree.leaves(gradient)])

    def look(x: np.ndarray) -> None:
        nonlocal iterations
        iterations += 1
        if iterations % LOOKS == 0:
            seen.append((time.perf_counter() - before, x.copy()))

    options = {"maxcor": PAIRS, "maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 1e-20, "gtol": 1e-14}
    with threadpool_limits(1):  # its products are too small to share
        end = scipy.optimize.minimize(
            value_and_gradient, begin, jac=True, method="L-BFGS-B", callback=look, options=options
        )
    return [*seen, (time.perf_counter() - before, end.x)]


def _finite(data: Data, seconds: Any, found: Any) -> list[tuple[float, al.AttentionLayer | None]]:
    """Layers with the seconds until each; `None` where the circuits overflowed."""
    layers = []
    for at, circuits in zip(seconds, found, strict=True):
        circuits = Circuits(*circuits)
        sound = all(bool(np.isfinite(part).all()) for part in circuits)
        layers.append((float(at), data.layer(circuits) if sound else None))
    return layers
