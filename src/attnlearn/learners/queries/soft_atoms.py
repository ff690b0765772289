r"""Stage 2 for a box that bounds its tokens: the atoms from derivatives at moderate logits, without saturation.

At a fixed $v_0$, $f(x) = g(x, v_0) = \sum_i \sigma(s_i(x))\, a_i$ has the Jacobian $J(x) = H \theta^T D(x) A$ along the
rows of $H$, with $D(x) = \mathrm{diag}_i\, \sigma'(s_i(x))$. With the mean $\bar J$ of some of them
$\bar J^+ J(x) = A^{-1} \bar D^{-1} D(x) A$ on the row space of $A$: its left eigenvectors are the directions of
the atoms. Their lengths come from a sigmoid fitted along a line.
"""

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit

from attnlearn._status import Status, Stop
from attnlearn.learners.queries.atoms import Atoms
from attnlearn.learners.queries.probing import Affine, Answers, Box, Rows, largest, moved

SAMPLES, EXPANSIONS = 24, 8
LINE = np.linspace(-3, 3, 13)
ATTEMPTS = 3  # lines; along an unlucky one the weight of some head hardly changes
STEP = 1e-4  # of the central differences, in units of a token entry; errors are of order STEP**2


def learn_soft_atoms(box: Box, affine: Affine, key: np.random.Generator, step: float = STEP) -> Atoms:
    """Returns the atoms at a moderate $v_0$, in 24 + 32 m + 13 questions; stops with `HEADS_UNRESOLVED`.

    Where the lengths miss the sum rule another line is tried: 13 questions more, at most twice.
    """
    v0 = box.scale * key.standard_normal(box.width) / np.sqrt(box.width)

    def ask(x: Rows) -> Answers:
        return moved(box, affine, x, np.broadcast_to(v0, x.shape))

    x = box.scale * key.standard_normal((SAMPLES, box.width))
    answers = ask(x)
    _, spectrum, rows = np.linalg.svd(answers - answers.mean(0), full_matrices=False)
    m = int(np.sum(spectrum > 1e-9 * spectrum[0]))
    if m == 0 or largest(spectrum) == 0:
        raise Stop(Status.HEADS_UNRESOLVED, "No head changes its weights between tokens.")
    rows = rows[:m]

    directions = key.standard_normal((2 * m, box.width))
    steps = step * box.scale * directions
    around = x[:EXPANSIONS, None, None] + np.stack([steps, -steps])  # (8, 2, 2m, d)
    plus, minus = np.moveaxis(ask(around.reshape(-1, box.width)).reshape(*around.shape[:3], -1), 1, 0)
    jacobians = (plus - minus) @ rows.T / (2 * step)
    quotients = np.linalg.pinv(jacobians.mean(0)) @ jacobians  # (8, m, m)
    mixed = np.tensordot(key.standard_normal(EXPANSIONS), quotients, 1)
    unit = np.real(np.linalg.eig(mixed.T)[1]).T @ rows
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)

    limit, inverse, residual = max(1e-6, 1e4 * step**2), np.linalg.pinv(unit), np.inf
    for attempt in range(1, 1 + ATTEMPTS):
        along = 2 * key.standard_normal(box.width) * box.scale
        atoms = _lengths(ask(x[0] + LINE[:, None] * along) @ inverse)[:, None] * unit
        residual = largest(atoms.sum(0) - v0 @ affine.ov_sum) / largest(atoms)
        if residual <= limit:
            return Atoms(v0, atoms, spectrum, 1.0, residual, attempt * len(LINE))
    raise Stop(Status.HEADS_UNRESOLVED, f"The soft atoms miss the sum rule by {residual:.1e} (limit {limit:.1e}).")


def _lengths(curves: np.ndarray) -> np.ndarray:
    r"""$z_0$ of $z_0 \sigma(z_1 + z_2 \tau)$ fitted to every column of `curves` (13, m)."""
    return np.array([_length(curve) for curve in curves.T])


def _length(curve: np.ndarray) -> float:
    size = largest(curve)

    def misfit(z: np.ndarray) -> np.ndarray:
        return z[0] * expit(z[1] + z[2] * LINE) - curve / size

    sign = np.sign(curve[np.argmax(np.abs(curve))])
    fits = [
        least_squares(misfit, (sign, 0.0, slope), xtol=1e-15, ftol=1e-15, gtol=1e-15) for slope in (1, -1, 0.3, -0.3)
    ]
    return size * min(fits, key=lambda fit: fit.cost).x[0]
