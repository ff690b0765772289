r"""What data of this kind can and cannot determine about a layer, before or after any learning.

Two independent answers to one question are compared: the null space of the Jacobian of the outputs in the parameters
(qk, ov, query_bias, offset), and the closed-form null directions of `certify.gauge`. Where the Jacobian does not fit in
memory, the closed form stands alone and a few Lanczos steps say how well determined the rest can be at most.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._types import float64
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.families import Family
from attnlearn.certify.gauge import gauge
from attnlearn.certify.jacobian import MAX_BYTES, RANK_TOLERANCE, Jacobian
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.inputs import Inputs
from attnlearn.layers.products import Circuits
from attnlearn.layers.slots import Slots

MAX_STEPS = 64  # of Lanczos: products with the Jacobian and with its transpose
IMPURITY = 1e-3  # part of a Lanczos vector outside the row space; bounds then hold to 64 times its square
OUTPUTS_PER_PARAMETER = 3  # fewer outputs may hide directions that more data would show


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

    - `dimension`: independent parameter directions that no output shows; measured where `method` is "dense", the sum
      over `directions` where it is "lanczos".
    - `expected`: their number in closed form, the sum over `directions`; `None` where no closed form is known, and
      `directions` are those alone that the tokens do not touch.
    - `unexplained`: measured null directions outside those named; not 0: the inputs are too few, too short or
      saturate the attention. `None` where nothing was measured.
    - `conditioning`: smallest non-zero over largest singular value of the Jacobian in the unknown entries of qk, ov,
      query_bias and offset; only an upper bound where `method` is "lanczos".
    - `rank_margin`: the factor by which the cut between zero and non-zero could move without another `dimension`.
    - `singular_values`: of the Jacobian, descending ("lanczos": Ritz values).
    - `notes`: what the inputs are short of, in words.
    """

    dimension: int
    expected: int | None
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
    X: Any,
    heads: int | None = None,
    width_out: int | None = None,
    unknowns: Unknowns = Unknowns(),
    max_bytes: int = MAX_BYTES,
) -> Identifiability:
    r"""Says which parameter directions of `layer` no output on inputs like `X` can show.

    The parameters are all entries of qk, ov, query_bias and offset, $m(d^2 + d + d\,d_{out}) + d_{out}$ of them, or
    what `unknowns` leaves of these. Closed form at a layer with distinct heads and non-zero circuits:

    | normaliser | generic tokens | a constant coordinate | one-hot tokens |
    | --- | --- | --- | --- |
    | softmax | 0 | $m(2d + d_{out})$ | $m(2d + d_{out})$ |
    | sigmoid, erf | 0 | $md$ | $md$ and what the key types hide |
    | ReLU | $m$ | $m + md$ | $md$ and what the key types hide |
    | linear | $m^2$ | $m^2 + md$ | $md$ and what the key types hide |

    Where qk and ov alone are unknown: softmax $md + (m-1)d_{out}$, the others without $md$. Linear with $d_{out} = 1$
    adds $m(m-1)/2$ for each visible direction of [x, 1], $d + 1$ on generic tokens (d where the query bias is known).
    A key type hides $m(d + d_{out}) - r(d + d_{out} - r)$ directions, $r = \min(m, d, d_{out})$, where all rows see
    equally many tokens or the number is a factor of the weights; sigmoid with a mask hides fewer, and ReLU more, those
    of its zero weights. Equal and zero heads add the directions named in the report. The order of heads is extra and
    discrete; factors of rank r (W_Q, W_K and W_V, W_O) add $r^2$ a head for each pair.

    `X`: sequences (n, k, d), `Inputs` or `Examples`. Give a layer for the answer at that layer, or `Slots` with `heads`
    and `width_out` (`None`: d) for the answer at a random layer. `max_bytes`: above it the Jacobian is not built, see
    `Identifiability.method`.

    **Cost:** dense, a decomposition of an (outputs, parameters) matrix; else up to 128 products with it.

    **Raises:** `ValueError` for inputs of another width, or that are not finite.
    """
    inputs = _inputs(X)
    layer = _layer(layer, np.asarray(inputs.X), heads, width_out)
    jacobian = Jacobian(layer, inputs, unknowns)
    families, lacking = gauge(layer, inputs, unknowns)
    notes = [f"no closed form is known: {lacking}"] if lacking else []
    if 8 * jacobian.parameters * max(jacobian.outputs, jacobian.parameters) <= max_bytes:
        return _dense(jacobian, families, notes)
    return _lanczos(jacobian, families, notes, max_bytes)


def _inputs(X: Any) -> Inputs:
    """Checked inputs, in float64."""
    given = X.inputs if isinstance(X, Examples) else X if isinstance(X, Inputs) else None
    tokens = np.asarray(X if given is None else given.X, np.float64)
    tokens = tokens[None] if given is None and tokens.ndim == 2 else tokens
    if tokens.ndim != 3 or 0 in tokens.shape or not np.isfinite(tokens).all():
        raise ValueError(f"X must be finite sequences of tokens (n, k, d), got shape {tokens.shape}")
    return Inputs(tokens) if given is None else Inputs(tokens, given.present, given.rows)


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


