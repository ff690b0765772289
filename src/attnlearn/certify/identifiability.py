r"""What data of this kind can and cannot determine about a layer, before or after any learning.

Two independent answers to one question are compared: the null space of the Jacobian of the outputs in the parameters
(qk, ov, query_bias, offset), and the closed-form null directions of `certify.gauge`. Where the Jacobian does not fit in
memory, the closed form stands alone and a few Lanczos steps say how well determined the rest can be at most.
"""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.certify.gauge import Family, gauge
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.products import SEQUENCES, Circuits, Linearisation, linearise
from attnlearn.layers.slots import Slots

MAX_BYTES = 200_000_000  # of the dense Jacobian, and of the basis that the Lanczos steps keep
RANK_TOLERANCE = 1e-9  # of the largest singular value: what is smaller counts as zero
MAX_STEPS = 64  # of Lanczos: products with the Jacobian and with its transpose
IMPURITY = 1e-3  # part of a Lanczos vector outside the row space; bounds then hold to 64 times its square
OUTPUTS_PER_PARAMETER = 3  # fewer outputs may hide directions that more data would show
CHUNK_BYTES = 2**26  # of attention weights and mixed tokens, for the columns made at once


@dataclass(frozen=True)
class Direction:
    """Null directions of one kind. `residual`: effect on the outputs, relative to the largest of any direction."""

    name: str
    formula: str
    heads: tuple[int, ...]
    dimension: int
    residual: float


@dataclass(frozen=True, eq=False)
class Identifiability:
    """What the outputs on given inputs leave open about the parameters of a layer.

    - `dimension`: independent parameter directions that no output shows; measured where `method` is "dense", the
      closed form where it is "lanczos".
    - `expected`: their number in closed form, the sum over `directions`.
    - `unexplained`: measured null directions outside those named; not 0: the inputs are too few, too short or
      saturate the attention. `None` where nothing was measured.
    - `conditioning`: smallest non-zero over largest singular value of the Jacobian in the entries of qk, ov,
      query_bias and offset; only an upper bound where `method` is "lanczos".
    - `rank_margin`: the factor by which the cut between zero and non-zero could move without another `dimension`.
    - `singular_values`: of the Jacobian, descending ("lanczos": Ritz values).
    - `notes`: what the inputs are short of, in words.
    """

    dimension: int
    expected: int
    directions: tuple[Direction, ...]
    conditioning: float
    rank_margin: float | None
    method: str
    parameters: int
    outputs: int
    unexplained: int | None
    notes: tuple[str, ...]
    singular_values: Float[np.ndarray, " values"]

    @property
    def agrees(self) -> bool:
        """Measured null space and closed form are the same; `False` where nothing was measured."""
        return self.unexplained == 0 and self.dimension == self.expected


