r"""The covariance of least-squares parameters, $\sigma^2 H^+$ or its sandwich.

H is the Hessian of the squared error (`certify.information`), or $J^\top J$ where there is no residual. Where the
Jacobian J fits in memory it is decomposed once and the covariance is a thin factor, $G G^\top$. Beyond that a linear
functional $c$ costs one solve of $H x = c$ by conjugate gradients: its variance is $\sigma^2 c^\top x$, or
$\sum_g (r_g^\top J_g x)^2$ over the clusters $g$ of rows in the sandwich. A functional that the data do not determine
has the variance infinity: it has a part in the null space of J, or its solve does not converge.
"""

import abc
import copy
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from attnlearn._progress import progress
from attnlearn.certify.coordinates import Coordinates
from attnlearn.certify.information import Information
from attnlearn.certify.jacobian import Jacobian, Spectrum
from attnlearn.layers.attention import Numbers
from attnlearn.layers.products import Circuits

UNSEEN = 1e-6  # part of a unit vector in the null space from which it counts as undetermined; rounding leaves 1e-7
CG_TOLERANCE = 1e-9  # of the residual; the variance is then right to its square times a condition number
MAX_ITERATIONS = 2000
PROBES = 8  # random signs for the trace of a head: a relative error of 0.5 / d or so
RIDGE = 1e-10  # of the mean eigenvalue of a moment of the tokens, in the preconditioner


class Noise(NamedTuple):
    """How the labels scatter.

    - `sigma`: standard deviation of a number.
    - `scores`: residual of every observed number, times a correction for what was fitted; `None`: not a sandwich.
    - `clusters`: number of the cluster of every observed number, from 0.
    """

    sigma: float
    scores: Float[np.ndarray, " outputs"] | None = None
    clusters: Int[np.ndarray, " outputs"] | None = None


class AbstractCovariance(abc.ABC):
    """Variances of linear functionals of the parameters, which come as vectors in `coordinates`."""

    coordinates: Coordinates

    @abc.abstractmethod
    def variances(self, functionals: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, " batch"]:
        """Variance of every functional; infinite where the data do not determine it."""

    @abc.abstractmethod
    def entries(self) -> Circuits:
        """Variance of every entry, in arrays like the layer's; `ValueError` where this is out of reach."""

    @abc.abstractmethod
    def heads(self) -> Circuits:
        """Sums of the variances of the entries of qk (heads,), ov (heads,), query_bias (heads,) and offset ()."""


class Dense(AbstractCovariance):
    """The covariance as $G G^\top$: `factor` $G$ (parameters, r), and `null`, that of J (nullity, parameters)."""

    def __init__(self, jacobian: Jacobian, spectrum: Spectrum, noise: Noise, information: Information | None = None):
        self.coordinates, self.null = jacobian.coordinates, spectrum.null
        root = information.root(spectrum) if information else np.eye(spectrum.rank)
        half = _lower(root, (spectrum.right / spectrum.values).T).T
        if noise.scores is None or noise.clusters is None:
            self.factor = noise.sigma * half
        else:
            sums = np.zeros((noise.clusters.max(initial=-1) + 1, spectrum.rank))
            np.add.at(sums, noise.clusters, spectrum.left * noise.scores[:, None])
            self.factor = half @ _lower(root, sums.T)

    def variances(self, functionals: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, " batch"]:
        hidden = np.linalg.norm(functionals @ self.null.T, axis=1) > UNSEEN * np.linalg.norm(functionals, axis=1)
        return np.where(hidden, np.inf, np.square(functionals @ self.factor).sum(axis=1))

    def entries(self) -> Circuits:
        seen = self.coordinates.circuits(np.ascontiguousarray(self.factor.T))
        hidden = self.coordinates.circuits(self.null)
        qk, ov, query_bias, offset = (_entries(*pair) for pair in zip(seen, hidden, strict=True))
        return Circuits(qk, ov, query_bias, offset)

    def without_null(self) -> "Dense":
        """The same with every part in the null space ignored: the covariance in the minimum-norm gauge."""
        other = copy.copy(self)
        other.null = self.null[:0]
        return other

    def heads(self) -> Circuits:
        qk, ov, query_bias, offset = self.entries()
        return Circuits(qk.sum((1, 2)), ov.sum((1, 2)), query_bias.sum(1), offset.sum())


