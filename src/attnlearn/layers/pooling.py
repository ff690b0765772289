"""Attention pooling: one query, the same for every sequence, weighs the tokens."""

from typing import Any

import numpy as np

from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.slots import Erf, Slots


def attention_pooling(k: Any, v: Any, lam: float = 1.0, normaliser: Any = Erf(mean=False)) -> AttentionLayer:
    r"""The layer whose every output row is $T(X)=\sum_l\sigma(\lambda\langle X_l,k\rangle)\,\langle X_l,v\rangle$.

    It has `qk` = 0, `query_bias` $=\lambda k$ and `ov` = v: no row depends on its own token, so read any of them, for
    example with `rows="last"`.

    **Arguments:**

    - `k`, `v`: key and value direction, (d,).
    - `lam`: slope.
    - `normaliser`: $\sigma$. `Erf(mean=False)` gives the predictor $T_\lambda^{(k,v)}$ of single-location regression
      [@marion2025], `Softmax()` and `Linear(mean=False)` its siblings.

    **Raises:** `ValueError` for directions that are not vectors of one width, or not finite.
    """
    k, v = np.asarray(k, float), np.asarray(v, float)
    if k.ndim != 1 or k.shape != v.shape or not k.size:
        raise ValueError(f"k and v must be vectors of the same width, got shapes {k.shape} and {v.shape}")
    if not (np.isfinite(k).all() and np.isfinite(v).all() and np.isfinite(lam)):
        raise ValueError("k, v and lam must be finite, got NaN or infinity")
    return AttentionLayer(np.zeros((1, len(k), len(k))), v[None, :, None], lam * k[None], slots=Slots(normaliser))
