r"""What labelled sequences prove about a layer: does it fit, could the data determine it, does it hold on others?

Each statement carries its assumption. Those that must hold for the certificate to pass: the residual is zero or noise;
there are as many numbers as unknowns; the data leave open what the closed form says and nothing else; and, where
held-out sequences are given, the error on them is what such a fit makes on new sequences.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from attnlearn._types import float64
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.holdout import HoldOut, expected_mean_square, holdout
from attnlearn.certify.jacobian import Jacobian, Spectrum
from attnlearn.certify.noise import agreement, structure
from attnlearn.certify.residual import ball
from attnlearn.certify.undetermined import Undetermined, undetermined
from attnlearn.data.examples import Examples
from attnlearn.layers.attention import AttentionLayer
from attnlearn.records import Certificate, Statement

ALARM = 1e-3  # p-value below which a residual is not taken for noise: a right fit is refused once in 1000
COMFORT = 1.5  # numbers per unknown from which no false fit of clean labels has been seen
DEVIATIONS = 5.0  # standard errors that a held-out error may lie above its expectation: once in 3e6
STATIONARY = 1e-2  # share of the squared residual that a step may still take from what is called a least-squares fit
HELD_OUT = 100.0  # the error on new sequences over that on the fitted ones, of clean labels: the conditioning of J


@dataclass(frozen=True)
class ExamplesOptions:
    r"""What is known about the labels and the fit.

    - `noise`: standard deviation of a label; 0: the labels are exact; `None`: not known.
    - `rtol`: relative residual $|R|/|Y|$ below which a fit counts as exact. `None`: $\max(10^{-7}, 10\epsilon)$ with
        the rounding of the examples' dtype.
    - `delta`: probability with which the bound on the held-out error may be wrong.
    - `unknowns`: which parameters were fitted, and the rank of the circuits where it was known.
    - `held_out`: examples that the learner has not seen.
    """

    noise: float | None = None
    rtol: float | None = None
    delta: float = 0.05
    unknowns: Unknowns = Unknowns()
    held_out: Examples | None = None

    def __post_init__(self):
        if self.noise is not None and not self.noise >= 0:
            raise ValueError(f"noise must be at least 0, or None where it is not known, got {self.noise}")
        if self.rtol is not None and not self.rtol > 0:
            raise ValueError(f"rtol must be positive or None, got {self.rtol}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie between 0 and 1, got {self.delta}")


class _Facts:
    """What every statement needs, computed once."""

    def __init__(self, layer: AttentionLayer, examples: Examples, options: ExamplesOptions):
        self.layer, self.options = layer, options
        self.jacobian = Jacobian(layer, examples.inputs, options.unknowns)
        self.spectrum = Spectrum(self.jacobian.dense()) if self.jacobian.fits else None
        self.labels = self.jacobian.observed(examples.targets)
        self.residual = self.jacobian.values() - self.labels
        self.hidden: Undetermined = undetermined(self.jacobian, self.spectrum.null if self.spectrum else None)
        self.numbers, self.unknowns = self.residual.size, max(1, self.jacobian.parameters - self.hidden.expected)
        rounding = float(jnp.finfo(examples.dtype).eps)
        self.rtol = max(1e-7, 10 * rounding) if options.rtol is None else options.rtol
        self.relative = _ratio(np.linalg.norm(self.residual), np.linalg.norm(self.labels))

    @property
    def exact(self) -> bool:
        """The residual is zero, as far as it can be told."""
        return self.relative <= self.rtol

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise: as stated, or as estimated."""
        left = max(1, self.numbers - self.unknowns)
        return self.options.noise or float(np.linalg.norm(self.residual) / math.sqrt(left))


