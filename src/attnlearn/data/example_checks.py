"""What a set of examples may be made of: each check says what came, what is wanted, and the way out."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from attnlearn.data.stored import blank, on_disk, read, slices


def as_numbers(name: str, given: Any) -> Any:
    """`given` as an array of real numbers."""
    try:
        given = given.detach().cpu() if hasattr(given, "detach") else given  # a torch tensor
        array = given if on_disk(given) else np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{name} cannot be read as one array ({error}). "
            "Sequences of different lengths: Examples.from_sequences(X, Y) pads them."
        ) from error
    if not (
        array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    ):
        raise TypeError(
            f"{name} must hold real numbers, got dtype {array.dtype}. "
            "Sequences of different lengths: Examples.from_sequences(X, Y) pads them."
        )
    return array


def check_shapes(X: Any, Y: Any, rows: str) -> None:
    """Refuses X that is not (n, k, d), and Y that is not (n, k, d_out), or (n, d_out) where a sequence has one row."""
    if X.ndim != 3:
        raise ValueError(f"X must be sequences of tokens (n, k, d), got shape {X.shape}. One sequence is X[None].")
    if 0 in X.shape:
        raise ValueError(f"X must hold at least one sequence, one token and one entry, got shape {X.shape}")
    if rows != "all" and (Y.ndim != 2 or Y.shape[0] != X.shape[0] or not Y.shape[1]):
        raise ValueError(
            f"with rows={rows!r} Y must be (n, d_out) = ({X.shape[0]}, d_out), a row a sequence, got shape {Y.shape}. "
            'An output for every token goes with rows="all"; single numbers are Y[:, None].'
        )
    if rows == "all" and (Y.ndim != 3 or Y.shape[:2] != X.shape[:2] or not Y.shape[2]):
        n, k = X.shape[:2]
        raise ValueError(
            f"Y must be (n, k, d_out) = ({n}, {k}, d_out), a row for every token of X, got shape {Y.shape}. "
            'One output a sequence goes with rows="last" or rows="mean"; single numbers are Y[..., None].'
        )


def as_mask(given: Any, shape: tuple[int, ...]) -> Bool[np.ndarray, "n k"]:
    """`given` as booleans of this shape, with a token in every sequence."""
    mask = np.asarray(given)
    if mask.shape != shape:
        raise ValueError(f"mask must be (n, k) = {tuple(shape)}, got shape {mask.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("mask must be true (or 1) where a token is there and false (or 0) where not, got other values")
    empty = np.flatnonzero(~np.any(mask, axis=1))
    if len(empty):
        raise ValueError(f"{len(empty)} sequences have no token at all, the first is number {empty[0]}: leave them out")
    return mask.astype(bool)


def coarsest(*dtypes: np.dtype) -> np.dtype:
    """The floating dtype with the largest rounding; float64 for integers and for anything finer."""
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return np.dtype(max([np.dtype(np.float64), *floating], key=lambda dtype: float(jnp.finfo(dtype).eps)))


ABSENT = "Leave these sequences out, or say with mask which tokens are absent."


def check_finite(name: str, array: Any, mask: np.ndarray | None, way_out: str = ABSENT) -> None:
    """Refuses NaN and infinity in what is there, a chunk at a time; `way_out` ends the sentence."""
    count, first = 0, None
    for part in slices(array):
        bad = ~np.isfinite(blank(read(array, part), None if mask is None else mask[part]))
        if first is None and bad.any():
            place = np.argwhere(bad)[0]
            first = [int(place[0]) + part.start, *map(int, place[1:])]
        count += int(bad.sum())
    if count:
        raise ValueError(f"{name} has {count} values that are NaN or infinite, the first is {name}{first}. {way_out}")