def _dense(jacobian: Jacobian, families: tuple[Family, ...], notes: list[str]) -> Identifiability:
    matrix = jacobian.dense()
    if len(matrix) > jacobian.parameters:
        matrix = scipy.linalg.qr(matrix, mode="r", check_finite=False)[0][: jacobian.parameters]
    _, values, rows = scipy.linalg.svd(matrix, full_matrices=True, check_finite=False)
    rank = int(np.sum(values > RANK_TOLERANCE * values[0]))
    null = rows[rank:]
    named = [
        np.concatenate([_vector(jacobian, family, one) for one in np.eye(family.dimension)]) for family in families
    ]
    residuals = [float(np.linalg.norm(matrix @ part.T) / (values[0] * np.linalg.norm(part))) for part in named]
    if named:
        known = np.linalg.qr(np.concatenate(named).T)[0]
        outside = np.linalg.svd(null - (null @ known) @ known.T, compute_uv=False)
        unexplained = int(np.sum(outside > 0.5))  # cosines of the angle to the named space: 0 or 1 up to rounding
    else:
        unexplained = len(null)
    cut = RANK_TOLERANCE * values[0]
    kept, dropped = values[:rank].min(initial=np.inf), values[rank:].max(initial=0.0)
    margin = min(kept / cut, cut / max(dropped, np.finfo(float).eps * values[0]) if dropped else np.inf)
    return _report(
        jacobian,
        _directions(families, residuals),
        notes,
        dimension=len(null),
        unexplained=unexplained,
        conditioning=float(kept / values[0]),
        rank_margin=float(margin),
        method="dense",
        singular_values=values,
    )


def _lanczos(jacobian: Jacobian, families: tuple[Family, ...], notes: list[str], max_bytes: int) -> Identifiability:
    steps = int(np.clip(max_bytes // (8 * (jacobian.parameters + jacobian.outputs)), 8, MAX_STEPS))
    values = _ritz_values(jacobian, min(steps, jacobian.parameters, jacobian.outputs))
    key, residuals = np.random.default_rng(0), []
    for family in families:
        vector = _vector(jacobian, family, key.standard_normal(family.dimension))
        change = np.linalg.norm(jacobian.push(vector))
        residuals.append(float(change / (values[0] * np.linalg.norm(vector))))
    directions = _directions(families, residuals)
    return _report(
        jacobian,
        directions,
        notes,
        dimension=sum(direction.dimension for direction in directions),
        unexplained=None,
        conditioning=float(values[-1] / values[0]),
        rank_margin=None,
        method="lanczos",
        singular_values=values,
    )


def _vector(
    jacobian: Jacobian, family: Family, coefficients: Float[np.ndarray, " dimension"]
) -> Float[np.ndarray, "1 parameters"]:
    """One direction in the coordinates of the Jacobian."""
    element = family.element(coefficients)
    return jacobian.coordinates.vectors(Circuits(*(np.asarray(part)[None] for part in element)))


def _ritz_values(jacobian: Jacobian, steps: int) -> Float[np.ndarray, " values"]:
    r"""Singular values of J on a Krylov space of $J^\top J$ inside its row space, descending.

    With $V$ orthonormal in the row space of J, $\min_y |JVy|/|y|$ is at least the smallest non-zero singular value
    of J: the last value is an upper bound of it, and the first a lower bound of the largest.
    """
    v, impurity = jacobian.pull(np.random.default_rng(0).standard_normal((1, jacobian.outputs)))[0], 0.0
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
        v = jacobian.pull(images[step][None])[0]
        progress("lanczos", step + 1, steps)
    return np.linalg.svd(images, compute_uv=False)


def _directions(families: tuple[Family, ...], residuals: list[float]) -> tuple[Direction, ...]:
    return tuple(Direction(*family[:4], residual) for family, residual in zip(families, residuals, strict=True))


def _report(jacobian: Jacobian, directions: tuple[Direction, ...], notes: list[str], **figures) -> Identifiability:
    expected = None if notes else sum(direction.dimension for direction in directions)
    return Identifiability(
        expected=expected,
        directions=directions,
        parameters=jacobian.parameters,
        outputs=jacobian.outputs,
        notes=(*notes, *_shortcomings(jacobian, directions, figures)),
        **figures,
    )


def _shortcomings(jacobian: Jacobian, directions: tuple[Direction, ...], figures: Mapping[str, Any]) -> Iterator[str]:
    """What the inputs are short of, in words."""
    sequences, tokens, width = jacobian.inputs.X.shape
    if jacobian.outputs < OUTPUTS_PER_PARAMETER * jacobian.parameters:
        yield (
            f"too few outputs: {jacobian.outputs} numbers for {jacobian.parameters} parameters, want at least "
            f"{OUTPUTS_PER_PARAMETER} times as many; more sequences may show more directions"
        )
    if sequences * tokens <= width:
        yield f"too few tokens: {sequences * tokens} cannot span {width} dimensions, and what they miss is hidden"
    if tokens == 2 and jacobian.layer.slots.simplex:
        yield "two-token sequences only: a head and its reflection look alike; give three tokens or more"
    if any(direction.residual > RANK_TOLERANCE for direction in directions):
        yield "a named direction does show in the outputs: heads are only nearly equal, or nearly zero"
    if figures["unexplained"]:
        yield f"{figures['unexplained']} null directions have no name: these inputs do not show them"
    if figures["method"] == "lanczos":
        yield "the Jacobian was too large to build: dimension counts named directions, conditioning is an upper bound"
