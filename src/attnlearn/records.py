"""Plain frozen words that pass between the rooms, and from computing to showing.

A `Record` is everything that may be said about one run: it knows no layer, no array library but NumPy, and no
learner. `Record.save` writes `record.json` and `arrays.npz`; every table and figure can be redrawn from the two.
"""

import contextlib
import json
import math
import os
import platform
import types
import typing
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1
STUDY_FILE = "study.json"


@dataclass(frozen=True)
class Phase:
    """One stage of a learner: its figures (JSON values), its questions and its time in seconds."""

    name: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """What a black box was asked. `calls` counts sequences, `tokens` their rows, `scalars` the numbers returned."""

    calls: int = 0
    tokens: int = 0
    scalars: int = 0
    by_length: Mapping[int, int] = field(default_factory=dict)  # tokens in a sequence -> calls
    by_purpose: Mapping[str, int] = field(default_factory=dict)  # "learning", "certificate", ... -> calls


@dataclass(frozen=True)
class Cost:
    """What a run spent: questions (sequences), token rows, scalars returned, seconds of work and of compiling."""

    calls: int = 0
    tokens: int = 0
    scalars: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @classmethod
    def between(cls, before: Ledger, after: Ledger, seconds: float, compile_seconds: float = 0.0) -> "Cost":
        """What was asked from one state of a ledger to a later one, with the time it took."""
        asked = (after.calls - before.calls, after.tokens - before.tokens, after.scalars - before.scalars)
        return cls(*asked, seconds, compile_seconds)


@dataclass(frozen=True)
class Statement:
    """One line of a certificate: what is claimed, under which assumption, and the figure against its limit."""

    name: str
    claim: str
    assumption: str
    value: float
    limit: float
    holds: bool


@dataclass(frozen=True)
class Certificate:
    """What was checked about a layer. `max_error` is relative to the largest answer."""

    passed: bool
    max_error: float
    statements: tuple[Statement, ...] = ()


@dataclass(frozen=True)
class Head:
    """One learned head: Frobenius norms and ranks of its circuits; relative errors where the truth is known."""

    qk_norm: float
    ov_norm: float
    query_bias_norm: float
    qk_rank: int
    ov_rank: int
    qk_error: float | None = None
    ov_error: float | None = None


@dataclass(frozen=True)
class Judgement:
    """Learned against true, joined after learning: worst relative errors over the heads, up to symmetry.

    `maps` is the largest difference of an attention weight and `outputs` the largest difference of an output over
    the largest output, both on the sentences of the record; `None` without sentences.
    """

    heads: int  # heads of the truth
    qk: float
    ov: float
    query_bias: float
    offset: float
    maps: float | None = None
    outputs: float | None = None


@dataclass(frozen=True)
class Floor:
    """The least that any method must be told: as many scalars as the layer has degrees of freedom.

    `tokens` is that number over the scalars in one token row, rounded up.
    """

    degrees_of_freedom: int
    tokens: int


