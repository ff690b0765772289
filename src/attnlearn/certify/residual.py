r"""A ball around a layer in which an exact answer lies, from the residual alone (Newton and Kantorovich).

With the residual $r = F(p) - Y$, the Jacobian J at p and its pseudo-inverse, let

$$\eta = |J^+ r| + \beta\varepsilon, \qquad \beta = \|J^+\|_2, \qquad
  \|J(p') - J(p'')\| \le K\,|p' - p''| \text{ near } p, \qquad h = \beta K \eta .$$

If $h \le 1/2$, every layer near p that gives the labels to within $\varepsilon$ lies within
$\rho = (1 - \sqrt{1 - 2h})/(\beta K) \le 2\eta$ of p.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.curvature import has_bound, lipschitz
from attnlearn.certify.jacobian import Jacobian, Spectrum
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer

WIDENINGS = 60  # doublings of the ball in which the answer is alone


@dataclass(frozen=True)
class Ball:
    r"""Where an exact layer must be.

    - `radius`: $\rho$, in the Frobenius norm of all unknown parameters together; infinite where `refused`.
    - `alone_within`: no other exact layer is nearer than this.
    - `step`: $\eta$, the length of a Gauss-Newton step with the errors of the labels and of rounding.
    - `inverse`: $\beta$; `lipschitz`: K on the ball of radius $2\eta$; `h`: their product with $\eta$.
    - `nullity`: directions that the outputs do not show; the ball lies in their orthogonal complement.
    - `refused`: which assumption failed; "" where the ball is certified.
    """

    radius: float
    alone_within: float
    step: float
    inverse: float
    lipschitz: float
    h: float
    nullity: int
    refused: str


@float64
def newton_kantorovich(
    layer: AttentionLayer, examples: Examples, tolerance: float = 0.0, unknowns: Unknowns = Unknowns()
) -> Ball:
    r"""The ball around `layer` in which a layer that gives the labels to within `tolerance` (each number) must lie.

    Parameters are $p = p_0 + Vy$ with $p_0$ those of `layer` and V an orthonormal basis of the complement of J's null
    space: the gauge is fixed by "no change along it". Where the null space is a gauge that acts by translations
    (weights that sum to one), every layer has exactly one representative there.

    **Guarantee.** Assume that the refusals below do not happen and that $h \le 1/2$, where $\varepsilon$ is `tolerance`
    times the root of the number of labels, with an allowance for rounding. Then:

    1. (location) a layer that gives all labels to within $\varepsilon$ and is nearer than `alone_within` lies within
       `radius`, whatever found it;
    2. (existence, uniqueness) exactly one point within `radius` gives zero residual along the p directions that J
       reaches, as many equations as unknowns, and none other is nearer than `alone_within`. If an exact layer
       ($\varepsilon = 0$) is in that range, it is this one.

    Proof: `docs/theory.md`, section 14 [@kantorovich1948] [@deuflhard2011]. Certain, in exact arithmetic: rounding of
    the outputs is allowed for by the standard model of floating point, but $|J^+r|$ and $\beta$ are computed in
    float64 and not enclosed. That an exact layer exists is an assumption, not a conclusion; one outside the range is
    not excluded.

    Refused: a Jacobian too large to build, circuits of known rank (their set is curved), a normaliser without a bound
    on its second derivative, h above 1/2.

    **Cost:** a decomposition of an (outputs, parameters) matrix.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    if unknowns.head_dim is not None:
        return _refused("circuits of known rank are a curved set: leave head_dim out")
    jacobian = Jacobian(layer, examples.inputs, unknowns)
    if not jacobian.fits:
        return _refused("the Jacobian is too large to build")
    residual = jacobian.residual(examples.targets)
    return ball(jacobian, Spectrum(jacobian.dense()), residual, tolerance)


def ball(
    jacobian: Jacobian, spectrum: Spectrum, residual: Float[np.ndarray, " outputs"], tolerance: float = 0.0
) -> Ball:
    """The same from the decomposed Jacobian and the residual F - Y in the order of its rows."""
    if not has_bound(jacobian):
        return _refused(
            f"no bound on the second derivative of {type(jacobian.layer.slots.normaliser).__name__} is known"
        )
    if not spectrum.rank:
        return _refused("the outputs do not depend on the unknowns")
    largest, smallest = float(spectrum.values[0]), float(spectrum.values[-1])
    rounding = jacobian.parameters * np.finfo(float).eps * largest**2 / smallest  # of a root of an eigenvalue
    inverse = 1 / max(smallest - rounding, np.finfo(float).tiny)
    error = tolerance * math.sqrt(jacobian.outputs) + _rounding(jacobian)
    step = float(np.linalg.norm(spectrum.solve(residual[None]))) + inverse * error
    K = lipschitz(jacobian, 2 * step)
    h = inverse * K * step
    found = Ball(math.inf, 0.0, step, inverse, K, h, spectrum.nullity, "")
    if not h <= 0.5:
        return replace(found, refused=f"h = {h:.3g} is above 1/2: the residual is too large for this conditioning")
    return replace(found, radius=_near(inverse * K, step), alone_within=_alone(jacobian, found))


def _refused(why: str) -> Ball:
    return Ball(math.inf, 0.0, math.inf, math.inf, math.inf, math.inf, 0, why)


def _near(bend: float, step: float) -> float:
    r"""The smaller root of $t = \eta + \beta K t^2/2$, without cancellation."""
    return 2 * step / (1 + math.sqrt(1 - 2 * bend * step))


def _alone(jacobian: Jacobian, ball: Ball) -> float:
    """The largest radius 2^j * 2 eta whose own Lipschitz constant puts the larger root outside it."""
    radius = 2 * ball.step
    for _ in range(WIDENINGS):
        wider = 2 * radius
        bend = ball.inverse * lipschitz(jacobian, wider)
        if 2 * bend * ball.step > 1 or bend * wider >= 1 + math.sqrt(1 - 2 * bend * ball.step):
            break
        radius = wider
    return radius


def _rounding(jacobian: Jacobian) -> float:
    r"""Bound of the norm of the rounding errors of all outputs, $\sqrt{N_o}$ times the worst number's.

    A sum of n products errs by n roundings of the sum of their sizes; a weight errs by twice the error of its scores.
    """
    layer, X = jacobian.layer, np.abs(np.asarray(jacobian.inputs.X))
    k, d = X.shape[1:]
    circuits = np.abs(np.concatenate([layer.qk, layer.query_bias[:, None, :]], axis=1))
    asking = np.abs(np.asarray(jacobian.inputs.queries()))
    queries = np.einsum("nrd,mde->mnre", asking, circuits[:, :-1]) + circuits[:, -1][:, None, None, :]
    score = float(np.max(queries @ X.swapaxes(1, 2)))
    values = float(np.max(np.einsum("nkd,mde->nke", X, np.abs(layer.ov))))
    roundings = 2 * (2 * d + 2) * score + 2 * k + d + layer.heads + 10
    worst = np.finfo(float).eps * (roundings * values + np.abs(layer.offset).max(initial=0.0))
    return math.sqrt(jacobian.outputs) * float(worst)
