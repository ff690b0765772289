r"""Error bars of a layer that was fitted to noisy outputs by least squares.

To first order in the noise the parameters are Gaussian around the truth with the covariance $\sigma^2H^{-1}$, H the
Hessian of the squared error: $J^\top J$, J the Jacobian of all observed outputs, and what the noise bends of it.
Predictions follow by the delta method. Where the data leave directions open, bars are refused exactly there: they are
infinite for every entry, head or prediction that such a direction touches, and `determined` gives the bars of what is
left, the layer with no part along them.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.covariance import AbstractCovariance, Dense, Iterative, Noise
from attnlearn.certify.information import Information
from attnlearn.certify.jacobian import Jacobian, Spectrum
from attnlearn.certify.undetermined import undetermined
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.inputs import as_inputs
from attnlearn.layers.products import Circuits

Clusters = Literal["rows", "sequences"]


class HeadErrors(NamedTuple):
    """One number a head, of the error of its qk, ov and query_bias."""

    qk: Float[np.ndarray, " heads"]
    ov: Float[np.ndarray, " heads"]
    query_bias: Float[np.ndarray, " heads"]


class Prediction(NamedTuple):
    """Outputs, and the half-widths of intervals for the noiseless output and for a new noisy one."""

    mean: Float[np.ndarray, "n *rows d_out"]
    half_width: Float[np.ndarray, "n *rows d_out"]
    half_width_new: Float[np.ndarray, "n *rows d_out"]


@dataclass(frozen=True, eq=False)
class Confidence:
    """How far the parameters and predictions of a fitted layer may be from the truth.

    - `noise`: standard deviation of a label: as given, or estimated.
    - `parameters`, `nullity`: number of unknowns, and of directions among them that the data do not determine
        (0 where the Jacobian was too large to build: a bar whose solve does not converge is then infinite).
    - `undetermined`: names of those directions.
    - `degrees_of_freedom`: of Student's distribution for the bars; infinite: the normal one.
    - `covariance`: variances of linear functionals.
    """

    layer: AttentionLayer
    noise: float
    parameters: int
    nullity: int
    undetermined: tuple[str, ...]
    degrees_of_freedom: float
    covariance: AbstractCovariance
    unknowns: Unknowns

    @property
    def standard_errors(self) -> Circuits:
        """Standard error of every entry, in arrays like the layer's; 0 for what is not free.

        **Raises:** `ValueError` where the Jacobian was too large to build.
        """
        return Circuits(*map(np.sqrt, self.covariance.entries()))

    @property
    def heads(self) -> HeadErrors:
        """Root of the expected squared Frobenius error of each head's circuits; an estimate to about 2 % from random
        signs where the Jacobian was too large to build."""
        return HeadErrors(*map(np.sqrt, self.covariance.heads()[:3]))

    @property
    def determined(self) -> "Confidence":
        """The bars in the minimum-norm gauge: of the layer with no part along the undetermined directions.

        They are finite everywhere, and say nothing about the undetermined part itself. The same as these bars where
        the Jacobian was too large to build.
        """
        if not isinstance(self.covariance, Dense):
            return self
        return replace(self, covariance=self.covariance.without_null())

    def half_widths(self, level: float = 0.95) -> Circuits:
        """Half-widths of the two-sided intervals of all entries, each with this probability."""
        quantile = self.quantile(level)
        return Circuits(*(quantile * part for part in self.standard_errors))

    def standard_error(self, functional: Circuits) -> float:
        """Standard error of the sum of products of the parameters with `functional`, arrays like the layer's."""
        coordinates = Circuits(*(np.asarray(part, np.float64)[None] for part in functional))
        vector = self.covariance.coordinates.vectors(coordinates)
        return float(np.sqrt(self.covariance.variances(vector)[0]))

    @float64
    def predict(self, X: Any, level: float = 0.95) -> Prediction:
        """Outputs on sequences `X` (n, k, d), or `Inputs`, with intervals of probability `level` for each number.

        Cost: one product with the transposed Jacobian for each number (and a solve, where it was too large to build).
        """
        inputs = as_inputs(X)
        found = []
        for start in range(len(inputs)):
            one = Jacobian(self.layer, inputs[start : start + 1], self.unknowns)
            variances = np.zeros((*one.answered.shape, one.width_out))
            variances[one.answered] = self.covariance.variances(one.pull(np.eye(one.outputs))).reshape(
                -1, one.width_out
            )
            found.append(variances)
        mean = np.asarray(self.layer(inputs.X, inputs.present, inputs.rows))
        variances = np.concatenate(found).reshape(mean.shape)
        quantile = self.quantile(level)
        return Prediction(mean, quantile * np.sqrt(variances), quantile * np.sqrt(variances + self.noise**2))

    def quantile(self, level: float) -> float:
        """Half-width over standard error."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        return float(scipy.stats.t.ppf((1 + level) / 2, self.degrees_of_freedom))


@float64
def confidence(
    layer: AttentionLayer,
    examples: Examples,
    noise: float | None = None,
    robust: Clusters | None = None,
    unknowns: Unknowns = Unknowns(),
) -> Confidence:
    r"""Error bars of `layer`, a least-squares fit to `examples`.

    - `noise`: standard deviation $\sigma$ of a label. `None`: estimated, $\hat\sigma^2 = |R|^2/(N_o - p)$ with the
        residual R, the $N_o$ numbers observed and the rank $p$ of J; bars are then Student's.
    - `robust`: `None`: noise of one size, independent. `"rows"`: of any size in each row, dependent inside a row only;
        `"sequences"`: dependent inside a sequence only. Then the sandwich
        $c\,H^+ \sum_g J_g^\top r_g r_g^\top J_g H^+$ over the G rows or sequences, with
        $c = \frac{G}{G-1}\frac{N_o-1}{N_o-p}$ [@white1980] [@liang1986] and Student's distribution with G - 1 degrees.
    - `unknowns`: which parameters were fitted, and the rank of the circuits where it was known.

    **Cost:** a decomposition of an (outputs, parameters) matrix and a product with H for each parameter; above
    `jacobian.MAX_BYTES` it is not built, and each bar costs a solve.

    **Guarantee.** To first order in the noise, and so exactly as $\sigma \to 0$: if the truth is a layer of this family
    with these unknowns and the noise is as said, and `layer` minimises the sum of squares, an interval of probability
    `level` covers it with that probability. (Gaussian noise; in large samples any other.)

    **Raises:** `ValueError` where noise must be estimated and no more numbers are observed than are fitted, and where
    the squared error falls from `layer` in some direction: it is no least-squares fit.
    """
    if noise is not None and not noise >= 0:
        raise ValueError(f"noise must be a standard deviation of at least 0, or None to estimate it, got {noise}")
    jacobian = Jacobian(layer, examples.inputs, unknowns)
    residual = jacobian.residual(examples.targets)
    spectrum = Spectrum(jacobian.dense()) if jacobian.fits else None
    rank = spectrum.rank if spectrum else jacobian.parameters
    left = jacobian.outputs - rank
    if left < 1 and (noise is None or robust):
        raise ValueError(
            f"{jacobian.outputs} observed numbers for {rank} fitted ones leave nothing to estimate the noise from: "
            "give noise=, or more examples"
        )
    sigma = float(np.linalg.norm(residual) / np.sqrt(left)) if noise is None else float(noise)
    scatter, degrees = Noise(sigma), np.inf if noise is not None else float(left)
    if robust:
        clusters = _clusters(jacobian, robust)
        groups = int(clusters.max()) + 1
        if groups < 2:
            raise ValueError(f"robust={robust!r} wants at least two {robust}, got {groups}")
        correction = groups / (groups - 1) * (jacobian.outputs - 1) / left
        scatter, degrees = Noise(sigma, np.sqrt(correction) * residual, clusters), float(groups - 1)
    bent = Information(jacobian, residual)
    return Confidence(
        layer,
        sigma,
        jacobian.parameters,
        spectrum.nullity if spectrum else 0,
        undetermined(jacobian, spectrum.null).names if spectrum and spectrum.nullity else (),
        degrees,
        Dense(jacobian, spectrum, scatter, bent) if spectrum else Iterative(jacobian, scatter, bent),
        unknowns,
    )


@float64
def cramer_rao(layer: AttentionLayer, X: Any, noise: float, unknowns: Unknowns = Unknowns()) -> HeadErrors:
    r"""The least root-mean-square error, over the entries of a head's circuits, of any unbiased estimate at `layer`.

    $\sigma\,\sqrt{\mathrm{tr}_h (J^\top J)^{-1} / \text{entries}}$ with Gaussian noise of standard deviation `noise` on
    the outputs on `X`: sequences (n, k, d), `Inputs` or `Examples`. Infinite where the outputs do not determine a head.
    """
    jacobian = Jacobian(layer, X.inputs if isinstance(X, Examples) else X, unknowns)
    scatter = Noise(float(noise))
    covariance = Dense(jacobian, Spectrum(jacobian.dense()), scatter) if jacobian.fits else Iterative(jacobian, scatter)
    sizes = (layer.qk[0].size, layer.ov[0].size, layer.width)
    return HeadErrors(*(np.sqrt(part / size) for part, size in zip(covariance.heads()[:3], sizes, strict=True)))


def _clusters(jacobian: Jacobian, robust: Clusters) -> np.ndarray:
    """The row or sequence of every observed number, counted from 0."""
    if robust not in ("rows", "sequences"):
        raise ValueError(f'robust must be "rows", "sequences" or None, got {robust!r}')
    sequences, rows = np.nonzero(jacobian.answered)
    return np.repeat(sequences if robust == "sequences" else np.arange(len(rows)), jacobian.width_out)
