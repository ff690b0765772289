"""What the closed forms of single-location regression accept: said once, with the reason and the way out."""

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

ROUNDING = 1e-12  # how far below zero an eigenvalue of a Gram matrix may be


def _floats(name: str, value: Any) -> np.ndarray:
    """`value` as float64; `ValueError` for what is not numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be real numbers, got {value!r}")
    return array.astype(float)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def checked_whole(name: str, value: Any, least: int) -> int:
    """`value` as an integer, `ValueError` for anything but a whole number from `least` on."""
    if not _whole(value, least):
        raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")
    return int(value)


def checked_width(d: Any, least: int = 4) -> int:
    """`d` as an integer, `ValueError` below `least`."""
    if not _whole(d, least):
        raise ValueError(f"the width of a token must be a whole number from {least} on, got d = {d!r}")
    return int(d)


def checked_tokens(n_tokens: Any) -> int:
    """`n_tokens` as an integer, `ValueError` below 2: with one token there is no place to find."""
    if not _whole(n_tokens, 2):
        raise ValueError(f"a sequence needs 2 tokens or more, a whole number, got n_tokens = {n_tokens!r}")
    return int(n_tokens)


def checked_positive(name: str, value: Any) -> np.ndarray:
    """`value` as float64; `ValueError` unless every entry is finite and above zero."""
    array = _floats(name, value)
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} must be finite and above 0, got {value!r}")
    return array


def checked_number(name: str, value: Any) -> float:
    """As `checked_positive`, of one number."""
    array = checked_positive(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be one number, got an array of shape {array.shape}: call once for each")
    return float(array)


def lowest_eigenvalue(overlaps: np.ndarray) -> np.ndarray:
    r"""The lowest eigenvalue (...) of the Gram matrices of $(k^\star, v^\star, k, v)$."""
    gram = np.broadcast_to(np.eye(4), (*overlaps.shape[:-1], 4, 4)).copy()
    for column, (one, other) in enumerate(((2, 0), (3, 1), (3, 0), (2, 1), (2, 3))):
        gram[..., one, other] = gram[..., other, one] = overlaps[..., column]
    return np.linalg.eigvalsh(gram)[..., 0]


def checked_overlaps(overlaps: Any) -> np.ndarray:
    r"""Overlaps (..., 5) as float64.

    **Raises:** `ValueError` for another shape, NaN, or where the Gram matrix of $(k^\star, v^\star, k, v)$ has an
    eigenvalue below $-10^{-12}$: no unit vectors have such overlaps.
    """
    if hasattr(overlaps, "array"):  # OrderParameters of arrays would be read the other way round
        overlaps = overlaps.array()
    array = _floats("overlaps", overlaps)
    if array.ndim == 0 or array.shape[-1] != 5:
        raise ValueError(
            f"wanted overlaps (..., 5) in the order (kappa, nu, theta, eta, rho), got an array of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError("overlaps must be finite, got NaN or infinity")
    lowest = lowest_eigenvalue(array)
    if array.size and lowest.min() < -ROUNDING:
        worst = array[np.unravel_index(np.argmin(lowest), lowest.shape)]
        raise ValueError(
            f"no unit vectors k, v have the overlaps (kappa, nu, theta, eta, rho) = {tuple(map(float, worst))}: their "
            f"Gram matrix has the eigenvalue {lowest.min():.2g}. Take overlaps of vectors: `overlaps(k, v, k_star, "
            "v_star)`, or draw starts: `sphere_starts(seed, n_runs, d)`"
        )
    return array


@dataclass(frozen=True)
class Runs:
    r"""States and slopes side by side, unchecked from here on.

    `overlaps` (runs, 5); `lam` (1,) where all runs have the same slope, else (runs,); `shape`: the caller's leading
    axes; `numbers`: $\gamma$, $d$ and $L$.
    """

    overlaps: Float[np.ndarray, "runs 5"]
    lam: Float[np.ndarray, " one_or_runs"]
    shape: tuple[int, ...]
    numbers: tuple[float, float, float]

    def shaped(self, array: Float[np.ndarray, "one_or_runs *rest"]) -> Float[np.ndarray, "*shape_rest"]:
        """An array with an entry for every run, in the caller's leading axes."""
        whole = np.broadcast_to(array, (len(self.overlaps), *array.shape[1:]))
        return whole.reshape((*self.shape, *array.shape[1:])).copy()


def checked_runs(overlaps: Any, lam: Any, gamma: Any, d: Any, n_tokens: Any) -> Runs:
    """Everything that a risk takes, with `lam` broadcast against the leading axes of `overlaps`."""
    overlaps, lam = checked_overlaps(overlaps), checked_positive("lam", lam)
    try:
        shape = np.broadcast_shapes(lam.shape, overlaps.shape[:-1])
    except ValueError:
        raise ValueError(
            f"lam of shape {lam.shape} does not broadcast against the leading axes of overlaps {overlaps.shape}: give "
            "one slope, or one for every state"
        ) from None
    if 0 in shape:
        raise ValueError(f"there is no state in overlaps of shape {overlaps.shape}: give one or more")
    return Runs(
        overlaps=np.broadcast_to(overlaps, (*shape, 5)).reshape(-1, 5),
        lam=lam.reshape(1) if lam.size == 1 else np.broadcast_to(lam, shape).reshape(-1),
        shape=shape,
        numbers=(checked_number("gamma", gamma), float(checked_width(d)), float(checked_tokens(n_tokens))),
    )
