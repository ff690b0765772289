"""What to think of what was learned: better than chance? of this model? enough labels?"""

import numpy as np
from jaxtyping import Float

from attnlearn._status import Status
from attnlearn.learners.single_location.joint import Joint
from attnlearn.learners.single_location.mixture import Tokens

LUCK, LUCK_PER_ENTRY = 10.0, 1.5  # log-likelihood ratio that noise must not reach: 1.5 d + 5.2 at most in 1140 draws
LABEL_LUCK = 10.0  # log evidence of the labels; unrelated ones pass it with probability at most exp(-10)
MISFIT, SIGMAS = 0.1, 6.0  # a length that is this much off and by this many standard errors is another model


def better_than_chance(log_ratio: float, d: int) -> bool:
    """Whether tokens speak for an informative one more than the best fit to noise does.

    With fixed parameters noise reaches a ratio t with probability at most exp(-t); fitting d numbers to a few sequences
    of noise adds about d.
    """
    return log_ratio > LUCK + LUCK_PER_ENTRY * d


def verdict(tokens: Tokens, y: Float[np.ndarray, " n"], found: Joint) -> tuple[Status, str]:
    """The first thing that is wrong, or `LEARNED`, each with its figures."""
    n, d = len(y), tokens.flat.shape[1]
    needed = LUCK + LUCK_PER_ENTRY * d
    if misfit := _other_tokens(tokens, found):
        return Status.NOT_SINGLE_LOCATION, misfit
    if not better_than_chance(found.log_ratio, d):
        return Status.NO_INFORMATIVE_TOKEN, f"Log-likelihood ratio {found.log_ratio:.3g}, wanted {needed:.3g}."
    if misfit := _length(tokens, found):
        return Status.NOT_SINGLE_LOCATION, misfit
    if not found.settled:
        steps, stage = (found.steps, "with the labels") if found.steps else (found.climbed, "over the tokens alone")
        return Status.NOT_CONVERGED, f"It took {steps} steps {stage}."
    sure = f"mean probability of the likeliest place {found.posterior.weights.max(axis=1).mean():.4f}"
    if n < d:
        return Status.TOO_FEW_EXAMPLES, (
            f"{n} labels for the {d} entries of v: it is shrunken, and its standard errors are mostly what was known "
            f"beforehand. The key direction holds; {sure}."
        )
    if np.all(y == y[0]):
        return Status.LABELS_UNEXPLAINED, f"All labels are {y[0]:g}."
    if found.value.log_ratio <= LABEL_LUCK:
        return Status.LABELS_UNEXPLAINED, (
            f"Log-likelihood ratio {found.value.log_ratio:.3g} of the labels, wanted {LABEL_LUCK:g}."
        )
    return Status.LEARNED, f"{sure[0].upper()}{sure[1:]}."


def _other_tokens(tokens: Tokens, found: Joint) -> str:
    """What contradicts standard normal entries of ordinary tokens; empty where nothing does."""
    d, weights = tokens.flat.shape[1], found.posterior.weights
    others = weights.size - len(weights)
    square = float(np.vdot(1 - weights, tokens.squares)) / (others * d)
    if abs(square - 1) <= max(MISFIT, SIGMAS * np.sqrt(2 / (others * d))):
        return ""
    return f"An entry of an ordinary token has the mean square {square:.3g}, wanted 1: standardise the tokens."


def _length(tokens: Tokens, found: Joint) -> str:
    """What contradicts the length of the mean of the informative tokens; empty where nothing does."""
    (k, gamma), weights, h = found.mixture, found.posterior.weights, tokens.length
    n, d = len(weights), len(k)
    along = float(np.vdot(weights, tokens.along(k))) / n
    length = np.sqrt(max(along**2 - gamma**2 * (d - 1) / n, 0))  # without what noise adds across k
    if abs(length - h) <= max(MISFIT * h, SIGMAS * gamma / np.sqrt(n)):
        return ""
    return f"The mean of the informative token has the length {length:.3g}, wanted sqrt(d/2) = {h:.3g}."
