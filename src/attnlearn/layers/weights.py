r"""Import and export: ordinary weights $W_Q, W_K, W_V, W_O$ to circuits and back; circuits to a file and back.

Ordinary weights are determined only up to an inner rotation per head; circuits are what the function can show.
The export takes the balanced SVD of each circuit, the query bias riding along as one more row of the QK circuit.
"""

import json
import os
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

from attnlearn.layers.slots import Slots, from_plain, to_plain

FORMAT = "attnlearn.AttentionLayer"
SAVED_ARRAYS = ("qk", "ov", "query_bias", "offset")


class Projections(NamedTuple):
    """Ordinary weights, tokens as rows: `W_Q` (m,d,d_h), `W_K` (n,d,d_h), `W_V` (n,d,d_v), `W_O` (m,d_v,d_out).

    Biases `b_Q` (m,d_h), `b_K` (n,d_h), `b_V` (n,d_v), `b_O` (d_out,), or `None`.
    """

    W_Q: Any
    W_K: Any
    W_V: Any
    W_O: Any
    b_Q: Any = None
    b_K: Any = None
    b_V: Any = None
    b_O: Any = None


class BalancedFactors(NamedTuple):
    """`left[i] @ right[i].T` is map `i`; columns beyond its numeric rank are zero."""

    left: Float[np.ndarray, "heads rows r"]
    right: Float[np.ndarray, "heads columns r"]
    ranks: tuple[int, ...]


def as_float64(name: str, value: Any, shape: tuple[int | str, ...] | None = None) -> np.ndarray:
    """`value` as a finite float64 array of this shape; words in `shape` stand for free sizes, equal where repeated.

    Raises `ValueError` that says what came and what is wanted.
    """
    try:
        value = value.detach().cpu() if hasattr(value, "detach") else value  # a torch tensor
        array = np.asarray(value)
        array = array.astype(np.float64, casting="unsafe" if array.dtype.kind != "c" else "safe")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {type(value).__name__}: {error}") from error
    if shape is not None and not _fits(array.shape, shape):
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} has shape {array.shape}, wanted ({wanted})")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite entries; all must be finite")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    sizes: dict[str, int] = {}
    return len(shape) == len(wanted) and all(
        came == (sizes.setdefault(want, came) if isinstance(want, str) else want)
        for came, want in zip(shape, wanted, strict=True)
    )


