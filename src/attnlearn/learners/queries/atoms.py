r"""Stage 2: the number of heads and their atoms, from the jumps of hard attention.

As $t \to \infty$, $f(x) = g(x, t v_0)/t \to \sum_{i: s_i(x) > 0} a_i$ with the *atoms* $a_i = v_0^T W_i$ and
$s_i(x) = [x, 1]^T [\Theta_i; \beta_i] v_0$. Scaling $v_0$ and not $x$ keeps the relative precision of the answer.
The number of heads is the rank of $f$ over random $x$; the atoms are its jumps along a line.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.probing import Affine, Answers, Box, Rows, largest, moved

SAMPLES = 40
SCOUTS = 8  # samples that search for the saturating length
GRID = 49  # first points of a line
ATTEMPTS = 2
MAX_LENGTH = 1e9
PATIENCE = 3  # halvings before the line is made longer
NARROWEST = 1e-7  # intervals are not halved below this angle


@dataclass(frozen=True)
class Atoms:
    """`v0` (d,), `atoms` (m, d_out); `spectrum` is that of the saturated answers, `points` were asked on the line."""

    v0: Float[np.ndarray, " d"]
    atoms: Float[np.ndarray, "m d_out"]
    spectrum: Float[np.ndarray, " n"]
    length: float
    sum_residual: float
    points: int


def learn_atoms(box: Box, affine: Affine, key: np.random.Generator) -> Atoms:
    """Returns the atoms of all heads; stops with `HEADS_UNRESOLVED` when some head does not switch by itself."""
    failure = Stop(Status.HEADS_UNRESOLVED)
    for attempt in range(ATTEMPTS):
        progress("atoms", attempt, ATTEMPTS)
        v0 = box.scale * key.standard_normal(box.width)
        try:
            return _attempt(box, affine, v0, key)
        except Stop as stop:
            if stop.status is not Status.HEADS_UNRESOLVED:
                raise
            failure = stop
    raise failure


def _attempt(box: Box, affine: Affine, v0: np.ndarray, key: np.random.Generator) -> Atoms:
    samples = 10 * box.scale * key.standard_normal((SAMPLES, box.width))
    length, answers = _saturate(box, affine, samples, v0)
    epsilon = box.epsilon(box.scale * length)
    spectrum = np.linalg.svd(answers - answers.mean(0), compute_uv=False)
    tolerance = max(2000 * epsilon, 1e-11) * np.sqrt(len(answers))
    m = int(np.sum(spectrum > tolerance * spectrum[0])) if spectrum[0] > tolerance * largest(answers) else 0
    if m == 0:
        raise Stop(Status.HEADS_UNRESOLVED, "No head switches between tokens.")
    before = box.calls
    atoms, rest = _atoms_on_a_line(box, affine, length * v0, answers * length, m, key)
    atoms, rest = atoms / length, rest / length
    size = largest(atoms)
    residual = largest(atoms.sum(0) - v0 @ affine.ov_sum) / size
    # The measured W_Sigma carries noise / (4 amplitude scale sqrt(d)) an entry, v0 adds sqrt(d) scale of it up.
    tolerance = max(1e-6, 1e5 * epsilon) + 10 * box.noise / (box.amplitude * size)
    if residual > tolerance or rest / size > tolerance:
        raise Stop(
            Status.HEADS_UNRESOLVED,
            f"{m} heads switch, but their atoms miss the sum rule by {residual:.1e} (limit {tolerance:.1e}): "
            "some head does not switch with the querying token, or attends uniformly, or has its mirror image.",
        )
    return Atoms(v0, atoms, spectrum, length, residual, box.calls - before)


def _saturate(box: Box, affine: Affine, x: Rows, v0: np.ndarray) -> tuple[float, Float[np.ndarray, "settled d_out"]]:
    """The length at which attention is hard, and the saturated answers of the samples that sit in no transition."""
    length, previous, scouts = 30.0, None, x[:SCOUTS]
    # Where every head looks away from v0 the answers vanish: they are small beside the sum of all atoms.
    total = max(largest(v0 @ affine.ov_sum), 1e-300)
    while True:
        answers = moved(box, affine, scouts, np.broadcast_to(length * v0, scouts.shape)) / length
        if previous is not None:
            change = np.abs(answers - previous).max(1) / max(largest(answers), total)
            if np.mean(change < max(200 * box.epsilon(box.scale * length), 1e-12)) > 0.8:
                break
        if length > MAX_LENGTH:
            raise Stop(Status.CANNOT_SATURATE, f"Answers still change at {length:.0e} times the token length.")
        previous, length = answers, 8 * length
    first, last = (moved(box, affine, x, np.broadcast_to(t * v0, x.shape)) / t for t in (16 * length, 128 * length))
    # Almost no sample sits in a transition at this length; those that do moved between the two lengths.
    tolerance = max(1e3 * box.epsilon(box.scale * length), 1e-11)
    settled = np.abs(last - first).max(1) < tolerance * max(largest(last), total)
    if settled.mean() < 0.5:
        raise Stop(
            Status.CANNOT_SATURATE,
            f"Only {settled.sum()} of {SAMPLES} answers agree at {16 * length:.0e} and {128 * length:.0e} times v0.",
        )
    return 128 * length, last[settled]


def _atoms_on_a_line(
    box: Box, affine: Affine, v: np.ndarray, answers: Answers, m: int, key: np.random.Generator
) -> tuple[Float[np.ndarray, "_ d_out"], float]:
    """Halves the intervals of a line until exactly `m` distinct jumps explain all answers by 0 and 1."""
    ends = 10 * box.scale * key.standard_normal((2, box.width))
    epsilon = box.epsilon(largest(v))

    def ask(angles: np.ndarray) -> Answers:
        x = np.cos(angles)[:, None] * ends[0] + np.sin(angles)[:, None] * ends[1]
        return moved(box, affine, x, np.broadcast_to(v, x.shape))

    angles = np.linspace(0, np.pi, GRID) + key.uniform(0, 1e-3)
    values, jumps = ask(angles), np.zeros((0, len(affine.offset)))
    # With a bias a head may flip just outside a half circle: where halving finds no more, the line is made longer.
    longer = angles[-1] + np.pi / GRID * np.arange(1, 1 + GRID // 3)
    for halvings in itertools.count():
        jumps, open_intervals = _jumps(angles, values, epsilon)
        found = _explains(jumps, answers, m)
        if found is not None:
            return found
        fresh = (angles[open_intervals] + angles[open_intervals + 1]) / 2
        if len(longer) and (not len(fresh) or (halvings >= PATIENCE and len(jumps) < m)):
            fresh, longer = np.concatenate([fresh, longer]), longer[:0]
        if not len(fresh) or len(angles) > 300 + 40 * m:
            break
        values = np.concatenate([values, ask(fresh)])
        angles = np.concatenate([angles, fresh])
        order = np.argsort(angles)
        angles, values = angles[order], values[order]
    raise Stop(Status.HEADS_UNRESOLVED, f"The rank shows {m} heads, the jumps along a line {len(jumps)}.")


def _jumps(angles: np.ndarray, values: Answers, epsilon: float) -> tuple[Float[np.ndarray, "_ d_out"], np.ndarray]:
    """Distinct jumps up to sign, and the intervals that may still hide more than one."""
    steps = np.diff(values, axis=0)
    jumping = np.flatnonzero(np.abs(steps).max(1) > max(1e4 * epsilon, 1e-9) * largest(values))
    groups: list[list[int]] = []
    for i in jumping.tolist():
        if groups and groups[-1][-1] == i - 1 and _collinear(steps[i - 1], steps[i], epsilon):
            groups[-1].append(i)  # a sample fell into one transition and split its jump
        else:
            groups.append([i])
    distinct: list[np.ndarray] = []
    for group in groups:
        jump = steps[group].sum(0)
        size = np.linalg.norm(jump)
        if all(
            min(np.linalg.norm(jump - s * other) for s in (1, -1)) > max(1e-5, 2000 * epsilon) * size
            for other in distinct
        ):
            distinct.append(jump)
    single = np.array([g[0] for g in groups if len(g) == 1], int)
    return np.array(distinct).reshape(-1, values.shape[1]), single[np.diff(angles)[single] > NARROWEST]


def _collinear(a: np.ndarray, b: np.ndarray, epsilon: float) -> bool:
    return bool(1 - abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) <= max(1e-7, 300 * epsilon))


def _explains(
    jumps: Float[np.ndarray, "_ d_out"], answers: Answers, m: int
) -> tuple[Float[np.ndarray, "_ d_out"], float] | None:
    """The atoms, when `m` jumps explain the answers by coefficients 0 and 1; `None` otherwise."""
    if len(jumps) != m or np.linalg.cond(jumps) > 1e8:
        return None
    coefficients = np.linalg.lstsq(jumps.T, answers.T)[0]  # (m, N)
    sign = np.where(coefficients.mean(1) < 0, -1.0, 1.0)
    pattern = np.round(coefficients * sign[:, None])
    if np.abs(coefficients * sign[:, None] - pattern).max() > 1e-3 or not np.isin(pattern, (0, 1)).all():
        return None
    atoms = jumps * sign[:, None]
    if np.linalg.matrix_rank(pattern) == m:
        atoms = np.linalg.lstsq(pattern.T, answers)[0]
    return atoms, largest(answers - pattern.T @ atoms)
