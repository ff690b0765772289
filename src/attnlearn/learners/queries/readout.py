r"""Stage 5: the QK circuits, by a linear read-out of attention weights and a two-sided sketch.

In the sequence $[V;\ 0;\ U]$ the answer of row $u_a$ is linear in its attention weights $p_i(a, j)$, whose token
values $x_j^T W_i$ are known. Solved for all heads at once they give

$$[u_a, 1]^T [\Theta_i; \beta_i] v_j = \log p_i(a, j) - \log p_i(a, 0).$$

Two such grids, one with all $u$ and few $v$ and one with few $u$ and all $v$, determine a circuit of low rank.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn.learners.queries.probing import Affine, Box, Rows, Values, orthogonal_rows

CHUNK = 64  # sequences read out at once

# Threads cost more than they bring on matrices this small, and beside other work far more.
one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


@dataclass(frozen=True)
class Blocks:
    """How many querying tokens `q` and key tokens `w` share a sequence; `q = 0`: one $x$, tokens $[x + V;\\ x]$."""

    q: int
    w: int


@dataclass(frozen=True)
class Scales:
    """Entry sizes of querying and key tokens."""

    query: float
    key: float


@dataclass(frozen=True)
class Circuits:
    r"""`extended` (m, d + 1, d): $[\Theta_i; \beta_i]$; `smallest_weight` is the least attention weight read.

    `misfit` says how far the circuits are from the logits they were made of; infinite for a head with a weight read
    as negative.
    """

    extended: Float[np.ndarray, "m d_plus_1 d"]
    ranks: tuple[int, ...]
    spectra: Float[np.ndarray, "m n"]
    smallest_weight: float
    misfit: Float[np.ndarray, " m"]
    sketch: tuple[int, int]


def block_sizes(d_out: int, ov_ranks: tuple[int, ...], fill: float, isolated_rows: bool) -> Blocks:
    r"""The largest blocks whose weights the answers determine.

    $m(q + w) \le$ `fill` $d_{out}$ keeps the solve well posed, $q + w \le \max($`fill`$, .6) \min_i r_i$ the values of
    a head independent. Stops with `READOUT_ILL_CONDITIONED` where not even one weight a head can be read.
    """
    m = len(ov_ranks)
    n = min(int(fill * d_out / m), int(max(fill, 0.6) * min(ov_ranks)))
    if isolated_rows or n < 2:
        if m > d_out:
            raise Stop(
                Status.READOUT_ILL_CONDITIONED, f"{m} heads share {d_out} output numbers: no weight can be read."
            )
        return Blocks(0, max(1, n))
    return Blocks(n // 2, n - n // 2)


class Reader:
    """Reads logits of all heads on grids of tokens.

    What the reading met is kept: `smallest` weight, `conditioning` of the
    token values, and `failed` (m,), the heads with a weight that was not positive.
    """

    def __init__(self, box: Box, affine: Affine, values: Values, blocks: Blocks):
        self.box, self.affine, self.blocks, self.precision = box, affine, blocks, values.precision
        sure = np.eye(values.ov.shape[2])
        if values.uncertain is not None:
            sure -= values.uncertain.T @ values.uncertain
        self.sure, self.ov = sure, values.ov @ sure
        self.smallest, self.conditioning, self.failed = np.inf, 1.0, np.zeros(len(values.ov), bool)

    def grid(self, queries: Float[np.ndarray, "nu d"], keys: Float[np.ndarray, "nv d"]) -> Float[np.ndarray, "m nu nv"]:
        r"""$[u_a, 1]^T [\Theta_i; \beta_i] v_j$ for all heads, queries and keys."""
        step = max(self.blocks.q, 1)
        corners = [(a, j) for a in range(0, len(queries), step) for j in range(0, len(keys), self.blocks.w)]
        logits = np.zeros((len(self.ov), len(queries), len(keys)))
        by_shape: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for a, j in corners:
            shape = (min(step, len(queries) - a), min(self.blocks.w, len(keys) - j))
            by_shape.setdefault(shape, []).append((a, j))
        for (q, w), group in by_shape.items():
            for start in range(0, len(group), CHUNK):
                part = group[start : start + CHUNK]
                u = np.stack([queries[a : a + q] for a, _ in part])
                v = np.stack([keys[j : j + w] for _, j in part])
                block = self._read(u, v)  # (n, m, q, w)
                for (a, j), values in zip(part, block, strict=True):
                    logits[:, a : a + q, j : j + w] = values
        self.failed |= ~np.isfinite(logits).all((1, 2))
        return np.where(np.isfinite(logits), logits, 0.0)

    def _read(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        zero = np.zeros_like(u[:, :1])
        if self.blocks.q:
            tokens = self.box.rounded(np.concatenate([v, zero, u], axis=1))
            rows = self.box.ask(tokens)[:, v.shape[1] + 1 :] - self.affine.offset
            others = np.concatenate([tokens[:, : v.shape[1]], tokens[:, v.shape[1] + 1 :]], axis=1)
        else:
            tokens = self.box.rounded(np.concatenate([u + v, u], axis=1))
            rows = self.box.ask(tokens)[:, -1:] - self.affine.of(tokens[:, -1])[:, None]
            others = tokens[:, :-1] - tokens[:, -1:]
        p = self._solve(others, rows)  # (n, rows, m, others)
        here = 1 - p.sum(-1, keepdims=True)
        there = p[..., : v.shape[1]]
        self.smallest = min(self.smallest, there.min(), here.min())
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(there) - np.log(here)
        return logits.swapaxes(1, 2)

    @one_thread
    def _solve(self, tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Attention weights (n, rows, m, tokens) from answers (n, rows, d_out): least squares, one QR a sequence."""
        n, k, _ = tokens.shape
        m, _, d_out = self.ov.shape
        values = np.einsum("nkd,mde->nemk", tokens, self.ov, optimize=True).reshape(n, d_out, m * k)
        size = np.linalg.norm(values, axis=1, keepdims=True)
        q, r = np.linalg.qr(values / np.maximum(size, 1e-300))
        pivots = np.abs(np.diagonal(r, axis1=1, axis2=2))
        self.conditioning = max(self.conditioning, float((1 / np.maximum(pivots, 1e-300)).max()))
        if self.conditioning > 1e-4 / self.box.oracle.epsilon:
            raise Stop(
                Status.READOUT_ILL_CONDITIONED,
                f"The values of the tokens are dependent (conditioning {self.conditioning:.0e}): two heads share an "
                "OV circuit or its row space.",
            )
        solution = np.linalg.solve(r, q.swapaxes(1, 2) @ (rows @ self.sure).swapaxes(1, 2))
        return (solution / size.swapaxes(1, 2)).reshape(n, m, k, rows.shape[1]).transpose(0, 3, 1, 2)