@float64
def examples_certificate(
    layer: AttentionLayer, examples: Examples, options: ExamplesOptions = ExamplesOptions()
) -> Certificate:
    """The certificate of a layer that was fitted to `examples`, whoever made it; see the head of the file.

    **Guarantee.** That of each statement, under the assumption beside it. What decides is first order in the noise: a
    right fit to Gaussian noise fails with probability about 1e-3. A certificate that passed does not exclude another
    layer that fits as well; with fewer than 1.5 numbers per unknown such layers have been seen.

    **Cost:** a decomposition of an (outputs, parameters) matrix where it fits in memory; else a pass over the examples.

    **Raises:** `ValueError` for layers and examples of different widths.
    """
    if (layer.width, layer.width_out) != (examples.width, examples.width_out):
        raise ValueError(
            f"the layer maps width {layer.width} to {layer.width_out}, "
            f"the examples {examples.width} to {examples.width_out}"
        )
    facts = _Facts(layer, examples, options)
    binding = [_fit(facts), _enough(facts), _determined(facts)]
    others = [_comfort(facts), *_near(facts)]
    largest = _ratio(np.abs(facts.residual).max(), np.abs(facts.labels).max())
    if options.held_out is not None:
        found = holdout(layer, options.held_out, options.delta)
        binding.append(_held_out(facts, found))
        others.append(_bound(found))
        largest = max(largest, found.largest)
    return Certificate(all(statement.holds for statement in binding), largest, (*binding, *others))


def _ratio(part: float | np.floating, whole: float | np.floating) -> float:
    return float(part / whole) if whole else (math.inf if part else 0.0)


def _fit(facts: _Facts) -> Statement:
    """The residual is zero, or noise."""
    noise = facts.options.noise
    if noise == 0 or (noise is None and facts.exact):
        return Statement(
            "fit",
            "The layer gives the labels: norm of the residual over that of the labels.",
            "None: this is what was seen. About parameters it says something only with the statements on data below.",
            facts.relative,
            facts.rtol,
            facts.exact,
        )
    rank = facts.spectrum.rank if facts.spectrum else facts.unknowns
    if facts.numbers <= rank:
        claim = "As many parameters as numbers were fitted: the residual says nothing."
        return Statement("residual against the noise", claim, "None.", 0.0, ALARM, False)
    if noise is not None:
        found = agreement(facts.residual, rank, noise)
        claim = (
            "The residual is as large as the stated noise makes it: probability of a larger one by chance "
            f"(of a smaller one: {found.p_value_below:.2g})."
        )
        assumption = "Gaussian noise of the stated size on every label; a least-squares fit; first order in the noise."
        return Statement("residual against the noise", claim, assumption, found.p_value, ALARM, found.p_value >= ALARM)
    return _structure(facts)


def _structure(facts: _Facts) -> Statement:
    """No noise is stated, so size says nothing; structure does."""
    name, p_value = "residual without structure", 0.0
    claim = "Heads of random attention explain no more of the residual than they do of noise: p-value of an F test."
    try:
        if facts.spectrum is None:
            raise ValueError("the Jacobian is too large to build")
        share = _ratio(np.linalg.norm(facts.spectrum.left.T @ facts.residual), np.linalg.norm(facts.residual)) ** 2
        if share > STATIONARY:
            raise ValueError(f"this is no least-squares fit, a step of Gauss and Newton takes {share:.2g} of |R|²")
        p_value = structure(facts.jacobian, facts.spectrum, facts.residual).p_value
    except ValueError as error:
        claim = f"Not tested: {error}. State the noise."
    assumption = "Gaussian noise of one size; a least-squares fit. A large value does not prove the layer right."
    return Statement(name, claim, assumption, p_value, ALARM, p_value >= ALARM)


def _enough(facts: _Facts) -> Statement:
    return Statement(
        "numbers per unknown",
        f"{facts.numbers} numbers were observed for {facts.unknowns} unknowns that such data can determine.",
        "None: a count. Fewer numbers than unknowns determine no layer.",
        facts.numbers / facts.unknowns,
        1.0,
        facts.numbers >= facts.unknowns,
    )


