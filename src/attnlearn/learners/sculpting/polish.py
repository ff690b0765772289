r"""The last fit, in the full space: what the paper does not do, and what makes the answer exact.

`Sculpting(polish=None)` stops in the hull. A polish takes the candidates that the hull gave and, where the hull is not
to be trusted, random ones; it says of every answer where it started.
"""

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn.learners.sculpting.marquardt import Fitted, Start, marquardt
from attnlearn.learners.sculpting.rows import Rows, relative_error

NORM = 1.0  # Frobenius norm of a random attention matrix


class Polished(NamedTuple):
    """A fit in the full space, its relative error on held-out rows, and where it started."""

    fitted: Fitted
    error: float
    start: str


class LeastSquares(eqx.Module):
    r"""Levenberg–Marquardt in all $md^2$ entries of the attention matrices.

    **Fields:**

    - `rows`: rows of the last fit. Under label noise the error of the answer falls with their root.
    - `search_rows`: rows on which starts are tried.
    - `steps`: at most, of each run.
    - `restarts`: random starts, used only where no candidate of the hull explains the held-out rows.

    **Guarantee.** None in advance: the objective has local minima. A fit is kept by its error on held-out rows.
    """

    rows: int = 6000
    search_rows: int = 1500
    steps: int = 60
    restarts: int = 8

    def __check_init__(self):
        for name, least in (("rows", 1), ("search_rows", 1), ("steps", 1), ("restarts", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")

    def __call__(
        self,
        fit: Rows,
        held_out: Rows,
        candidates: list[tuple[str, Float[np.ndarray, "m d d"]]],
        target: float,
    ) -> Polished:
        """The first fit whose error on held-out rows is at most `target`, or else the best; candidates in order."""
        best, few = None, fit.part(slice(0, self.search_rows))
        for number, (name, thetas) in enumerate(candidates):
            progress("least squares", number, len(candidates))
            fitted = marquardt(few, Start(thetas), self.steps)
            found = Polished(fitted, relative_error(held_out, fitted.thetas, fitted.W), name)
            best = found if best is None or found.error < best.error else best
            if best.error <= target:
                break
        assert best is not None  # a learner asks with a candidate, or with restarts
        return self._finished(fit, held_out, best)

    def random(self, heads: int, width: int, key: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
        """Random candidates with Gaussian directions."""
        for number in range(self.restarts):
            thetas = key.standard_normal((heads, width, width))
            norms = np.linalg.norm(thetas, axis=(1, 2), keepdims=True)
            yield f"random start {number + 1}", NORM * thetas / norms

    def _finished(self, fit: Rows, held_out: Rows, best: Polished) -> Polished:
        """The best fit on all rows that the last fit may use."""
        if len(fit.Y) <= self.search_rows:
            return best
        fitted = marquardt(fit.part(slice(0, self.rows)), Start(best.fitted.thetas), self.steps)
        last = Polished(fitted, relative_error(held_out, fitted.thetas, fitted.W), best.start)
        return last if last.error <= best.error else best
