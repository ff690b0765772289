"""One loop over chunks for all learners: here, or on any `concurrent.futures` executor, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from attnlearn._progress import progress

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")

IN_FLIGHT = 64  # chunks that wait for an executor, at most


def over_chunks(
    chunks: Iterable[Chunk],
    work: Callable[[Chunk], Result],
    executor: Executor | None = None,
    stage: tuple[str, int] | None = None,
) -> Iterator[Result]:
    """`work` of every chunk, in order. With an executor, `work` and chunks must be picklable.

    `stage`: name and number of chunks, of which progress is reported.
    """
    for number, result in enumerate(_results(chunks, work, executor)):
        if stage is not None:
            progress(stage[0], number + 1, stage[1])
        yield result


def _results(chunks: Iterable[Chunk], work: Callable[[Chunk], Result], executor: Executor | None) -> Iterator[Result]:
    if executor is None:
        yield from map(work, chunks)
        return
    waiting: deque[Future] = deque()  # `Executor.map` would read all chunks at once
    for chunk in chunks:
        waiting.append(executor.submit(work, chunk))
        if len(waiting) > IN_FLIGHT:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
