r"""Phase (i): crude estimates of $W_s=\sum_iW_i$, each a sum over examples.

With $k$ tokens in each of $N$ examples and $\mathbf 1$ the vector of ones:

| estimate | formula | its mean for many tokens |
| --- | --- | --- |
| `paper` | $\frac1{Nk}\sum_n(X_n^\top\mathbf1)(\mathbf1^\top Y_n)$ | $\sum_i(D_i+B_i)W_i$ |
| `off_diagonal` | the same without each row's own token | $\sum_iD_iW_i$ |
| `slice` | means over rows whose other tokens agree in a coordinate | $(1-\mathbb E\,p(a,a))W_s$ on a full slice |

On the cube $D_i=\mathrm{diag}_l\,\mathbb E_x\,\mathrm{sech}^2((\Theta_i^\top x)_l)$, a shrinkage, and
$B_i=\mathbb E_x[x\tanh(\Theta_i^\top x)^\top]$, of first order in $\Theta_i$. For standard normal tokens, by Stein's
identity, `off_diagonal` misses $W_s$ only by what rows give to their own tokens. [@chen2025]
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from attnlearn.learners.sculpting.tokens import equal

SLICE_ROWS = 2000  # a slice with fewer rows is widened


class Moments(NamedTuple):
    """Sums over examples, which add up.

    `together` and `own` as in the formulas; on level l of k, where the other tokens' coordinate j sums to plus or
    minus k-1-l: the number of rows, their outputs with that sign, and the sums' sizes. `repeats`: degrees of freedom
    and squared deviations of outputs among equal queries of one example, which are noise alone.
    """

    rows: int
    squares: float
    together: Float[np.ndarray, "d o"]
    own: Float[np.ndarray, "d o"]
    tally: Float[np.ndarray, "k d"]
    signed: Float[np.ndarray, "k d o"]
    size: Float[np.ndarray, "k d"]
    repeats: Float[np.ndarray, " 2"]

    def plus(self, other: "Moments") -> "Moments":
        """The sums over the examples of both."""
        return Moments._make(mine + theirs for mine, theirs in zip(self, other, strict=True))


def moments(X: Float[np.ndarray, "n k d"], Y: Float[np.ndarray, "n k o"]) -> Moments:
    """The sums over a chunk of examples. Cost: $O(nk^2do)$ operations."""
    n, k, d = X.shape
    total = X.sum(axis=1)
    others = np.rint(total[:, None] - X).reshape(-1, d)
    rows = Y.reshape(n * k, -1)
    signs = np.sign(others)
    levels = [np.abs(others) == k - 1 - level for level in range(k)]
    return Moments(
        rows=n * k,
        squares=float(np.square(Y).sum()),
        together=total.T @ Y.sum(axis=1),
        own=X.reshape(-1, d).T @ rows,
        tally=np.array([level.sum(axis=0) for level in levels], float),
        signed=np.stack([(signs * level).T @ rows for level in levels]),
        size=np.array([(k - 1 - number) * level.sum(axis=0) for number, level in enumerate(levels)], float),
        repeats=_repeats(X, Y),
    )


def _repeats(X: Float[np.ndarray, "n k d"], Y: Float[np.ndarray, "n k o"]) -> Float[np.ndarray, " 2"]:
    same = equal(X)
    some = same.sum(axis=(1, 2)) > X.shape[1]  # examples with a value twice
    same, Y = same[some].astype(float), Y[some]
    each = 1 / same.sum(axis=-1, keepdims=True)  # a class of c equal queries has c-1 degrees of freedom
    freedom = Y.shape[-1] * float((1 - each).sum())
    return np.array([freedom, float(np.square(Y - (same @ Y) * each).sum())])


def paper(sums: Moments) -> Float[np.ndarray, "d o"]:
    """The paper's estimate."""
    return sums.together / sums.rows


def off_diagonal(sums: Moments) -> Float[np.ndarray, "d o"]:
    """The paper's estimate without each row's own token."""
    return (sums.together - sums.own) / sums.rows


def slices(sums: Moments) -> Float[np.ndarray, "d o"]:
    """Coordinate j from the rows in which most of the other tokens agree in it."""
    k, d = sums.tally.shape
    enough = np.minimum((np.cumsum(sums.tally, axis=0) < SLICE_ROWS).sum(axis=0), k - 1)
    at = enough, np.arange(d)
    signed, size = np.cumsum(sums.signed, axis=0)[at], np.cumsum(sums.size, axis=0)[at]
    return signed * ((k - 1) / np.maximum(size, 1))[:, None]


def starts(sums: Moments, sliced: bool) -> Mapping[str, Float[np.ndarray, "d o"]]:
    """All estimates that make sense for these tokens."""
    found = {"paper": paper(sums), "off_diagonal": off_diagonal(sums)}
    return found | {"slice": slices(sums)} if sliced else found


def repeat_noise(sums: Moments) -> float | None:
    """Standard deviation of the labels' noise, from equal queries of one example; `None` where there are none."""
    freedom, squares = sums.repeats
    return float(np.sqrt(squares / freedom)) if freedom > 0 else None
