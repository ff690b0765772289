"""Files of examples, by suffix; each is written whole or not at all, and what cannot be read is a `ValueError`.

A file holds X (n, k, d), Y and, where there is one, the mask (n, k), in the precision in which they were given, and
says what `rows` is.
"""

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from attnlearn.data import parquet
from attnlearn.data.stored import FORMAT, Parts, chunk, extra, plain, slices
from attnlearn.records import write_whole

JSON = "examples.json"
WANTED = "data.npz, data.safetensors, data.parquet, data.zarr, or a folder with X.npy and Y.npy"


def write(path: Path, parts: Parts) -> None:
    """Writes a file, or a folder, of examples. `ValueError` for an unknown suffix or a folder of something else."""
    save, _ = _format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".zarr", ""):
        _write_whole_folder(path, lambda part: save(part, parts))
    else:
        write_whole(path, lambda part: save(part, parts))


def read(path: Path) -> Parts:
    """What a file of examples holds; folders are not read into memory. `ValueError` for what cannot be read."""
    _, load = _format(path)
    if not path.exists():
        raise ValueError(f"there is no {str(path)!r}. Wanted: {WANTED}.")
    try:
        return load(path)
    except (ArithmeticError, EOFError, LookupError, OSError, TypeError, ValueError) as error:
        reason = error
    except (safetensors.SafetensorError, zipfile.BadZipFile, zlib.error) as error:
        reason = error
    raise ValueError(
        f"Cannot read examples from {str(path)!r} ({type(reason).__name__}: {reason}). Wanted: a whole file or folder "
        "with arrays X (n, k, d) and Y, and mask where tokens are absent, as Examples.save writes it."
    ) from reason


def is_examples(path: Path) -> bool:
    """Whether `path` is named as a file or folder of examples, and not as a saved layer."""
    if path.suffix == ".safetensors" and path.is_file():
        try:
            with safetensors.safe_open(path, "numpy") as file:
                return {"x", "y"} <= {name.lower() for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, safetensors.SafetensorError):
            return False
    if path.suffix in (".npz", ".parquet", ".zarr"):
        return True
    return (path / JSON).is_file() or ((path / "X.npy").is_file() and (path / "Y.npy").is_file())


def _format(path: Path) -> tuple[Callable[[Path, Parts], object], Callable[[Path], Parts]]:
    known = {
        ".npz": (_write_npz, _read_npz),
        ".safetensors": (_write_safetensors, _read_safetensors),
        ".parquet": (parquet.write, parquet.read),
        ".zarr": (_write_zarr, _read_zarr),
        "": (_write_folder, _read_folder),
    }
    suffix = "" if path.is_dir() and path.suffix not in known else path.suffix
    if suffix not in known:
        raise ValueError(f"{str(path)!r} has the unknown suffix {suffix!r}. Wanted: {WANTED}.")
    return known[suffix]


def _named(arrays: dict[str, Any], rows: Any = None) -> Parts:
    """X, Y, mask and rows among named arrays; x and y will do."""
    names = {name.lower(): name for name in arrays}
    if not {"x", "y"} <= set(names) or len(names) < len(arrays):
        raise ValueError(f"it holds {', '.join(sorted(arrays)) or 'nothing'}; wanted are arrays named X and Y")
    rows = arrays[names["rows"]] if "rows" in names else rows
    mask = arrays[names["mask"]] if "mask" in names else None
    return Parts(arrays[names["x"]], arrays[names["y"]], mask, None if rows is None else str(rows))


def _whole(parts: Parts) -> dict[str, np.ndarray]:
    """X, Y and mask in memory, by name."""
    arrays = {name: parts.piece(name, slice(None)) for name in ("X", "Y")}
    return arrays if parts.mask is None else arrays | {"mask": parts.mask}


def _write_npz(path: Path, parts: Parts) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **_whole(parts), rows=np.array(parts.rows))


def _read_npz(path: Path) -> Parts:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("it is no npz archive, or not a whole one")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as found:
            return _named({name: found[name] for name in found.files})


def _write_safetensors(path: Path, parts: Parts) -> None:
    arrays = {name: np.ascontiguousarray(array) for name, array in _whole(parts).items()}
    safetensors.numpy.save_file(arrays, path, {"format": FORMAT, "rows": str(parts.rows)})


def _read_safetensors(path: Path) -> Parts:
    with safetensors.safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return _named(arrays, (file.metadata() or {}).get("rows"))


def _write_folder(path: Path, parts: Parts) -> None:
    path.mkdir()
    for name in ("X", "Y"):
        array = getattr(parts, name)
        kept = np.lib.format.open_memmap(path / f"{name}.npy", "w+", plain(array.dtype), tuple(array.shape))
        for part in slices(array):
            kept[part] = parts.piece(name, part)
        kept.flush()
    if parts.mask is not None:
        np.save(path / "mask.npy", parts.mask)
    (path / JSON).write_text(json.dumps({"format": FORMAT, "rows": parts.rows}) + "\n", encoding="utf-8")


def _read_folder(path: Path) -> Parts:
    X, Y = (np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("X", "Y"))
    mask = np.load(path / "mask.npy", allow_pickle=False) if (path / "mask.npy").exists() else None
    said = json.loads((path / JSON).read_text(encoding="utf-8")) if (path / JSON).exists() else {}
    return Parts(X, Y, mask, said.get("rows"))


def _write_zarr(path: Path, parts: Parts) -> None:
    group = extra("zarr").open_group(path, mode="w", attributes={"format": FORMAT, "rows": parts.rows})
    for name in ("X", "Y"):
        array = getattr(parts, name)
        rows = (min(array.shape[0], max(1, chunk(array) // 16)), *array.shape[1:])
        dtype = plain(array.dtype)
        missing = np.nan if dtype.kind == "f" else 0  # a chunk that is lost is noticed
        kept = group.create_array(name, shape=array.shape, chunks=rows, dtype=dtype, fill_value=missing)
        for part in slices(array):
            kept[part] = parts.piece(name, part)
    if parts.mask is not None:
        group.create_array("mask", data=parts.mask)


def _read_zarr(path: Path) -> Parts:
    group = extra("zarr").open_group(path, mode="r")
    arrays = dict(group.arrays())
    found = _named(arrays, group.attrs.get("rows"))
    return found if found.mask is None else found._replace(mask=np.asarray(found.mask[:]))


def _write_whole_folder(path: Path, save: Callable[[Path], object]) -> None:
    """Lets `save` make a temporary neighbour of the folder `path`, then puts it in place of an older one."""
    if path.exists() and not is_examples(path):
        raise ValueError(f"{str(path)!r} exists and holds no examples: name another folder, or remove it")
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{word}") for word in ("part", "old"))
    try:
        save(part)
        if path.exists():
            os.replace(path, old)
        os.replace(part, path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
