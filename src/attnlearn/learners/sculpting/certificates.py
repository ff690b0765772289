r"""Phase (ii), edges: rows in which all heads look at two token values $u,v$ and share their weight alike.

With the effective token $z$ of the row $x_a$,
$$t=\frac{\langle z-v,u-v\rangle}{|u-v|^2},\qquad \mathrm{res}=|z-v-t(u-v)|,$$
an edge with a small residual says of every head
$$\langle\Theta_i,\,x_a(u-v)^\top\rangle=\log\frac t{1-t}-\log\frac{n_u}{n_v}\pm\varepsilon,\qquad
  \varepsilon=\frac{\mathrm{res}+\delta_W}{|u-v|\,t(1-t)},$$
with the multiplicities $n$ of the values and the error $\delta_W$ that $W_s$ brings into $z$. That $\varepsilon$ is a
first-order estimate, for ranking and weights. What one head provably obeys is `slab`.

Errors of $W_s$ and of labels enter $z$ through $W_s^+$, in some directions far more than in others. With a matrix $S$
(`metric`) $t$ and res are those of $zS$, $uS$, $vS$, and $|u-v|$ is $|(u-v)S|$: the same certificate, read where errors
are even.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.learners.sculpting.tokens import AbstractTokens, values

LEAST_SHARE = 0.08  # t and 1-t of an admitted edge are at least this
WIDEST = 1.0  # residual above which an edge says nothing
PAIR_SCALARS = 2**22  # of the largest array that is made at once
ERROR_QUANTILE, LEAST_ERROR = 0.002, 1e-5
METRIC_FLOOR = 0.09  # of the mean square of the pseudoinverse


class Edges(NamedTuple):
    """Certified rows: asking and effective token, the two values, the share of the first, the residual and the length
    of $u-v$ in the metric, log odds."""

    query: Float[np.ndarray, "n d"]
    effective: Float[np.ndarray, "n d"]
    u: Float[np.ndarray, "n d"]
    v: Float[np.ndarray, "n d"]
    share: Float[np.ndarray, " n"]
    residual: Float[np.ndarray, " n"]
    reach: Float[np.ndarray, " n"]
    log_odds: Float[np.ndarray, " n"]

    def take(self, index: np.ndarray) -> "Edges":
        """Those that `index` names."""
        return Edges(*(field[index] for field in self))

    @classmethod
    def joined(cls, parts: list["Edges"]) -> "Edges":
        """All of all parts."""
        return cls(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))

    @property
    def length(self) -> Float[np.ndarray, " n"]:
        """$|u-v|$."""
        return np.linalg.norm(self.u - self.v, axis=1)

    @property
    def functionals(self) -> Float[np.ndarray, "n dd"]:
        r"""$\mathrm{vec}(x_a(u-v)^\top)$, row-major."""
        return (self.query[:, :, None] * (self.u - self.v)[:, None, :]).reshape(len(self.u), self.u.shape[1] ** 2)

    def tolerance(self, error: float) -> Float[np.ndarray, " n"]:
        r"""$\varepsilon$ of each, with $\delta_W$ = `error`."""
        return (self.residual + error) / (self.reach * self.share * (1 - self.share))

    def slack(self, error: float) -> Float[np.ndarray, " n"]:
        r"""$\varepsilon$ over the norm of the functional: the distance within which the equality puts $\Theta$."""
        return self.tolerance(error) / (np.linalg.norm(self.query, axis=1) * self.length)


def edges(
    Z: Float[np.ndarray, "n k d"],
    X: Float[np.ndarray, "n k d"],
    tokens: AbstractTokens,
    metric: Float[np.ndarray, "d d"] | None = None,
) -> Edges:
    """The best admitted pair of every row that has one. Cost: $O(nk^3d)$ operations.

    Admitted are pairs with both shares at least `LEAST_SHARE` and no third value that could take part unseen. The pair
    is chosen without the metric, `None`: all is.
    """
    _, k, d = X.shape
    size = max(1, PAIR_SCALARS // (k * k * (k + d)))
    metric = np.eye(X.shape[-1]) if metric is None else metric
    parts = [_edges(Z[s : s + size], X[s : s + size], tokens, metric) for s in range(0, len(X), size)]
    return Edges.joined(parts)


def _edges(Z: np.ndarray, X: np.ndarray, tokens: AbstractTokens, metric: np.ndarray) -> Edges:
    first, times = values(X)
    a, b = pair = np.triu_indices(X.shape[1], 1)
    difference, V = X[:, a] - X[:, b], X[:, b]
    length = np.square(difference).sum(axis=-1)
    admitted = first[:, a] & first[:, b] & tokens.separate(X, pair, times)
    along = Z @ difference.swapaxes(1, 2) - (V * difference).sum(axis=-1)[:, None]
    share = along / np.where(admitted, length, 1)[:, None]
    base = np.square(Z).sum(axis=-1)[..., None] - 2 * Z @ V.swapaxes(1, 2) + np.square(V).sum(axis=-1)[:, None]
    inside = admitted[:, None] & (share >= LEAST_SHARE) & (share <= 1 - LEAST_SHARE)
    square = np.where(inside, base - share**2 * length[:, None], np.inf)
    best = square.argmin(axis=-1)
    example, row = np.nonzero(np.take_along_axis(square, best[..., None], axis=-1)[..., 0] < np.inf)
    one = best[example, row]
    u, v, z = X[example, a[one]], X[example, b[one]], Z[example, row]
    # the fast square above cancels: what is kept is made from its definition
    step, along = (u - v) @ metric, (z - v) @ metric
    reach = np.linalg.norm(step, axis=1)
    t = (along * step).sum(axis=1) / reach**2
    residual = np.linalg.norm(along - t[:, None] * step, axis=1)
    kept = (t >= LEAST_SHARE) & (t <= 1 - LEAST_SHARE)
    odds = np.log(np.where(kept, t / (1 - t), 1.0)) - np.log(times[example, a[one]] / times[example, b[one]])
    return Edges(X[example, row], z, u, v, t, residual, reach, odds).take(kept)


def output_metric(ov_sum: Float[np.ndarray, "d o"]) -> Float[np.ndarray, "d d"]:
    r"""$S\propto(I+P^\top P/c)^{-1/2}$ with $P=W_s^+$ and c a tenth of its mean square, $|S|_F=\sqrt d$.

    In it a residual is nearly its length in the outputs, where errors are even, but for directions that outputs hardly
    show.
    """
    P = np.linalg.pinv(ov_sum)
    square, directions = np.linalg.eigh(P.T @ P)
    S = directions / np.sqrt(1 + square / (METRIC_FLOOR * square.mean())) @ directions.T
    return S * np.sqrt(len(S)) / np.linalg.norm(S)


def error_of_sum(found: Edges) -> float:
    r"""$\delta_W$: what the error of $W_s$ and of labels does to effective tokens, seen from the purest edges."""
    if not len(found.residual):
        return LEAST_ERROR
    return max(float(np.quantile(found.residual, ERROR_QUANTILE)), LEAST_ERROR)


def off_edge_mass(edge: Edges) -> Float[np.ndarray, " n"]:
    r"""$\bar\omega=\frac12\sum_{j:u_j=v_j}|z_j-u_j|$: no less than the weight outside $\{u,v\}$, if $z=X^\top p$.

    On the cube every outside value misses a coordinate that $u$ and $v$ share, which moves that coordinate by 2.
    """
    return 0.5 * np.where(edge.u == edge.v, np.abs(edge.effective - edge.u), 0).sum(axis=1)


def slab(edge: Edges) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    r"""Bounds of $\langle\Theta,x_a(u-v)^\top\rangle$ that one head obeys, if $z=X^\top p$ exactly on the cube.

    $$\log\frac{t-\bar\omega}{1-t}\le\log\frac{p_u}{p_v}\le\log\frac t{1-t-\bar\omega},\qquad
      \bar\omega<\min(t,1-t);$$ infinite elsewhere. With several heads there is no such bound.
    """
    step, mass = edge.u - edge.v, off_edge_mass(edge)
    t = ((edge.effective - edge.v) * step).sum(axis=1) / edge.length**2  # in a metric there is no such bound
    multiplicity = np.log(edge.share / (1 - edge.share)) - edge.log_odds
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(mass < t, np.log((t - mass) / (1 - t)), -np.inf)
        high = np.where(mass < 1 - t, np.log(t / (1 - t - mass)), np.inf)
    return low - multiplicity, high - multiplicity
