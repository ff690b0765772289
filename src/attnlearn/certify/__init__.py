"""What can be proved or bounded about a layer, whoever made it."""

from attnlearn.certify.confidence import Confidence, HeadErrors, Prediction, confidence, cramer_rao
from attnlearn.certify.coordinates import Unknowns
from attnlearn.certify.fresh_queries import FreshQueryOptions, Kind, fresh_queries
from attnlearn.certify.from_examples import ExamplesOptions, examples_certificate
from attnlearn.certify.holdout import HoldOut, expected_mean_square, holdout
from attnlearn.certify.identifiability import Direction, Identifiability, identifiability
from attnlearn.certify.noise import LackOfFit, NoiseAgreement, lack_of_fit, noise_agreement
from attnlearn.certify.residual import Ball, newton_kantorovich

__all__ = [
    "Ball",
    "Confidence",
    "Direction",
    "ExamplesOptions",
    "FreshQueryOptions",
    "HeadErrors",
    "HoldOut",
    "Identifiability",
    "Kind",
    "LackOfFit",
    "NoiseAgreement",
    "Prediction",
    "Unknowns",
    "confidence",
    "cramer_rao",
    "examples_certificate",
    "expected_mean_square",
    "fresh_queries",
    "holdout",
    "identifiability",
    "lack_of_fit",
    "newton_kantorovich",
    "noise_agreement",
]