def _comfort(facts: _Facts) -> Statement:
    ratio = facts.numbers / facts.unknowns
    return Statement(
        "margin of data",
        "There are enough numbers that layers which fit by chance have not been seen.",
        "An observation on random layers, not a proof; below this limit an exact fit may be a wrong layer.",
        ratio,
        COMFORT,
        ratio >= COMFORT,
    )


def _determined(facts: _Facts) -> Statement:
    hidden, name, expected = facts.hidden, "identifiable", float(facts.hidden.expected)
    words = f" Undetermined: {'; '.join(hidden.names)}." if hidden.names else ""
    lacking = f" The closed form is incomplete: {hidden.lacking}." if hidden.lacking else ""
    if hidden.measured is None:
        claim = "Directions that no output shows, in closed form; the Jacobian was too large to measure them." + words
        return Statement(name, claim + lacking, "Tokens in general position.", expected, expected, True)
    claim = "The outputs leave open what the closed form says, and nothing else: measured nullity of the Jacobian."
    assumption = "Local: near this layer. Singular values below 1e-9 of the largest count as zero."
    return Statement(name, claim + words + lacking, assumption, float(hidden.measured), expected, hidden.agrees)


def _near(facts: _Facts) -> list[Statement]:
    """The ball of Newton and Kantorovich, where the labels are exact."""
    if not (facts.options.noise == 0 or (facts.options.noise is None and facts.exact)):
        return []
    name = "distance to an exact layer"
    if facts.spectrum is None or facts.options.unknowns.head_dim is not None:
        why = "the Jacobian is too large" if facts.spectrum is None else "circuits of known rank are a curved set"
        return [Statement(name, f"Not certified: {why}.", "None.", math.inf, 0.5, False)]
    found = ball(facts.jacobian, facts.spectrum, facts.residual)
    claim = f"Not certified: {found.refused}."
    if not found.refused:
        claim = (
            f"A layer that gives the labels exactly and is nearer than {found.alone_within:.2g} lies within "
            f"{found.radius:.2g} (Frobenius, all parameters together): h of Newton and Kantorovich."
        )
    assumption = "Such a layer exists; no change along undetermined directions; float64 linear algebra is not enclosed."
    return [Statement(name, claim, assumption, found.h, 0.5, not found.refused)]


def _held_out(facts: _Facts, found: HoldOut) -> Statement:
    assumption = "Held-out sequences come from the same distribution, and the learner has not seen them."
    size = math.sqrt(found.mean_square) / max(float(np.sqrt(np.mean(facts.labels**2))), np.finfo(float).tiny)
    limit = HELD_OUT * facts.rtol
    if facts.options.noise == 0 or (facts.options.noise is None and facts.exact):
        claim = "The layer gives the labels of held-out sequences: root mean square error over that of the labels."
        return Statement("held-out error", claim, assumption, size, limit, size <= limit)
    left = facts.numbers - facts.unknowns
    near = expected_mean_square(1.0, facts.unknowns, facts.numbers)
    expected = 1 + facts.unknowns / left if left > 0 else math.inf
    value, scatter = (part / facts.sigma**2 for part in (found.mean_square, found.mean_square_error))
    claim = (
        f"Mean squared error on held-out sequences over the noise; to first order {near:.3g}, and with chance in the "
        f"tokens and {DEVIATIONS:g} standard errors at most the limit."
    )
    limit = expected + DEVIATIONS * scatter
    return Statement("held-out error", claim, assumption + " First order in the noise.", value, limit, value <= limit)


def _bound(found: HoldOut) -> Statement:
    return Statement(
        "expected error on new sequences",
        f"With probability {1 - found.delta:g}, the expected relative squared error of a new sequence, counted as "
        f"{found.limit:g} at most, is below this (seen: {found.mean:.3g}).",
        f"{found.sequences} held-out sequences drawn independently from one distribution, and not seen by the learner.",
        found.bound,
        found.limit,
        found.bound < found.limit,
    )