def learn_circuits(
    reader: Reader, scales: Scales, key: np.random.Generator, head_dim: int | None = None, oversampling: int = 4
) -> Circuits:
    r"""Returns $[\Theta_i; \beta_i]$ of every head and its rank, from (d + 1) (r + p) + (r + 2p) d logits a head."""
    box, d = reader.box, reader.box.width
    rows = orthogonal_rows(key, d, d)
    # The row that tells the bias lies as far from the plane through the others as its length allows.
    u = box.rounded(scales.query * np.concatenate([rows, -rows.sum(0, keepdims=True) / np.sqrt(d)]))
    omega, columns, ranks = _columns(reader, u, scales.key, key, (head_dim, oversampling))
    psi = box.rounded(scales.query * key.standard_normal((min(d + 1, max(ranks) + 2 * oversampling), d)))
    basis = box.rounded(scales.key * orthogonal_rows(key, d, d))
    rows = np.linalg.solve(basis, reader.grid(psi, basis).swapaxes(1, 2)).swapaxes(1, 2)
    psi = _extend(psi)
    extended = np.stack([_joined(c, r, psi, rank) for c, r, rank in zip(columns, rows, ranks, strict=True)])
    misfit = _relative(psi @ extended - rows, rows) + _relative(extended @ omega.T - columns, columns)
    return Circuits(
        extended,
        ranks,
        _spectra(columns),
        float(reader.smallest),
        np.where(reader.failed, np.inf, misfit),
        (len(omega), len(psi)),
    )


