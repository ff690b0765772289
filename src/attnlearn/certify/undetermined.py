"""The measured null space of a Jacobian against the closed-form directions among its unknowns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn.certify.gauge import gauge
from attnlearn.certify.jacobian import Jacobian
from attnlearn.layers.products import Circuits

ALIGNED = 1 - 1e-6  # cosine from which a direction lies in a space: angles below 1e-3, where rounding leaves 1e-7


@dataclass(frozen=True)
class Undetermined:
    """Directions of the unknowns that no output shows.

    - `measured`: their number, the nullity of J; `None`: not measured.
    - `expected`: the number in closed form.
    - `unexplained`: measured ones outside the closed form.
    - `names`: of the kinds in the closed form, and of what is left over.
    - `lacking`: what the closed form does not cover, in words; "": nothing.
    """

    measured: int | None
    expected: int
    unexplained: int
    names: tuple[str, ...]
    lacking: str

    @property
    def agrees(self) -> bool:
        """Measured and closed form are the same space."""
        return self.measured == self.expected and not self.unexplained


def undetermined(jacobian: Jacobian, null: Float[np.ndarray, "nullity parameters"] | None = None) -> Undetermined:
    """What `null`, the null space of J in its coordinates, consists of; `None`: the closed form alone.

    Cost: a decomposition of a (directions, parameters) matrix.
    """
    families, lacking = gauge(jacobian.layer, jacobian.inputs, jacobian.unknowns)
    expected = sum(family.dimension for family in families)
    names = tuple(f"{family.name}: {family.formula}" for family in families)
    if null is None:
        return Undetermined(None, expected, 0, names, lacking)
    elements = [family.element(one) for family in families for one in np.eye(family.dimension)]
    explained = 0
    if elements:
        qk, ov, query_bias, offset = (np.stack(list(map(np.asarray, parts))) for parts in zip(*elements, strict=True))
        rows = jacobian.coordinates.vectors(Circuits(qk, ov, query_bias, offset))
        basis = np.linalg.qr(rows.T)[0]
        explained = int(np.sum(np.linalg.svd(null @ basis, compute_uv=False) > ALIGNED))
    unexplained = len(null) - explained
    names += (f"{unexplained} directions without a name",) if unexplained else ()
    return Undetermined(len(null), expected, unexplained, names, lacking)
