r"""Whether the residual of a fit is noise: as large as stated, or, where nothing is stated, without structure."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
from jaxtyping import Float

from attnlearn._types import float64
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.jacobian import Jacobian, Spectrum
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer

NEW = 1e-6  # of the root mean square of a regressor: what is less beside the columns of J is not new


@dataclass(frozen=True)
class NoiseAgreement:
    r"""The residual against $\chi^2$: `statistic` $= |R|^2/\sigma^2$, with `degrees_of_freedom`.

    - `p_value`: probability of a residual at least as large; small: the layer does not explain the labels.
    - `p_value_below`: of one at most as small; small: the stated noise is too large, or the layer was fitted with more
        freedom than said.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    p_value_below: float


@float64
def noise_agreement(
    layer: AttentionLayer, examples: Examples, noise: float, unknowns: Unknowns = Unknowns()
) -> NoiseAgreement:
    r"""Compares the residual R of a least-squares fit with labels of Gaussian noise of standard deviation `noise`.

    **Guarantee.** To first order in the noise, $|R|^2/\sigma^2 \sim \chi^2_{N_o - p}$ for a least-squares fit with the
    right family; $N_o$ numbers are observed and p is the rank of J (the number of unknowns where J is too large to
    build). So a right fit has a p-value below $\alpha$ with probability $\alpha$.

    **Raises:** `ValueError` for a noise that is not positive, and where no more numbers are observed than are fitted.
    """
    if not noise > 0:
        raise ValueError(f"noise must be a positive standard deviation, got {noise}")
    jacobian = Jacobian(layer, examples.inputs, unknowns)
    rank = Spectrum(jacobian.dense()).rank if jacobian.fits else jacobian.parameters
    return agreement(jacobian.residual(examples.targets), rank, noise)


def agreement(residual: np.ndarray, rank: int, noise: float) -> NoiseAgreement:
    """`noise_agreement` from the residual and the number of fitted parameters."""
    degrees = residual.size - rank
    if degrees < 1:
        raise ValueError(f"{residual.size} observed numbers for {rank} fitted ones leave nothing to compare")
    statistic = float(np.square(residual / noise).sum())
    law = scipy.stats.chi2(degrees)
    return NoiseAgreement(statistic, degrees, float(law.sf(statistic)), float(law.cdf(statistic)))


@dataclass(frozen=True)
class LackOfFit:
    r"""An F test of the residual: `statistic` with (`explained`, `remaining`) degrees of freedom, and its `p_value`."""

    statistic: float
    explained: int
    remaining: int
    p_value: float


@float64
def lack_of_fit(
    layer: AttentionLayer, examples: Examples, unknowns: Unknowns = Unknowns(), extra: int = 2
) -> LackOfFit:
    r"""Asks whether heads of random attention explain anything of the residual, with no noise stated.

    The mixed tokens Z of `extra` heads with random QK circuits, and free OV circuits, are regressors that the layer
    does not have. With P the projection on what they add to the columns of J, of q dimensions,

    $$\frac{|PR|^2/q}{(|R|^2 - |PR|^2)/(N_o - p - q)} \sim F_{q,\,N_o - p - q} .$$

    **Guarantee.** To first order in the noise, for a least-squares fit with the right family and Gaussian noise of one
    size: a p-value below $\alpha$ comes with probability $\alpha$. A small one means that the layer does not explain
    the labels (too few heads, a local minimum, another normaliser); a large one proves nothing.

    **Raises:** `ValueError` where the Jacobian is too large to build, and for too few examples.
    """
    jacobian = Jacobian(layer, examples.inputs, unknowns)
    if not jacobian.fits:
        raise ValueError("the Jacobian is too large to build: give fewer examples, or state the noise")
    residual = jacobian.residual(examples.targets)
    return structure(jacobian, Spectrum(jacobian.dense()), residual, extra)


def structure(
    jacobian: Jacobian, spectrum: Spectrum, residual: Float[np.ndarray, " outputs"], extra: int = 2
) -> LackOfFit:
    """`lack_of_fit` from the decomposed Jacobian and the residual."""
    layer, key = jacobian.layer, np.random.default_rng(0)
    size = max(float(np.square(np.asarray(jacobian.inputs.X)).sum(axis=2).mean()), np.finfo(float).tiny)
    qk = key.standard_normal((extra, layer.width, layer.width)) / size  # scores of order 1
    ov = np.zeros((extra, layer.width, layer.width_out))
    others = Jacobian(AttentionLayer(qk, ov, slots=layer.slots), jacobian.inputs, Unknowns(("ov",))).dense()
    for _ in range(2):  # twice is enough to stay orthogonal
        others = others - spectrum.left @ (spectrum.left.T @ others)
    new = Spectrum(others)
    added = new.left[:, new.values > NEW * math.sqrt(len(residual)) * math.sqrt(size)]
    explained, remaining = added.shape[1], residual.size - spectrum.rank - added.shape[1]
    if explained < 1 or remaining < 1:
        raise ValueError(
            f"{residual.size} observed numbers leave nothing beside {spectrum.rank} fitted and {explained} more"
        )
    R = residual - spectrum.left @ (spectrum.left.T @ residual)
    caught, whole = float(np.square(added.T @ R).sum()), float(np.square(R).sum())
    rest = max(whole - caught, np.finfo(float).tiny)
    statistic = caught / explained / (rest / remaining)
    return LackOfFit(statistic, explained, remaining, float(scipy.stats.f.sf(statistic, explained, remaining)))