def _lower(root: Float[np.ndarray, "r r"], right: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
    return scipy.linalg.solve_triangular(root, right, lower=True, check_finite=False)


def _entries(seen: Float[Numbers, "r *shape"], hidden: Float[Numbers, "nullity *shape"]) -> np.ndarray:
    return np.where(np.square(hidden).sum(axis=0) > UNSEEN**2, np.inf, np.square(seen).sum(axis=0))


class Iterative(AbstractCovariance):
    """The covariance behind conjugate gradients; the sums over heads are estimates from `PROBES` random signs."""

    def __init__(self, jacobian: Jacobian, noise: Noise, information: Information | None = None):
        self.jacobian, self.coordinates, self.noise = jacobian, jacobian.coordinates, noise
        self._information = information
        self._precondition = _Preconditioner(jacobian)

    def variances(self, functionals: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, " batch"]:
        found, converged = self._solve(functionals)
        if self.noise.scores is None or self.noise.clusters is None:
            values = self.noise.sigma**2 * np.einsum("bp,bp->b", functionals, found)
        else:
            images = self.jacobian.push(found) * self.noise.scores
            values = np.array([np.square(np.bincount(self.noise.clusters, row)).sum() for row in images])
        return np.where(converged, values, np.inf)

    def entries(self) -> Circuits:
        raise ValueError(
            f"standard errors of all {self.jacobian.parameters} entries need the Jacobian, which is too large to "
            "build: ask for single ones (standard_error), whole heads (heads) or predictions"
        )

    def heads(self) -> Circuits:
        key, layer = np.random.default_rng(0), self.jacobian.layer
        shapes = layer.qk.shape, layer.ov.shape, layer.query_bias.shape, (1, layer.width_out)
        sums = []
        for part, shape in enumerate(shapes):
            estimates = np.empty(shape[0])
            for head in range(shape[0]):
                signs = [np.zeros((PROBES, *other)) for other in shapes]
                signs[part][:, head] = key.choice([-1.0, 1.0], (PROBES, *shape[1:]))
                circuits = Circuits(signs[0], signs[1], signs[2], signs[3][:, 0])
                estimates[head] = self.variances(self.jacobian.coordinates.vectors(circuits)).mean()
                progress("error bars", part * shape[0] + head + 1, 0)
            sums.append(estimates)
        return Circuits(sums[0], sums[1], sums[2], sums[3][0])

    def _solve(self, right: Float[np.ndarray, "batch parameters"]) -> tuple[np.ndarray, np.ndarray]:
        """Preconditioned conjugate gradients for every row, and which of them converged."""
        x, residual = np.zeros_like(right), right.copy()
        z = self._precondition(residual)
        direction, product = z, _dots(residual, z)
        target = CG_TOLERANCE**2 * product
        for _ in range(min(MAX_ITERATIONS, 10 * right.shape[1])):
            if (product <= target).all():
                break
            image = self._times(direction)
            curvature = _dots(direction, image)
            active = (product > target) & (curvature > 0)
            step = np.where(active, product / np.where(active, curvature, 1.0), 0.0)[:, None]
            x = x + step * direction
            residual = residual - step * image
            z = self._precondition(residual)
            product, before = _dots(residual, z), product
            direction = z + (product / np.where(before > 0, before, 1.0))[:, None] * direction
        return x, product <= target

    def _times(self, vectors: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, "batch parameters"]:
        """H times every row."""
        first = self.jacobian.pull(self.jacobian.push(vectors))
        return first + self._information.curvature(vectors) if self._information else first


def _dots(a: Float[np.ndarray, "batch p"], b: Float[np.ndarray, "batch p"]) -> Float[np.ndarray, " batch"]:
    return np.einsum("bp,bp->b", a, b)


class _Preconditioner:
    r"""The inverse of $J^\top J / N$ for tokens independent of the weights: $M \otimes C\,\tau_i$ on qk, $M$ on ov.

    M is the second moment of the tokens, C their covariance within sequences, $\tau_i = \mathrm{tr}(W_i^\top C W_i)/d$.
    """

    def __init__(self, jacobian: Jacobian):
        X, layer, present = np.asarray(jacobian.inputs.X), jacobian.layer, jacobian.inputs.present
        there = np.ones(X.shape[:2]) if present is None else np.asarray(present, float)
        X = X * there[..., None]
        inside = (X - X.sum(1, keepdims=True) / there.sum(1)[:, None, None]) * there[..., None]
        moment, spread = (np.einsum("nkd,nke->de", part, part) / there.sum() for part in (X, inside))
        ridge = RIDGE * np.trace(moment) / len(moment) * np.eye(len(moment))
        sizes = np.einsum("mde,df,mfe->m", layer.ov, spread + ridge, layer.ov) / len(moment)
        self.sizes = np.maximum(sizes, RIDGE * max(sizes.max(), np.finfo(float).tiny))
        self.moment, self.spread = (scipy.linalg.inv(part + ridge) for part in (moment, spread))
        self.coordinates, self.rows = jacobian.coordinates, jacobian.outputs / jacobian.width_out

    def __call__(self, vectors: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, "batch parameters"]:
        qk, ov, query_bias, offset = self.coordinates.circuits(vectors)
        qk = self.moment @ qk @ self.spread / self.sizes[:, None, None]
        parts = qk, self.moment @ ov, query_bias @ self.spread / self.sizes[:, None], offset
        return self.coordinates.vectors(Circuits(*parts)) / self.rows