def _columns(
    reader: Reader, u: Rows, size: float, key: np.random.Generator, sketch: tuple[int | None, int]
) -> tuple[Float[np.ndarray, "columns d"], np.ndarray, tuple[int, ...]]:
    r"""Random $\Omega$, the columns $[\Theta_i; \beta_i] \Omega^T$ and the ranks they show; as many as that takes."""
    head_dim, oversampling = sketch
    box, d = reader.box, reader.box.width
    tolerance = max(1e-9, 3e4 * box.epsilon(size), 2e3 * reader.precision)
    inverse = np.linalg.inv(_extend(u))
    omega, columns = np.zeros((0, d)), np.zeros((len(reader.ov), d + 1, 0))
    growth = head_dim + oversampling if head_dim else max(reader.blocks.w, oversampling)
    while True:
        fresh = box.rounded(size * key.standard_normal((min(growth, d - len(omega)), d)))
        columns = np.concatenate([columns, inverse @ reader.grid(u, fresh)], axis=2)
        omega = np.concatenate([omega, fresh])
        spectra = _spectra(columns)
        # Logits carry the same absolute error in every head, so a uniform head has rank 0 beside the others.
        ranks = tuple(int(np.sum(s > tolerance * max(s[0], 1e-3 * spectra.max()))) for s in spectra)
        progress("qk", len(omega), max(len(omega), min(max(ranks) + oversampling, d)))
        if head_dim:
            # Under rounding or noise the spectrum does not show the rank: the given one is taken.
            return omega, columns, tuple(min(r, head_dim) if box.exact else head_dim for r in ranks)
        seen = len(omega) - oversampling
        if max(ranks) <= seen:
            return omega, columns, ranks
        if len(omega) == d:  # a rank that is not seen to end is not cut
            return omega, columns, tuple(r if r <= seen else d for r in ranks)


def best_of(tries: list[Circuits]) -> Circuits:
    """Every head from the try that fits its own logits best; stops where a head failed in all of them."""
    best = np.argmin([t.misfit for t in tries], axis=0)
    misfit = np.min([t.misfit for t in tries], axis=0)
    smallest = min(t.smallest_weight for t in tries)
    if not np.isfinite(misfit).all():
        raise Stop(Status.READOUT_ILL_CONDITIONED, f"The least attention weight read is {smallest:.1e}, not positive.")
    return Circuits(
        np.stack([tries[t].extended[i] for i, t in enumerate(best)]),
        tuple(tries[t].ranks[i] for i, t in enumerate(best)),
        np.stack([tries[t].spectra[i] for i, t in enumerate(best)]),
        smallest,
        misfit,
        tries[0].sketch,
    )


@one_thread
def _spectra(columns: np.ndarray) -> np.ndarray:
    return np.linalg.svd(columns, compute_uv=False)


@one_thread
def _joined(columns: np.ndarray, rows: np.ndarray, psi: np.ndarray, rank: int) -> np.ndarray:
    r"""The circuit of given rank with known columns and rows: $u (\Psi u)^+ R$."""
    u = np.linalg.svd(columns, full_matrices=False)[0][:, :rank]
    return u @ np.linalg.lstsq(psi @ u, rows)[0] if rank else np.zeros((len(columns), rows.shape[1]))


def _extend(x: Rows) -> np.ndarray:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _relative(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.linalg.norm(error, axis=(1, 2)) / np.maximum(np.linalg.norm(size, axis=(1, 2)), 1e-300)
