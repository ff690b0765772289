"""Arrays that may lie on disk (memory-mapped, zarr and the like), read a part at a time."""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

FORMAT = "attnlearn.Examples"
CHUNK_BYTES = 2**26  # of float64 that are read at once


class Selection:
    """Some rows of an array on disk, in a given order; read when asked for."""

    def __init__(self, array: Any, order: np.ndarray):
        self.source, self.order = (array.source, array.order[order]) if isinstance(array, Selection) else (array, order)
        self.shape, self.dtype, self.ndim = (len(order), *array.shape[1:]), array.dtype, len(array.shape)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, part: Any) -> np.ndarray:
        """The rows that `part` names, in memory."""
        order = self.order[part]
        if np.ndim(order) == 1 and len(order) and np.all(np.diff(order) == 1):
            return np.asarray(self.source[int(order[0]) : int(order[-1]) + 1])
        return np.asarray(getattr(self.source, "oindex", self.source)[order])  # zarr takes indices there


def on_disk(array: Any) -> bool:
    """Whether `array` is memory-mapped, chunked (zarr) or a selection of such a one."""
    return isinstance(array, (np.memmap, Selection)) or hasattr(array, "chunks")


def read(array: Any, part: slice = slice(None)) -> np.ndarray:
    """Some rows in memory, float64."""
    return np.asarray(array[part], np.float64)


def blank(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Zeros in the rows of absent tokens."""
    return array if mask is None else np.where(mask[..., None], array, np.zeros((), array.dtype))


def chunk(array: Any) -> int:
    """How many rows are read at once."""
    return max(1, CHUNK_BYTES // (8 * int(np.prod(array.shape[1:]))))


def slices(array: Any) -> Iterator[slice]:
    """All rows, a chunk at a time."""
    n, size = array.shape[0], chunk(array)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


class Parts(NamedTuple):
    """What a file of examples holds; `rows` is `None` where it does not say."""

    X: Any
    Y: Any
    mask: np.ndarray | None = None
    rows: str | None = None

    def piece(self, name: str, part: slice) -> np.ndarray:
        """Some rows of "X" or "Y" in memory, in their own precision, absent tokens 0."""
        mask = None if self.mask is None or (name == "Y" and self.rows != "all") else self.mask[part]
        array = np.asarray(getattr(self, name)[part])
        return blank(array.astype(plain(array.dtype), copy=False), mask)


def plain(dtype: np.dtype) -> np.dtype:
    """`dtype`, or float32 (float64) where files do not know it: bfloat16 and smaller (extended precision)."""
    if dtype.kind in "biuf" and dtype.itemsize <= 8:
        return np.dtype(dtype)
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def extra(name: str) -> ModuleType:
    """A module of the extra `data`; `ImportError` with the way out where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ImportError(f"{package} is needed for this file: pip install 'attnlearn[data]' installs it") from error
