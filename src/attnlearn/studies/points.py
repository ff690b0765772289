"""The rows of a study, a point at a time: told as they come, and kept so that an interrupted study can go on."""

import contextlib
import contextvars
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from attnlearn import records
from attnlearn._progress import progress

Row = dict[str, Any]
Point = TypeVar("Point")


class _Folder(NamedTuple):
    """Where files are kept, and those that this block has named."""

    path: Path
    named: list[Path]


_folder: contextvars.ContextVar[_Folder | None] = contextvars.ContextVar("folder", default=None)


@contextlib.contextmanager
def kept_in(folder: str | Path) -> Iterator[None]:
    """Keeps every row of the studies inside the block in `folder` as it is made; a block that ends well clears them."""
    here = _Folder(Path(folder), [])
    token = _folder.set(here)
    try:
        yield
        for path in here.named:
            path.unlink(missing_ok=True)
    finally:
        _folder.reset(token)


def kept_path(name: str) -> Path | None:
    """A file for what a study must not make twice; it goes with the rows. `None` outside `kept_in`."""
    here = _folder.get()
    if here is None:
        return None
    here.named.append(here.path / name)
    return here.named[-1]


def each(
    name: str, design: Any, points: Sequence[Point], work: Callable[[Point], Row]
) -> tuple[tuple[Row, ...], float]:
    """The row that `work` gives for every point, in order, and the seconds that all of them took.

    Inside `kept_in`, rows that an earlier run of the same design and versions has kept are read and not made again.
    `design` is anything that a record can hold; a row holds JSON values, infinities and NaN among them.
    """
    kept = _Kept.opened(name, design)
    for number in range(len(kept.rows), len(points)):
        progress("study", number, len(points))
        start = time.perf_counter()
        row = work(points[number])
        kept.add(row, time.perf_counter() - start)
    progress("study", len(points), len(points))
    return tuple(kept.rows), sum(kept.seconds)


class _Kept:
    """The rows so far with the seconds of each, and the file that holds them; no file, where none was asked for."""

    def __init__(self, path: Path | None, head: str):
        self.path, self.rows, self.seconds = path, [], []
        if path is None:
            return
        for line in _lines(path, head):
            self.rows.append(line["row"])
            self.seconds.append(line["seconds"])
        lines = [head, *(_line(row, spent) for row, spent in zip(self.rows, self.seconds, strict=True))]
        records.write_whole(path, lambda part: part.write_text("".join(f"{one}\n" for one in lines), encoding="utf-8"))

    @classmethod
    def opened(cls, name: str, design: Any) -> "_Kept":
        head = _plain({"name": name, "design": design, "versions": records.versions()})
        return cls(kept_path(f"{name}.rows.jsonl"), head)

    def add(self, row: Row, seconds: float) -> None:
        self.rows.append(row)
        self.seconds.append(seconds)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(row, seconds) + "\n")


def _lines(path: Path, head: str) -> list[Row]:
    """What an earlier run kept, up to a line that it did not finish; nothing of another study, design or version."""
    if not path.is_file():
        return []
    first, *others = path.read_text(encoding="utf-8").split("\n")
    return [_numbers(json.loads(line)) for line in others[:-1]] if first == head else []


def _line(row: Row, seconds: float) -> str:
    return _plain({"row": row, "seconds": seconds})


def _plain(value: Row) -> str:
    """`value` as JSON on one line."""
    return json.dumps(json.loads(records.to_json(value)), ensure_ascii=False)


def _numbers(value: Any) -> Any:
    """Records write infinities and NaN as words."""
    if isinstance(value, dict):
        return {name: _numbers(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return float(value) if value in ("inf", "-inf", "nan") else value
