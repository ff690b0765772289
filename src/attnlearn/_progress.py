"""Progress without printing: whoever shows it listens, whoever works reports."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

Listener = Callable[[str, int, int], None]  # (stage, done, total); total 0: not known

_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar("listener", default=None)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Sends the progress of everything inside the block to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def progress(stage: str, done: int, total: int = 0) -> None:
    """Reports that `done` of `total` steps of `stage` are finished; free when nobody listens."""
    listener = _listener.get()
    if listener is not None:
        listener(stage, done, total)
