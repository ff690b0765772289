"""How far a learned layer is from the hidden one: circuits up to symmetry, and outputs on held-out sequences."""

from typing import Any

import numpy as np

import attnlearn as al

SEQUENCES, TOKENS = 64, 12  # held-out Gaussian sequences; no learner and no certificate asks these


def errors(layer: al.AttentionLayer | None, truth: al.AttentionLayer) -> dict[str, Any]:
    """Errors of `layer` against `truth`, under the names of a `Trial`.

    `qk, ov, query_bias`: of the worst head, relative in the Frobenius norm; `qk_median`: of the median head; `offset`
    relative; `output`: largest error over the largest output on held-out sequences; `heads`: after equal ones merge.
    """
    true_heads = al.canonical(truth).heads
    if layer is None:
        nothing = dict.fromkeys(("qk", "qk_median", "ov", "query_bias", "offset", "output"), np.inf)
        return {"heads": 0, "true_heads": true_heads, **nothing}
    apart = al.distance(layer, truth)
    return {
        "heads": al.canonical(layer).heads,
        "true_heads": true_heads,
        "qk": apart.qk,
        "qk_median": float(np.median([head.qk for head in apart.per_head])) if apart.per_head else apart.qk,
        "ov": apart.ov,
        "query_bias": apart.query_bias,
        "offset": apart.offset,
        "output": output_error(layer, truth),
    }


def output_error(layer: al.AttentionLayer, truth: al.AttentionLayer) -> float:
    """Largest error over the largest output on held-out sequences."""
    X = np.random.default_rng([SEQUENCES, TOKENS]).standard_normal((SEQUENCES, TOKENS, truth.width))
    outputs = truth(X)
    return float(np.max(np.abs(layer(X) - outputs)) / np.max(np.abs(outputs)))
