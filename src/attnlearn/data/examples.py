"""Sequences with the outputs that a layer gave to them, checked once at the door.

What lies in memory becomes float64. What lies on disk (memory-mapped or zarr arrays) stays there: it is checked and
read a chunk at a time, and a part of it is a list of indices. What stands in absent tokens is never looked at.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attnlearn.data import example_files
from attnlearn.data.example_checks import as_mask, as_numbers, check_finite, check_shapes, coarsest
from attnlearn.data.stored import Parts, Selection, blank, chunk, on_disk, plain, read
from attnlearn.layers.attention import AttentionLayer
from attnlearn.layers.inputs import ROWS, Inputs, Rows

ROUNDINGS = 16  # outputs no further apart than so many roundings of the largest are the same


class Examples:
    r"""Sequences `X` and the outputs `Y` of an attention layer on them.

    **Arguments:**

    - `X`: tokens (n, k, d); anything NumPy can read, or an array on disk.
    - `Y`: outputs (n, k, d_out), or (n, d_out) with `rows` "last" or "mean".
    - `mask`: (n, k), true where a token is there, for sequences of different lengths; kept in memory. Absent tokens
        and their outputs may hold anything, NaN too, and are read as 0.
    - `rows`: which outputs `Y` holds: of "all" tokens, of the "last" one that is there, or the "mean" over them.
    - `truth`: the layer behind the outputs where it is known, for judging a finished result; no learner reads it.

    **Attributes:** the arguments, `X` and `Y` in float64 unless they lie on disk.

    **Raises:** `TypeError`, `ValueError` for wrong dtypes, shapes, values.
    """

    def __init__(self, X: Any, Y: Any, mask: Any = None, rows: Any = "all", truth: AttentionLayer | None = None):
        if rows not in ROWS:
            raise ValueError(f"rows must be one of {', '.join(map(repr, ROWS))}, got {rows!r}")
        X, Y = as_numbers("X", X), as_numbers("Y", Y)
        check_shapes(X, Y, rows)
        self.mask = None if mask is None else as_mask(mask, X.shape[:2])
        self.rows: Rows = rows
        self._given = np.dtype(X.dtype), np.dtype(Y.dtype)
        self.X, self.Y = (part if on_disk(part) else np.asarray(part, np.float64) for part in (X, Y))
        check_finite("X", self.X, self.mask)
        check_finite("Y", self.Y, self.mask if rows == "all" else None)
        if not self.on_disk:
            self.X, self.Y = blank(self.X, self.mask), blank(self.Y, self.mask if rows == "all" else None)
        if truth is not None and (truth.width, truth.width_out) != (self.width, self.width_out):
            raise ValueError(
                f"truth maps width {truth.width} to {truth.width_out}, X and Y have {self.width} and {self.width_out}"
            )
        self.truth = truth

    @classmethod
    def from_sequences(cls, X: Any, Y: Any, rows: Any = "all", truth: Any = None) -> "Examples":
        """Examples from sequences (k_i, d) of different lengths, padded, with outputs (k_i, d_out), or (d_out,) each.

        **Raises:** as `Examples` does; `ValueError` where a sequence and its outputs have different lengths.
        """
        X, Y = [as_numbers("a sequence of X", x) for x in X], [as_numbers("an output of Y", y) for y in Y]
        if not X or len(X) != len(Y):
            raise ValueError(
                f"X holds {len(X)} sequences and Y outputs of {len(Y)}: give one output for every sequence"
            )
        for n, (x, y) in enumerate(zip(X, Y, strict=True)):
            if x.ndim != 2 or x.shape[1:] != X[0].shape[1:]:
                raise ValueError(
                    f"sequence {n} of X has shape {x.shape}; wanted is (tokens, width) with one width for all"
                )
            if rows == "all" and (y.ndim != 2 or len(y) != len(x) or y.shape[1:] != Y[0].shape[1:]):
                raise ValueError(
                    f"output {n} of Y has shape {y.shape}; wanted is ({len(x)}, width_out), a row for every token. "
                    'One row for the whole sequence goes with rows="last" or rows="mean".'
                )
        lengths = np.array([len(x) for x in X])
        mask = None if np.all(lengths == lengths[0]) else np.arange(lengths.max()) < lengths[:, None]
        return cls(_padded(X), _padded(Y) if rows == "all" else np.stack(Y), mask, rows, truth)

    @classmethod
    def load(cls, path: str | Path, rows: Any = None) -> "Examples":
        """Examples from a file or folder that `save` wrote, or from your own with arrays X and Y (and mask).

        Folders (.zarr, or of .npy files) stay on disk. `rows` is for files that do not say it; "all" by default.

        **Raises:** `ValueError` for what cannot be read or is no set of examples; `ImportError` where the format
        needs a package that is not installed.
        """
        found = example_files.read(Path(path))
        if rows is not None and found.rows not in (None, rows):
            raise ValueError(f"{str(path)!r} holds rows={found.rows!r}, asked for was rows={rows!r}: leave rows out")
        try:
            return cls(found.X, found.Y, found.mask, found.rows or rows or "all")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Writes X, Y, mask and rows, whole or not at all, as the suffix says: .npz, .safetensors, .parquet, .zarr,
        or without a suffix a folder of .npy files. Folders are written a chunk at a time. The truth is not written."""
        X, Y = (
            part if on_disk(part) else part.astype(plain(dtype), copy=False)
            for part, dtype in zip((self.X, self.Y), self._given, strict=True)
        )
        example_files.write(Path(path), Parts(X, Y, self.mask, self.rows))

    def __len__(self) -> int:
        """Number of sequences."""
        return self.X.shape[0]

    def __repr__(self) -> str:
        n, k, d = self.X.shape
        return f"Examples({n} sequences of {k} tokens, width {d} to {self.width_out}, rows={self.rows!r}, {self.dtype})"

    @property
    def on_disk(self) -> bool:
        """Whether X or Y stays on disk."""
        return on_disk(self.X) or on_disk(self.Y)

    @property
    def dtype(self) -> np.dtype:
        """The coarser precision of X and Y as they were given; integers count as float64."""
        return coarsest(*self._given)

    @property
    def width(self) -> int:
        """Entries of a token."""
        return self.X.shape[2]

    @property
    def width_out(self) -> int:
        """Entries of an output."""
        return self.Y.shape[-1]

    @property
    def tokens(self) -> int:
        """Number of tokens that are there, over all sequences."""
        return int(np.prod(self.X.shape[:2]) if self.mask is None else self.mask.sum())

    @property
    def answers(self) -> int:
        """Number of output rows."""
        return self.tokens if self.rows == "all" else len(self)

    @property
    def scalars(self) -> int:
        """Numbers in all outputs."""
        return self.answers * self.width_out

    @property
    def inputs(self) -> Inputs:
        """The sequences for a layer, in memory, float64."""
        return Inputs(blank(read(self.X), self.mask), self.mask, self.rows)

    @property
    def targets(self) -> Float[np.ndarray, "n read d_out"]:
        """The outputs in memory, float64: k rows a sequence, or one."""
        Y = read(self.Y)
        return blank(Y, self.mask) if self.rows == "all" else Y[:, None]

    def __getitem__(self, part: Any) -> "Examples":
        """The examples that a slice, an array of indices or of booleans names; what lies on disk stays there."""
        order = np.asarray(range(len(self))[part]) if isinstance(part, slice) else np.arange(len(self))[part]
        if order.ndim != 1 or not len(order):
            raise IndexError(
                f"examples[part] takes a slice or an array naming some of {len(self)} examples, got {part!r}"
            )
        found = object.__new__(Examples)  # checked already
        found.mask = None if self.mask is None else self.mask[order]
        found.rows, found._given, found.truth = self.rows, self._given, self.truth
        found.X, found.Y = (Selection(one, order) if on_disk(one) else one[part] for one in (self.X, self.Y))
        return found

    def split(self, share: float, key: np.random.Generator) -> tuple["Examples", "Examples"]:
        """(kept, held out): `share` of the examples drawn by chance and held out, at least one on either side."""
        n = len(self)
        if not 0 < share < 1 or n < 2:
            raise ValueError(f"a split needs a share between 0 and 1 and two examples or more, got {share} of {n}")
        held = np.zeros(n, bool)
        held[key.permutation(n)[: min(n - 1, max(1, round(share * n)))]] = True
        return self[~held], self[held]

    def chunks(self, sequences: int) -> Iterator["Examples"]:
        """All examples in order, in memory, so many `sequences` at a time; the last chunk may hold fewer."""
        if sequences < 1:
            raise ValueError(f"a chunk holds at least one sequence, got {sequences}")
        for start in range(0, len(self), sequences):
            part = self[start : start + sequences]
            part.X, part.Y = part.inputs.X, part.targets if part.rows == "all" else part.targets[:, 0]
            yield part

    @cached_property
    def duplicates(self) -> int:
        """How many sequences repeat an earlier one."""
        seen = set()
        for part in self.chunks(chunk(self.X)):
            masks = [b""] * len(part) if part.mask is None else [row.tobytes() for row in part.mask]
            tokens = part.X + 0.0  # -0.0 becomes 0.0
            seen.update(
                hashlib.blake2b(x.tobytes() + mask, digest_size=16).digest()
                for x, mask in zip(tokens, masks, strict=True)
            )
        return len(self) - len(seen)

    @cached_property
    def constant(self) -> bool:
        """Whether all output rows are the same, up to rounding of `dtype`."""
        low, high = np.full(self.width_out, np.inf), np.full(self.width_out, -np.inf)
        for part in self.chunks(chunk(self.Y)):
            rows = part.targets[np.asarray(part.inputs.answered())]
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        allowed = ROUNDINGS * float(jnp.finfo(self.dtype).eps) * np.max(np.abs([low, high]))
        return bool(np.all(high - low <= allowed))


def _padded(parts: list[np.ndarray]) -> np.ndarray:
    """(k_i, d) arrays as (n, k, d), zeros behind the end, in a dtype that holds them all."""
    found = np.zeros((len(parts), max(map(len, parts)), parts[0].shape[1]), np.result_type(*parts))
    for row, part in zip(found, parts, strict=True):
        row[: len(part)] = part
    return found