@float64
def identifiability(
    layer: AttentionLayer | Slots,
    X: np.ndarray,
    heads: int | None = None,
    width_out: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> Identifiability:
    r"""Says which parameter directions of `layer` no output on sequences like `X` (n, k, d) can show.

    The parameters are all entries of qk, ov, query_bias and offset: $m(d^2 + d + d\,d_{out}) + d_{out}$ of them. At a
    layer with distinct heads and non-zero `ov`, on tokens whose differences span $p$ dimensions, the closed form is
    $m\,[d(d+1) - p(p+1)] + m\,(d-p)\,d_{out}$: 0 on generic tokens, $m\,(2d + d_{out})$ with one constant direction
    (one-hot tokens, a constant coordinate). Equal and zero heads add the directions named in the report. The order of
    heads is extra and discrete; factors of rank r (W_Q, W_K and W_V, W_O) add $r^2$ a head for each pair.

    Give a layer for the answer at that layer, or `Slots` with `heads` and `width_out` (`None`: d) for the answer at
    a random layer. `max_bytes`: above it the Jacobian is not built, see `Identifiability.method`.

    **Cost:** dense, a decomposition of an (outputs, parameters) matrix; else up to 128 products with it.

    **Raises:** `ValueError` for inputs of another width, or a normaliser whose weights do not sum to one.
    """
    X = _sequences(X)
    layer = _layer(layer, X, heads, width_out)
    if not layer.slots.simplex:
        raise ValueError(
            "identifiability has a closed form for normalisers whose weights sum to one and ignore constants (Softmax)"
        )
    jacobian = _Jacobian(layer, X)
    families = gauge(layer, X)
    fits = max(jacobian.outputs, jacobian.parameters) * jacobian.parameters * 8 <= max_bytes
    return _dense(jacobian, families) if fits else _lanczos(jacobian, families, max_bytes)


def _sequences(X: np.ndarray) -> Float[np.ndarray, "n k d"]:
    X = np.asarray(X, np.float64)
    X = X[None] if X.ndim == 2 else X
    if X.ndim != 3 or 0 in X.shape or not np.isfinite(X).all():
        raise ValueError(f"X must be finite sequences of tokens (n, k, d), got shape {X.shape}")
    return X


def _layer(given: AttentionLayer | Slots, X: np.ndarray, heads: int | None, width_out: int | None) -> AttentionLayer:
    if isinstance(given, AttentionLayer):
        if heads is not None or width_out is not None:
            raise TypeError("heads and width_out belong to Slots: a layer has its own")
        if given.width != X.shape[-1]:
            raise ValueError(f"X has tokens of width {X.shape[-1]}, the layer wants {given.width}")
        return given
    if heads is None or heads < 1:
        raise ValueError(f"with Slots give heads, a number of at least 1, got {heads}")
    d, key = X.shape[-1], np.random.default_rng(0)
    d_out = d if width_out is None else width_out
    scale = 1 / max(np.square(X).sum(axis=-1).mean(), np.finfo(float).tiny)  # logits of order 1 on these tokens
    qk, query_bias = key.standard_normal((heads, d, d)), key.standard_normal((heads, d))
    ov, offset = key.standard_normal((heads, d, d_out)), key.standard_normal(d_out)
    return AttentionLayer(scale * qk, ov / math.sqrt(d), math.sqrt(scale) * query_bias, offset, given)


class _Jacobian:
    """The Jacobian of the outputs in the circuits, by products with flat NumPy vectors."""

    def __init__(self, layer: AttentionLayer, X: Float[np.ndarray, "n k d"]):
        self.linear = linearise(layer, layer.slots, X)
        self.shapes = [part.shape for part in self.linear.zero]
        self.sequences, self.tokens, self.width = X.shape
        self.parameters = sum(map(math.prod, self.shapes))
        self.outputs = self.sequences * self.tokens * layer.width_out
        self.tangent_bytes = 8 * min(len(X), SEQUENCES) * layer.heads * self.tokens * (self.tokens + self.width)

    def push(self, vectors: Float[np.ndarray, "batch parameters"]) -> Float[np.ndarray, "batch outputs"]:
        """J v for every row v."""
        cuts = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = np.split(vectors, cuts, axis=1)
        tangents = [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return np.asarray(_apply_each(self.linear, Circuits(*tangents))).reshape(len(vectors), -1)

    def pull(self, vector: Float[np.ndarray, " outputs"]) -> Float[np.ndarray, " parameters"]:
        """J^T u."""
        return _flat(self.linear.transpose(vector.reshape(-1, self.tokens, self.shapes[-1][0])))

    def dense(self) -> Float[np.ndarray, "outputs parameters"]:
        size = max(1, CHUNK_BYTES // max(1, self.tangent_bytes))
        matrix, one = np.empty((self.parameters, self.outputs)), np.eye(self.parameters)
        for start in range(0, self.parameters, size):
            matrix[start : start + size] = self.push(one[start : start + size])
            progress("jacobian", min(start + size, self.parameters), self.parameters)
        return matrix.T


@eqx.filter_jit
def _apply_each(linear: Linearisation, tangents: Circuits) -> Float[jax.Array, "batch n k d_out"]:
    return jax.vmap(linear.apply)(tangents)


def _flat(circuits: Circuits) -> Float[np.ndarray, " parameters"]:
    return np.concatenate([np.ravel(part) for part in circuits])


def _dense(jacobian: _Jacobian, families: tuple[Family, ...]) -> Identifiability:
    matrix = jacobian.dense()
    if len(matrix) > jacobian.parameters:
        matrix = scipy.linalg.qr(matrix, mode="r", check_finite=False)[0][: jacobian.parameters]
    _, values, rows = scipy.linalg.svd(matrix, full_matrices=True, check_finite=False)
    rank = int(np.sum(values > RANK_TOLERANCE * values[0]))
    null = rows[rank:]
    named = [np.stack([_flat(family.element(one)) for one in np.eye(family.dimension)]) for family in families]
    residuals = [float(np.linalg.norm(matrix @ basis.T) / (values[0] * np.linalg.norm(basis))) for basis in named]
    if named:
        basis = np.linalg.qr(np.concatenate(named).T)[0]
        outside = np.linalg.svd(null - (null @ basis) @ basis.T, compute_uv=False)
        unexplained = int(np.sum(outside > 0.5))  # cosines of the angle to the named space: 0 or 1 up to rounding
    else:
        unexplained = len(null)
    cut = RANK_TOLERANCE * values[0]
    kept, dropped = values[:rank].min(initial=np.inf), values[rank:].max(initial=0.0)
    margin = min(kept / cut, cut / max(dropped, np.finfo(float).eps * values[0]) if dropped else np.inf)
    return _report(
        jacobian,
        _directions(families, residuals),
        dimension=len(null),
        unexplained=unexplained,
        conditioning=float(kept / values[0]),
        rank_margin=float(margin),
        method="dense",
        singular_values=values,
    )


def _lanczos(jacobian: _Jacobian, families: tuple[Family, ...], max_bytes: int) -> Identifiability:
    steps = int(np.clip(max_bytes // (8 * (jacobian.parameters + jacobian.outputs)), 8, MAX_STEPS))
    values = _ritz_values(jacobian, min(steps, jacobian.parameters, jacobian.outputs))
    key, residuals = np.random.default_rng(0), []
    for family in families:
        vector = _flat(family.element(key.standard_normal(family.dimension)))
        change = np.linalg.norm(jacobian.push(vector[None]))
        residuals.append(float(change / (values[0] * np.linalg.norm(vector))))
    directions = _directions(families, residuals)
    return _report(
        jacobian,
        directions,
        dimension=sum(direction.dimension for direction in directions),
        unexplained=None,
        conditioning=float(values[-1] / values[0]),
        rank_margin=None,
        method="lanczos",
        singular_values=values,
    )


def _ritz_values(jacobian: _Jacobian, steps: int) -> Float[np.ndarray, " values"]:
    r"""Singular values of J on a Krylov space of $J^\top J$ inside its row space, descending.

    With $V$ orthonormal in the row space of J, $\min_y |JVy|/|y|$ is at least the smallest non-zero singular value
    of J: the last value is an upper bound of it, and the first a lower bound of the largest.
    """
    v, impurity = jacobian.pull(np.random.default_rng(0).standard_normal(jacobian.outputs)), 0.0
    basis, images = np.empty((steps, jacobian.parameters)), np.empty((steps, jacobian.outputs))
    for step in range(steps):
        before = np.linalg.norm(v)
        for _ in range(2):  # twice is enough to stay orthogonal
            v = v - basis[:step].T @ (basis[:step] @ v)
        # What rounding leaves outside the row space grows by the cancellation of every step.
        impurity = (impurity + np.finfo(float).eps) * before / max(np.linalg.norm(v), np.finfo(float).tiny)
        if impurity > IMPURITY:
            return np.linalg.svd(images[:step], compute_uv=False)
        basis[step] = v / np.linalg.norm(v)
        images[step] = jacobian.push(basis[step][None])[0]
        v = jacobian.pull(images[step])
        progress("lanczos", step + 1, steps)
    return np.linalg.svd(images, compute_uv=False)


def _directions(families: tuple[Family, ...], residuals: list[float]) -> tuple[Direction, ...]:
    return tuple(Direction(*family[:4], residual) for family, residual in zip(families, residuals, strict=True))


def _report(jacobian: _Jacobian, directions: tuple[Direction, ...], **figures) -> Identifiability:
    notes = []
    if jacobian.outputs < OUTPUTS_PER_PARAMETER * jacobian.parameters:
        notes.append(
            f"too few outputs: {jacobian.outputs} numbers for {jacobian.parameters} parameters, want at least "
            f"{OUTPUTS_PER_PARAMETER} times as many; more sequences may show more directions"
        )
    if (tokens := jacobian.sequences * jacobian.tokens) <= jacobian.width:
        notes.append(f"too few tokens: {tokens} cannot span {jacobian.width} dimensions, and what they miss is hidden")
    if jacobian.tokens == 2:
        notes.append("two-token sequences only: a head and its reflection look alike; give three tokens or more")
    if any(direction.residual > RANK_TOLERANCE for direction in directions):
        notes.append("a named direction does show in the outputs: heads are only nearly equal, or nearly zero")
    if figures["unexplained"]:
        notes.append(f"{figures['unexplained']} null directions have no name: these inputs do not show them")
    if figures["method"] == "lanczos":
        notes.append("the Jacobian was too large to build: dimension is the closed form, conditioning an upper bound")
    expected = sum(direction.dimension for direction in directions)
    return Identifiability(
        expected=expected,
        directions=directions,
        parameters=jacobian.parameters,
        outputs=jacobian.outputs,
        notes=tuple(notes),
        **figures,
    )