def to_circuits(
    ordinary: Projections, scale: float | None, slots: Slots
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`(qk, ov, query_bias, offset)` of ordinary weights; `AttentionLayer.from_qkvo` documents the formulas."""
    given = _checked(ordinary)
    if not slots.simplex:
        seen = [name for name in ("b_K", "b_V") if getattr(given, name).any()]
        if seen:
            raise ValueError(
                f"{' and '.join(seen)} cannot be absorbed with the normaliser {type(slots.normaliser).__name__}: "
                "that needs weights that sum to one and ignore a constant added to their scores, as softmax gives"
            )
    m, _, head_dim = given.W_Q.shape
    scale = head_dim**-0.5 if scale is None else float(scale)
    W_K, W_V, b_V = (np.repeat(kv, m // len(kv), axis=0) for kv in (given.W_K, given.W_V, given.b_V))
    qk = scale * given.W_Q @ W_K.swapaxes(1, 2)
    query_bias = scale * np.einsum("mdh,mh->md", W_K, given.b_Q)
    offset = given.b_O + np.einsum("mh,mhe->e", b_V, given.W_O)
    return qk, W_V @ given.W_O, query_bias, offset


def _checked(ordinary: Projections) -> Projections:
    """Float64 arrays of shapes that fit together, absent biases as zeros."""
    W_Q = as_float64("W_Q", ordinary.W_Q, ("heads", "d", "head_dim"))
    m, d, head_dim = W_Q.shape
    W_K = as_float64("W_K", ordinary.W_K, ("kv_heads", d, head_dim))
    n = len(W_K)
    W_V = as_float64("W_V", ordinary.W_V, (n, d, "value_dim"))
    value_dim = W_V.shape[2]
    W_O = as_float64("W_O", ordinary.W_O, (m, value_dim, "d_out"))
    if n == 0 or m % n:
        raise ValueError(f"{m} query heads cannot share {n} key and value heads: the first must be a multiple")
    shapes = {"b_Q": (m, head_dim), "b_K": (n, head_dim), "b_V": (n, value_dim), "b_O": (W_O.shape[2],)}
    biases = {
        name: np.zeros(shape) if getattr(ordinary, name) is None else as_float64(name, getattr(ordinary, name), shape)
        for name, shape in shapes.items()
    }
    return Projections(W_Q, W_K, W_V, W_O, **biases)


def from_circuits(
    qk: np.ndarray, ov: np.ndarray, query_bias: np.ndarray, offset: np.ndarray, head_dim: int | None
) -> Projections:
    """Ordinary weights of circuits; `AttentionLayer.to_qkvo` documents them."""
    keys = balanced_factors(np.concatenate([qk, query_bias[:, None, :]], axis=1))
    values = balanced_factors(ov)
    needed = max((*keys.ranks, *values.ranks, 1))
    head_dim = needed if head_dim is None else head_dim
    for name, ranks in (("QK circuit with its query bias", keys.ranks), ("OV circuit", values.ranks)):
        for head, rank in enumerate(ranks):
            if rank > head_dim:
                raise ValueError(
                    f"the {name} of head {head} has rank {rank}, more than head_dim={head_dim}: "
                    f"take head_dim={needed}, or truncate the layer first with Factored.of(layer, rank={head_dim})"
                )
    stretch = head_dim**0.25  # undoes the default scale, half on either side
    queries, W_K = (stretch * _columns(side, head_dim) for side in keys[:2])
    W_V, W_O = (_columns(side, head_dim) for side in values[:2])
    return Projections(queries[:, :-1], W_K, W_V, W_O.swapaxes(1, 2), b_Q=queries[:, -1], b_O=offset)


def balanced_factors(
    maps: Float[np.ndarray, "heads rows columns"], rank: int | None = None, rtol: float = 1e-12
) -> BalancedFactors:
    r"""$A_i = (U\sqrt S)(V\sqrt S)^\top$, padded to the largest rank of the heads.

    The rank of a head is the number of its singular values above `rtol` times its largest, and at most `rank`.
    """
    U, singular, Vt = np.linalg.svd(maps, full_matrices=False)
    kept = singular > rtol * singular[:, :1]
    if rank is not None:
        kept[:, rank:] = False
    ranks = kept.sum(axis=1)
    most = int(ranks.max(initial=1))
    root = np.sqrt(np.where(kept, singular, 0.0))[:, None, :most]
    return BalancedFactors(U[:, :, :most] * root, Vt.swapaxes(1, 2)[:, :, :most] * root, tuple(ranks.tolist()))


def _columns(factors: Float[np.ndarray, "heads rows r"], columns: int) -> Float[np.ndarray, "heads rows _"]:
    """The first `columns` columns, or all with zeros behind them."""
    heads, rows, r = factors.shape
    result = np.zeros((heads, rows, columns))
    result[:, :, : min(r, columns)] = factors[:, :, :columns]
    return result


def write(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], slots: Slots) -> None:
    """Writes the arrays of a layer as safetensors with its slots as JSON metadata."""
    metadata = {"format": FORMAT, "slots": json.dumps(to_plain(slots), sort_keys=True)}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors.numpy.save_file(contiguous, path, metadata)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Slots]:
    """Reads what `write` wrote. Raises `FileNotFoundError`, or `ValueError` for any other content."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{os.fspath(path)} was not written by AttentionLayer.save; it holds {sorted(file.keys())[:8]}: "
                    "read them with safetensors and pass ordinary weights to AttentionLayer.from_qkvo"
                )
            arrays = {name: file.get_tensor(name) for name in SAVED_ARRAYS}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {os.fspath(path)}") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{os.fspath(path)} is no readable safetensors file ({error}): write it again with AttentionLayer.save"
        ) from error
    try:
        return arrays, from_plain(json.loads(metadata["slots"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{os.fspath(path)} names no slots that can be read: {error!r}") from error
