"""From what scikit-learn users hand over to sequences of one length: arrays with or without a mask, and lists.

A list of sequences is one that can be cut by any cross-validation without a mask beside it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from sklearn.utils.validation import check_array

from attnlearn.data.example_checks import as_mask
from attnlearn.data.stored import blank


@dataclass(frozen=True)
class Sequences:
    """`X` with zeros in absent tokens; `mask`, true where a token is there (`None`: all are); `listed`: it was a list.

    `X` keeps the dtype that came, which says how far it is rounded.
    """

    X: Shaped[np.ndarray, "n k d"]
    mask: Bool[np.ndarray, "n k"] | None
    listed: bool

    @property
    def tokens(self) -> Shaped[np.ndarray, "present d"]:
        """The tokens that are there, sequence after sequence."""
        n, k, d = self.X.shape
        return self.X.reshape(n * k, d) if self.mask is None else self.X[self.mask]

    def cut(self, rows: Shaped[np.ndarray, "n k e"]) -> list[np.ndarray]:
        """One array for each sequence, of the rows of its own tokens."""
        return list(rows) if self.mask is None else [part[there] for part, there in zip(rows, self.mask, strict=True)]


def as_sequences(X: Any, mask: Any = None) -> Sequences:
    """An array (n, k, d) with its mask (n, k), or a list of n arrays (k_i, d) without one.

    **Raises:** `TypeError`, `ValueError` for what is neither. What stands in absent tokens is not looked at.
    """
    if not is_list(X):
        array = _numbers(X, "X")
        if array.ndim != 3:
            raise ValueError(
                f"X must be sequences of tokens (n, k, d), got shape {array.shape}. Reshape your data: one sequence is "
                "X[None], a table of single numbers X[:, :, None]; different lengths come as a list of arrays (k_i, d)."
            )
        present = None if mask is None else as_mask(mask, array.shape[:2])
        return Sequences(blank(array, present), present, False)
    if mask is not None:
        raise ValueError("mask goes with an array X; a list of sequences says itself where each one ends")
    parts = [check_array(part, input_name=f"X[{i}]") for i, part in enumerate(X)]
    for i, part in enumerate(parts):
        if part.shape[1] != parts[0].shape[1]:
            raise ValueError(f"X[{i}] has tokens of width {part.shape[1]}, X[0] of width {parts[0].shape[1]}")
    lengths = np.array([len(part) for part in parts])
    same = bool(np.all(lengths == lengths[0]))
    return Sequences(_padded(parts), None if same else np.arange(lengths.max()) < lengths[:, None], True)


def as_targets(y: Any, sequences: Sequences, rows: str) -> np.ndarray:
    """`y` as (n, k, d_out), or (n, d_out) where one row of each sequence is read; there, (n,) is a single column.

    **Raises:** `TypeError`, `ValueError` for what holds no numbers, or other lengths than the sequences.
    """
    if not (sequences.listed and rows == "all"):
        array = _numbers(y, "y")
        return array[:, None] if array.ndim == 1 and rows != "all" else array
    parts = [check_array(part, input_name=f"y[{i}]") for i, part in enumerate(y)]
    lengths = [len(part) for part in sequences.cut(sequences.X)]
    if [len(part) for part in parts] != lengths or len({part.shape[1] for part in parts}) > 1:
        raise ValueError(
            f"y must hold one array (k_i, d_out) for each of the {len(lengths)} sequences of X, with a row for every "
            'token and one d_out for all. One row a sequence goes with rows="last" or rows="mean".'
        )
    return _padded(parts)


def is_list(X: Any) -> bool:
    """Whether `X` is a list, a tuple or an object array of two-dimensional arrays."""
    if isinstance(X, np.ndarray) and not (X.dtype == object and X.ndim == 1):
        return False
    return isinstance(X, list | tuple | np.ndarray) and len(X) > 0 and all(np.ndim(part) == 2 for part in X)


def _numbers(given: Any, name: str) -> np.ndarray:
    """`given` as an array of numbers of any dimension; finiteness is checked where the mask is known."""
    return check_array(
        given, ensure_2d=False, allow_nd=True, ensure_all_finite=False, ensure_min_samples=0, input_name=name
    )


def _padded(parts: list[np.ndarray]) -> Shaped[np.ndarray, "n k e"]:
    """(k_i, e) arrays as (n, k, e), zeros behind the end, in a dtype that holds them all."""
    found = np.zeros((len(parts), max(map(len, parts)), parts[0].shape[1]), np.result_type(*parts))
    for row, part in zip(found, parts, strict=True):
        row[: len(part)] = part
    return found
