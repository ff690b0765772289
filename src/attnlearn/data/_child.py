"""The child process of an isolated black box: imports one function and answers for it over its standard pipes.

Run as a script (`python -P _child.py module:function`), so that it imports NumPy and the function's module, nothing
else. A message is one letter, eight bytes of length, and that many bytes: `H` hello with the declared width or
nothing, `Q` question and `A` answer as npy without pickles, `E` the text of an error.
"""

import functools
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np


def load(name: str) -> Callable[..., Any]:
    """The function `name`, "module:function", looked for on the path of Python and in the working directory.

    **Raises:** `ValueError` for another form of `name`; what the import raises.
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise ValueError(f"wanted 'module:function', got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return functools.reduce(getattr, function.split("."), importlib.import_module(module))


def send(pipe: IO[bytes], kind: bytes, content: bytes = b"") -> None:
    """Writes one message."""
    pipe.write(kind + len(content).to_bytes(8, "big") + content)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes]:
    """Reads one message: its letter and its content. `EOFError` where the other side is gone."""
    head = pipe.read(9)
    content = pipe.read(int.from_bytes(head[1:], "big"))
    if len(head) < 9 or len(content) < int.from_bytes(head[1:], "big"):
        raise EOFError
    return head[:1], content


def packed(array: Any) -> bytes:
    """An array as npy; refuses objects."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpacked(content: bytes) -> np.ndarray:
    """The array of `packed`."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def main(name: str) -> None:
    """Answers until the pipe closes. What the function prints goes to standard error, not into the answers."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        function = load(name)
    except Exception as error:
        send(answers, b"E", f"{type(error).__name__}: {error}".encode())
        return
    send(answers, b"H", str(getattr(function, "width", "")).encode())
    while True:
        try:
            _, content = receive(questions)
        except EOFError:
            return
        try:
            kind, reply = b"A", packed(function(unpacked(content)))
        except Exception as error:
            kind, reply = b"E", f"{type(error).__name__}: {error}".encode()
        send(answers, kind, reply)


if __name__ == "__main__":
    main(sys.argv[1])
