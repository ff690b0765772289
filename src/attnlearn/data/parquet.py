"""Examples as a Parquet file, flattened: a row for every token that is there.

The columns are `sequence`, `position`, `x`, `y` and `shape`, the shape (n, k, d) of X. Where a sequence has one output,
`y` stands at its first token and is missing at the others.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from attnlearn.data.stored import FORMAT, Parts, extra, plain, slices


def write(path: Path, parts: Parts) -> None:
    """Row groups of a chunk each."""
    pa, pq = extra("pyarrow"), extra("pyarrow.parquet")
    n, k, d = parts.X.shape
    x, y = (_list_type(pa, array) for array in (parts.X, parts.Y))
    fields = {"sequence": pa.int64(), "position": pa.int32(), "x": x, "y": y, "shape": pa.list_(pa.int64(), 3)}
    schema = pa.schema(list(fields.items()), metadata={"format": FORMAT, "rows": str(parts.rows)})
    with pq.ParquetWriter(path, schema) as file:
        for part in slices(parts.X):
            present = np.ones((part.stop - part.start, k), bool) if parts.mask is None else parts.mask[part]
            sequence, position = np.nonzero(present)
            first = np.r_[True, np.diff(sequence) > 0]
            Y = parts.piece("Y", part)
            outputs = (Y[present], None) if parts.rows == "all" else (Y[sequence], ~first)
            shape = np.broadcast_to(np.array([n, k, d]), (len(sequence), 3))
            columns = [_lists(pa, parts.piece("X", part)[present], x), _lists(pa, outputs[0], y, outputs[1])]
            numbers = [pa.array(sequence + part.start, pa.int64()), pa.array(position, pa.int32())]
            file.write_table(
                pa.Table.from_arrays([*numbers, *columns, _lists(pa, shape, fields["shape"])], schema=schema)
            )


def _list_type(pa: ModuleType, array: Any) -> Any:
    return pa.list_(pa.from_numpy_dtype(plain(array.dtype)), array.shape[-1])


def _lists(pa: ModuleType, rows: np.ndarray, kind: Any, missing: np.ndarray | None = None) -> Any:
    """The rows of a matrix as a column of lists."""
    values = pa.array(np.ascontiguousarray(rows).ravel(), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=None if missing is None else pa.array(missing))


def read(path: Path) -> Parts:
    """Tokens that have no row are absent."""
    table = extra("pyarrow.parquet").read_table(path)
    if missing := {"sequence", "position", "x", "y"} - set(table.column_names):
        raise ValueError(f"it has no column {', '.join(sorted(missing))}; it has {', '.join(table.column_names)}")
    sequence, position = (table[name].to_numpy() for name in ("sequence", "position"))
    x, y = _rows_of(table["x"]), _rows_of(table["y"].drop_null())
    n, k = (int(numbers.max(initial=-1)) + 1 for numbers in (sequence, position))
    if "shape" in table.column_names and len(table):
        n, k, _ = table["shape"][0].as_py()
    mask = np.zeros((n, k), bool)
    mask[sequence, position] = True
    if mask.sum() != len(table):
        raise ValueError(f"{len(table) - mask.sum()} tokens stand in it twice")
    X = np.zeros((n, k, x.shape[1]), x.dtype)
    X[sequence, position] = x
    answered = table["y"].is_valid().to_numpy()
    if answered.all() and (rows := (table.schema.metadata or {}).get(b"rows", b"all")) == b"all":
        Y = np.zeros((n, k, y.shape[1]), y.dtype)
        Y[sequence, position] = y
    else:
        rows, which = (table.schema.metadata or {}).get(b"rows"), sequence[answered]
        if not np.array_equal(np.sort(which), np.arange(n)):
            raise ValueError("the column y must hold an output for every token, or one for every sequence")
        Y = y[np.argsort(which)]
    return Parts(X, Y, None if mask.all() else mask, None if rows is None else rows.decode())


def _rows_of(column: Any) -> np.ndarray:
    """A column of lists of one length as a matrix."""
    lengths = extra("pyarrow.compute").unique(extra("pyarrow.compute").list_value_length(column)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError("the columns x and y must hold lists of numbers, in each column of one length")
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), lengths[0])
