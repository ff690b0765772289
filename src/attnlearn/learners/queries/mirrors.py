r"""Uniform heads and mirror images, by a repeated token.

Two-token questions cannot tell $\{(\Theta, W)\}$ from $\{(-\Theta, -W), (0, 2W)\}$, since
$\sigma(s) = 1 - \sigma(-s)$. Every jump $J_i$ is therefore a pair of heads, $(\Theta_i, J_i + Z_i)$ and
$(-\Theta_i, Z_i)$, beside one uniform head $W_u$; with $R = W_\Sigma - \sum_i J_i$ they satisfy
$R = W_u + 2 \sum_i Z_i$, and $l$ copies of $x$ show the $Z_i$:

$$g_l(x, v) - \sum_i \sigma(s_i - \log l) v^T J_i - \frac{v^T R}{l + 1} = \sum_i h_l(s_i)\, v^T Z_i, \qquad
h_l(s) = \sigma(s - \log l) + \sigma(-s - \log l) - \frac{2}{l + 1} .$$

The $s_i$ come from the same question with one copy. An ordinary head has $Z_i = 0$ or $J_i + Z_i = 0$.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.directions import PILOTS, moderate_length
from attnlearn.learners.queries.probing import Affine, Box, Rows, Values, largest, logit, moved, orthogonal_rows

COPIES = 8
LOGIT_RANGE = 3.0
NEGLIGIBLE = 1e-7  # a circuit below this part of the largest is rounding
DEPENDENT = 1e8  # conditioning of the moves of one token by all heads


def resolve(
    box: Box, affine: Affine, jumps: Float[np.ndarray, "j d d_out"], precision: float, key: np.random.Generator
) -> Values:
    """Returns the OV circuits of all heads behind the jumps; stops with `HEADS_UNRESOLVED` where they do not add up."""
    if len(jumps) > len(affine.offset):
        raise Stop(Status.READOUT_ILL_CONDITIONED, f"{len(jumps)} heads share {len(affine.offset)} output numbers.")
    if len(jumps) == 0:
        return _values(affine.ov_sum[None], precision, (0.0, 0.0), {"mirrored": 0, "uniform": True})
    jumps = _oriented(jumps, affine.ov_sum)
    size = max(largest(jumps), largest(affine.ov_sum))
    dependence = float(np.linalg.cond(np.einsum("d,jde->je", key.standard_normal(box.width), jumps)))
    if dependence > DEPENDENT:
        raise Stop(
            Status.READOUT_ILL_CONDITIONED,
            f"The OV circuits of {len(jumps)} heads are dependent (conditioning {dependence:.0e}): two share one.",
        )
    reader = _Reader(box, affine, jumps, affine.ov_sum - jumps.sum(0))
    length, sizes = _typical_logits(reader, LOGIT_RANGE, key)

    mirrors = _mirrors(reader, length, max(NEGLIGIBLE, 100 * precision) * size, key)
    uniform = affine.ov_sum - (jumps + 2 * mirrors).sum(0)
    candidates = np.concatenate([jumps + mirrors, mirrors, uniform[None]])
    kept = np.abs(candidates).max((1, 2)) > max(NEGLIGIBLE, 100 * precision) * size
    mirrored = int(np.sum(kept[: len(jumps)] & kept[len(jumps) : -1]))
    return _values(candidates[kept], precision, sizes, {"mirrored": mirrored, "uniform": bool(kept[-1])})


def _mirrors(reader: "_Reader", length: float, least: float, key: np.random.Generator) -> np.ndarray:
    """The $Z_i$ (j, d, d_out) of all heads; entries below `least` count as zero."""
    box, mirrors = reader.box, np.zeros_like(reader.jumps)
    scouts = length * box.scale * key.standard_normal((2, box.width))
    least *= length * box.scale
    if reader.mirror_parts(scouts, np.arange(0), key)[1] <= least:
        return mirrors
    shown, unexplained = reader.mirror_parts(scouts, np.arange(len(mirrors)), key)
    if unexplained > 10 * least:
        raise Stop(
            Status.HEADS_UNRESOLVED,
            f"Repeating a token moves the answer by {unexplained:.1e} more than heads that flip explain (limit "
            f"{10 * least:.1e}): two heads of opposite scores share an OV circuit.",
        )
    partners = np.flatnonzero(np.abs(shown).max((0, 2)) > least)
    basis = length * box.scale * orthogonal_rows(key, box.width, box.width)
    parts, _ = reader.mirror_parts(basis, partners, key)  # (d, partners, d_out)
    mirrors[partners] = np.linalg.solve(basis, parts.swapaxes(0, 1))
    return mirrors


def _values(ov: np.ndarray, precision: float, sizes: tuple[float, float], figures: dict[str, Any]) -> Values:
    spectra = np.linalg.svd(ov, compute_uv=False)
    ranks = tuple(int(np.sum(s > max(NEGLIGIBLE, 100 * precision) * s[0])) for s in spectra)
    return Values(ov, ranks, precision, *sizes, spectra, {"ranks": list(ranks), "precision": precision, **figures})


def _oriented(jumps: np.ndarray, total: np.ndarray) -> np.ndarray:
    r"""Signs for which the jumps come nearest to adding up to $W_\Sigma$: the reading with the fewest heads."""
    sign = np.sign(np.linalg.lstsq(jumps.reshape(len(jumps), -1).T, total.ravel())[0])
    return jumps * np.where(sign == 0, 1, sign)[:, None, None]


@dataclass(frozen=True)
class _Reader:
    box: Box
    affine: Affine
    jumps: Float[np.ndarray, "j d d_out"]
    rest: Float[np.ndarray, "d d_out"]

    def weights(self, x: Rows, v: Rows) -> Float[np.ndarray, "n j"]:
        r"""$\sigma(s_i(x, v))$ from one copy of $x$."""
        answers = moved(self.box, self.affine, x, v) - v @ self.rest / 2
        atoms = np.einsum("nd,jde->nje", v, self.jumps)
        return np.einsum("ne,nej->nj", answers, np.linalg.pinv(atoms))

    def mirror_parts(self, v: Rows, heads: np.ndarray, key: np.random.Generator) -> tuple[np.ndarray, float]:
        """$v^T Z_i$ of the chosen `heads` (n, heads, d_out), from a few random querying tokens, and what they leave."""
        n = 3 * len(heads) + 4
        parts, left = np.zeros((len(v), len(heads), self.jumps.shape[2])), 0.0
        for row, one in enumerate(v):
            progress("mirrors", row, len(v))
            x = 2 * self.box.scale * key.standard_normal((n, self.box.width))
            factor = key.uniform(0.3, 3, (n, 1))  # tells heads apart that do not depend on x
            p = self.weights(x, factor * one)
            usable = ((p > 1e-6) & (p < 1 - 1e-6)).all(1)
            if usable.sum() < len(heads) + 1:
                raise Stop(Status.HEADS_UNRESOLVED, "Weights read from two tokens lie outside 0 and 1.")
            x, factor, s = x[usable], factor[usable], logit(p[usable])
            above, below = expit(s - np.log(COPIES)), expit(-s - np.log(COPIES))
            answers = moved(self.box, self.affine, x, factor * one, COPIES) / factor
            known = above @ (one @ self.jumps) + one @ self.rest / (COPIES + 1)
            h = (above + below - 2 / (COPIES + 1))[:, heads]
            parts[row] = np.linalg.lstsq(h, answers - known, rcond=1e-9)[0]
            left = max(left, largest(answers - known - h @ parts[row]))
        return parts, left


def _typical_logits(reader: _Reader, logit_range: float, key: np.random.Generator) -> tuple[float, tuple[float, float]]:
    """The length of $v$ at which logits are near `logit_range`, and the largest head's logit and bias at length 1."""
    shape = (PILOTS, reader.box.width)
    x, v = reader.box.scale * key.standard_normal((2, *shape))
    length = moderate_length(lambda x, length: reader.weights(x, length * v), x, 1.0, logit_range)
    with_x, without = (logit(reader.weights(tokens, length * v)) / length for tokens in (x, 0 * x))
    logit_size, bias_size = (float(np.sqrt(np.mean(s**2, axis=0)).max()) for s in (with_x - without, without))
    return length, (logit_size, bias_size)
