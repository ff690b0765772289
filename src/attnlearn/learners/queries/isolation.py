r"""Stage 4: the OV circuits, one head at a time, from sequences that isolate every head at once.

From the token $x_i$ head $i$ wants $+v_0$ and every other head wants $-v_0$. In the sequence
$[t v_0 + n,\ 0,\ x_1, \dots, x_m]$ only head $i$ of row $x_i$ sits on the first token, so that the row answers
$F_i(n) - F_i(0) = n^T W_i$ up to $e^{-tL}$: one sequence probes all heads.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.atoms import Atoms
from attnlearn.learners.queries.directions import Directions
from attnlearn.learners.queries.probing import Affine, Box, Rows, Values, largest, orthogonal_rows

MAX_LENGTH = 1e6
FIRST_BLOCK, BLOCK = 14, 16
DEPENDENT = 5e3  # output spaces whose singular values fall below the largest by this factor nearly depend
SPARED = 0.1  # part of the outputs that the read-out can do without
SILENT = 1e-6  # of its atom: a head that answers less sits elsewhere
WORST = 1e-9  # precision below which the circuits are asked one by one


def learn_values(
    box: Box,
    affine: Affine,
    atoms: Atoms,
    directions: Directions,
    key: np.random.Generator,
    head_dim: int | None = None,
    oversampling: int = 4,
) -> Values:
    """Returns the OV circuit of every head; stops with `ISOLATION_FAILED` or `OV_SUM_MISMATCH`."""
    isolate = _Isolation(box, atoms, directions)
    epsilon = box.epsilon(isolate.size)
    length, probes, bases, spectra = _row_spaces(isolate, head_dim, oversampling, key)
    ranks = tuple(len(basis) for basis in bases)
    conditioning, weak, uncertain = _weak_directions(bases)
    shared = weak * epsilon < 1e-10 and conditioning * epsilon < WORST and largest(affine.ov_sum) > 0
    ov = _shared_out(affine, bases) if shared else _asked(isolate, bases, length, key)
    residual = largest(ov.sum(0) - affine.ov_sum) / max(largest(affine.ov_sum), largest(ov))
    limit = max(1e-6, 1e5 * epsilon)
    if residual > limit:
        raise Stop(Status.OV_SUM_MISMATCH, f"They miss it by {residual:.1e} (limit {limit:.1e}).")
    figures = {"ranks": list(ranks), "probes": probes, "length": length, "sum_residual": residual}
    figures["conditioning"] = conditioning if shared else None
    return Values(
        ov,
        ranks,
        precision=epsilon * (weak if shared else length),
        logit_size=float(np.linalg.norm(directions.theta, axis=1).max() * np.sqrt(box.width / directions.probes))
        * box.scale,
        bias_size=largest(directions.bias),
        figures=figures,
        spectra=spectra,
        uncertain=uncertain if shared else None,
    )


def _row_spaces(
    isolate: "_Isolation", head_dim: int | None, oversampling: int, key: np.random.Generator
) -> tuple[float, int, list[np.ndarray], Float[np.ndarray, "m n"]]:
    """Length, number of probes, orthonormal bases of every head's outputs and their spectra.

    Probes are added until every rank is seen to end, `oversampling` of them later.
    """
    box = isolate.box
    length, n, answers = _settle(isolate, key)
    while True:
        spectra = np.linalg.svd(answers, compute_uv=False)
        ranks = [int(np.sum(s > _cut(box, s[0], length, answers.shape[1:]))) for s in spectra]
        enough = min(box.width, (head_dim or max(ranks)) + oversampling)
        progress("isolation", min(len(n), enough), enough)
        if len(n) >= enough:
            break
        more = min(box.width, enough if head_dim else len(n) + (FIRST_BLOCK if len(n) == 2 else BLOCK)) - len(n)
        fresh = box.rounded(isolate.size * key.standard_normal((more, box.width)))
        answers = np.concatenate([answers, isolate.difference(fresh, length)], axis=1)
        n = np.concatenate([n, fresh])
    if head_dim:  # under rounding or noise the spectrum does not show the rank: the given one is taken
        ranks = [min(r, head_dim) if box.exact else head_dim for r in ranks]
    bases = [np.linalg.svd(a, full_matrices=False)[2][: max(1, r)] for a, r in zip(answers, ranks, strict=True)]
    return length, len(n), bases, spectra


def _cut(box: Box, largest_value: float, length: float, shape: tuple[int, int]) -> float:
    """Singular values below this are rounding, which grows with the length of the first token, or noise.

    A matrix of independent noise has singular values up to sqrt(rows) + sqrt(columns); differences carry sqrt(2) of it.
    """
    noise = 3 * np.sqrt(2) * box.noise * np.sqrt(shape).sum()
    return max(1e-10, 3000 * box.oracle.epsilon * length) * largest_value + noise


def _weak_directions(bases: list[np.ndarray]) -> tuple[float, float, np.ndarray]:
    r"""Conditioning of the stacked output spaces with and without their nearest dependences, and where those act.

    A dependence is a left singular vector $z$ of small singular value: errors of $W_\Sigma$ come back enlarged as
    $e\, z_i^T Q_i$ in head $i$, so only in the m output directions $z_i^T Q_i$. Answers along them can be left out.
    """
    stacked = np.concatenate(bases)
    total, d_out = stacked.shape
    if total > d_out:
        return np.inf, np.inf, np.zeros((0, d_out))
    left, s, _ = np.linalg.svd(stacked, full_matrices=False)
    n = min(int(np.sum(s < s[0] / DEPENDENT)), int(SPARED * d_out / len(bases)))
    ends = np.cumsum([len(q) for q in bases])[:-1]
    acting = [z @ q for vector in left.T[total - n :] for z, q in zip(np.split(vector, ends), bases, strict=True)]
    uncertain = np.linalg.qr(np.array(acting).T)[0].T if n else np.zeros((0, d_out))
    return float(s[0] / max(s[-1], 1e-300)), float(s[0] / max(s[total - n - 1], 1e-300)), uncertain


def _shared_out(affine: Affine, bases: list[np.ndarray]) -> Float[np.ndarray, "m d d_out"]:
    r"""With independent output spaces $W_\Sigma = \sum_i P_i Q_i$ has one solution, and it costs no question."""
    left = affine.ov_sum @ np.linalg.pinv(np.concatenate(bases))
    parts = np.split(left, np.cumsum([len(q) for q in bases])[:-1], axis=1)
    return np.stack([p @ q for p, q in zip(parts, bases, strict=True)])


def _asked(isolate: "_Isolation", bases: list[np.ndarray], length: float, key: np.random.Generator) -> np.ndarray:
    """Otherwise every head is asked on a basis: d sequences."""
    box = isolate.box
    basis = box.rounded(isolate.size * orthogonal_rows(key, box.width, box.width))
    ov = np.linalg.solve(basis, isolate.difference(basis, length))
    return np.stack([w @ q.T @ q for w, q in zip(ov, bases, strict=True)])


@dataclass(frozen=True)
class _Isolation:
    box: Box
    atoms: Atoms
    directions: Directions

    @property
    def size(self) -> float:
        return self.box.scale * self.box.amplitude

    def tokens(self) -> Rows:
        theta, bias = self.directions.theta, self.directions.bias
        wanted = np.linalg.norm(theta, axis=1) * np.sqrt(min(self.box.width, self.directions.probes)) * self.box.scale
        signs = 2 * np.eye(len(theta)) - 1
        return (wanted * signs - bias) @ np.linalg.pinv(theta).T

    def ask(self, n: Rows, length: float) -> Float[np.ndarray, "m n d_out"]:
        x = self.tokens()
        first = length * self.box.amplitude * self.atoms.v0 + n
        rest = np.broadcast_to(np.concatenate([np.zeros((1, x.shape[1])), x]), (len(n), len(x) + 1, x.shape[1]))
        return self.box.ask(np.concatenate([first[:, None], rest], axis=1))[:, 2:].swapaxes(0, 1)

    def difference(self, n: Rows, length: float) -> Float[np.ndarray, "m n d_out"]:
        """$n^T W_i$ for every head: the answer with $n$ less the answer without."""
        zero = np.zeros((1, n.shape[1]))
        answers = self.ask(np.concatenate([zero, n]), length)
        return answers[:, 1:] - answers[:, :1]


def _settle(isolate: _Isolation, key: np.random.Generator) -> tuple[float, Rows, np.ndarray]:
    """The length at which all heads answer, oddly in $n$ and no longer moved by the length; each test is needed."""
    n = isolate.box.rounded(isolate.size * key.standard_normal((2, isolate.box.width)))
    length, previous, moved = 4.0, None, np.inf
    while length <= MAX_LENGTH:
        answers = isolate.difference(np.concatenate([n, -n]), length)
        plus, minus = answers[:, :2], answers[:, 2:]
        size = np.abs(plus).max((1, 2))
        silent = size < SILENT * np.abs(isolate.atoms.atoms).max(1)  # still sits on another token: no answer at all
        limit = max(1e-12, 100 * isolate.box.epsilon(isolate.size) * length)
        if previous is not None:
            moved = _worst(plus - previous, size)
        if not silent.any() and max(_worst(plus + minus, size), moved) < limit:
            return length, n, (plus - minus) / 2
        previous, length = plus, 1.6 * length
    raise Stop(Status.ISOLATION_FAILED, f"Answers still move by {moved:.1e} at {length:.0e} times the token length.")


def _worst(error: np.ndarray, size: np.ndarray) -> float:
    """Largest entry of each head's error, relative to that head."""
    return float(np.max(np.abs(error).max((1, 2)) / np.maximum(size, 1e-300)))