def floor(heads: tuple[Head, ...], width: int, width_out: int) -> Floor:
    r"""Degrees of freedom of a layer with the ranks $r_i$ (QK with query bias) and $r'_i$ (OV) of its heads.

    $$\sum_i\big[r_i(2d+1-r_i)+r'_i(d+d_{out}-r'_i)\big]+d_{out}$$

    A matrix (a, b) of rank r has r (a + b - r) free entries; QK with its query bias is (d + 1, d).
    """
    qk = sum(head.qk_rank * (2 * width + 1 - head.qk_rank) for head in heads)
    ov = sum(head.ov_rank * (width + width_out - head.ov_rank) for head in heads)
    count = qk + ov + width_out
    return Floor(degrees_of_freedom=count, tokens=-(-count // width_out))


@dataclass(frozen=True)
class Record:
    """Everything that may be said about one run of `recover`.

    `status` is the name of a member of `Status` and `sentence` its value. `cost` is learning alone; `ledger` is
    everything asked, the certificate's questions with it. `examples` is the number of sequences that were given with
    their outputs, `None` where a black box was asked. `sentences` holds the word pieces of the sentences whose
    attention maps stand in the arrays `maps_learned_<n>` and `maps_true_<n>` (heads, k, k).
    """

    source: str
    status: str
    sentence: str
    evidence: str = ""
    seed: int = 0
    learner: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)  # what the caller gave in advance
    examples: int | None = None
    dtype: str = "float64"
    noise: float = 0.0
    width: int | None = None
    width_out: int | None = None
    slots: Mapping[str, str] = field(default_factory=dict)
    cost: Cost = Cost()
    ledger: Ledger | None = None
    phases: tuple[Phase, ...] = ()
    certificate: Certificate | None = None
    heads: tuple[Head, ...] = ()
    floor: Floor | None = None
    judgement: Judgement | None = None
    conditioning: Mapping[str, float] = field(default_factory=dict)
    sentences: tuple[tuple[str, ...], ...] = ()
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    machine: Mapping[str, Any] = field(default_factory=lambda: machine())
    schema: int = SCHEMA

    @property
    def recovered(self) -> bool:
        """Success: learned and certified."""
        return self.status == "RECOVERED"

    def to_json(self) -> str:
        """The record as strict JSON; infinities and NaN become the strings "inf", "-inf", "nan"."""
        return to_json(self)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The record that `to_json` wrote; `ValueError` for any other text."""
        try:
            content = json.loads(text)
            schema = content["schema"]
            if schema == SCHEMA:
                return _typed(cls, content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"This is no record of attnlearn ({type(error).__name__}: {error}). "
                "Wanted: the record.json that `attnlearn recover SOURCE --out DIR` writes. Run that again."
            ) from error
        raise ValueError(
            f"The record has schema {schema!r} and this version of attnlearn reads schema {SCHEMA}. "
            "Make it again with `attnlearn recover SOURCE --out DIR`, or install the version that wrote it."
        )

    def save(self, folder: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes `arrays.npz` and then `record.json` into `folder`, each complete or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "arrays.npz", lambda path: _write_arrays(path, arrays))
        write_whole(folder / "record.json", lambda path: path.write_text(self.to_json() + "\n", encoding="utf-8"))

    @classmethod
    def load(cls, folder: str | Path) -> tuple["Record", dict[str, np.ndarray]]:
        """The record and the arrays in `folder`; `ValueError` for missing, truncated or foreign files."""
        folder = Path(folder)
        try:
            text = (folder / "record.json").read_text(encoding="utf-8")
            with (folder / "arrays.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"Cannot read a run from {str(folder)!r} ({type(error).__name__}: {error}). Wanted: a folder with "
                "a whole record.json and arrays.npz. Make it again with `attnlearn recover SOURCE --out DIR`."
            ) from error
        return cls.from_json(text), arrays


@dataclass(frozen=True)
class Study:
    """What a study found: its question, its answer, and the rows of numbers that its figure is drawn from.

    `design` and `table` hold JSON values; `None` stands where there is no number.
    """

    name: str
    question: str
    answer: str
    design: Mapping[str, Any] = field(default_factory=dict)
    table: tuple[Mapping[str, Any], ...] = ()
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    machine: Mapping[str, Any] = field(default_factory=lambda: machine())

    def save(self, folder: str | Path) -> Path:
        """Writes `study.json` into `folder`, complete or not at all; returns its path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / STUDY_FILE, lambda path: path.write_text(to_json(self) + "\n", encoding="utf-8"))
        return folder / STUDY_FILE

    @classmethod
    def load(cls, folder: str | Path) -> "Study":
        """The study in `folder`; `ValueError` for a missing, truncated or foreign file."""
        try:
            return _typed(cls, json.loads((Path(folder) / STUDY_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"Cannot read a study from {str(folder)!r} ({type(error).__name__}: {error}). Wanted: a folder with "
                f"a whole {STUDY_FILE}. Make it again with `attnlearn study NAME --out DIR`."
            ) from error


def to_json(value: Any) -> str:
    """Frozen words, mappings and arrays as strict JSON; infinities and NaN become "inf", "-inf", "nan"."""
    return json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False)


def versions() -> dict[str, str]:
    """Versions of everything that decides the numbers of a run."""
    found = {"python": platform.python_version()}
    for package in ("attnlearn", "numpy", "scipy", "jax"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def machine() -> dict[str, Any]:
    """What the machine is, without its name."""
    return {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count() or 1}


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary neighbour of `path`, then puts it in place: nobody meets half a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()})


def _plain(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _typed(kind: Any, value: Any) -> Any:
    """`value`, read from JSON, as the annotation `kind` says."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        kinds = typing.get_type_hints(kind)
        return kind(**{name: _typed(kinds[name], entry) for name, entry in value.items()})  # pyright: ignore
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(arguments[0], entry) for entry in value)
    if origin is Mapping:
        return {_typed(arguments[0], key): _typed(arguments[1], entry) for key, entry in value.items()}
    if kind in (int, float, str):
        return kind(value)
    return value
