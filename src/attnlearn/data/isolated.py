"""A black box in a child process: the learner's process never holds its weights."""

import contextlib
import subprocess
import sys
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from attnlearn.data import _child
from attnlearn.data.queries import QueryOracle

SECONDS_TO_END = 5.0  # a child gets this long to end by itself once its pipe is closed


class IsolatedOracle(QueryOracle):
    """An oracle whose box is the function `name` ("module:function") in a child process.

    The child runs the same Python in the working directory and takes arrays over a pipe. What the function raises,
    and the end of the child, are answers that failed (`ORACLE_FAILED`). What it prints appears on standard error.

    **Arguments:** `width`: entries of a token; `None`: the attribute `width` of the function. Others as for
    `QueryOracle`.

    The child ends with `close()`, at the end of a `with` block, when the oracle is collected, and with this process.

    **Raises:** `ValueError` where the function cannot be imported or its width is not known.
    """

    def __init__(self, name: str, width: Any = None, **oracle_kwargs: Any):
        self._child = _Child(name)
        try:
            super().__init__(self._child.ask, known_width(name, self._child.width, width), **oracle_kwargs)
        except BaseException:
            self.close()
            raise
        self.name = name

    def close(self) -> None:
        """Ends the child process; a later question fails."""
        self._child.close()

    def __enter__(self) -> "IsolatedOracle":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


class _Child:
    def __init__(self, name: str):
        # Its own session: Ctrl-C reaches this process only, which then ends the child.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(_child.__file__)), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # both are pipes
        self._questions, self._answers = self._process.stdin, self._process.stdout
        self.close = weakref.finalize(self, _end, self._process, self._questions, self._answers)
        try:
            kind, content = _child.receive(self._answers)
        except BaseException as error:
            self.close()
            if isinstance(error, EOFError):
                raise ValueError(f"{self._ended()} while importing {name!r}") from None
            raise
        if kind == b"E":
            self.close()
            raise ValueError(f"cannot import {name!r} in a child process: {content.decode()}")
        self.width = int(content) if content else None

    def ask(self, X: np.ndarray) -> np.ndarray:
        if not self.close.alive:
            raise RuntimeError("the child process was closed")
        try:
            _child.send(self._questions, b"Q", _child.packed(X))
            kind, content = _child.receive(self._answers)
        except (EOFError, BrokenPipeError):
            self.close()
            raise RuntimeError(self._ended()) from None
        except BaseException:  # interrupted in the middle of a message: the pipes cannot be used any more
            self.close()
            raise
        if kind == b"E":
            raise RuntimeError(f"in the child process, {content.decode()}")
        return _child.unpacked(content)

    def _ended(self) -> str:
        return f"the child process ended with exit code {self._process.returncode}"


def _end(process: subprocess.Popen[bytes], questions: IO[bytes], answers: IO[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        questions.close()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    answers.close()


def known_width(name: str, declared: Any, given: Any) -> Any:
    """The width of the tokens of a function that may declare its own."""
    width = declared if given is None else given
    if width is None:
        raise ValueError(f"the width of {name!r} is not known: give width=, or the function an attribute `width`")
    return width
