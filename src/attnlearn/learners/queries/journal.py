"""What a run has found so far: stages with their figures, arrays, and the best layer."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from attnlearn._progress import progress
from attnlearn._status import Status, Stop
from attnlearn.data.queries import QueryOracle
from attnlearn.layers.attention import AttentionLayer
from attnlearn.learners._base import Learned
from attnlearn.records import Cost, Phase


class Journal:
    """Keeps everything that a stop or an interruption must not lose."""

    def __init__(self, oracle: QueryOracle):
        self._oracle, self._before, self._start = oracle, oracle.ledger, time.perf_counter()
        self._phases: list[Phase] = []
        self._arrays: dict[str, np.ndarray] = {}
        self.layer: AttentionLayer | None = None
        self.stage_name = ""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a stage and counts its questions; the caller fills in its figures."""
        self.stage_name = name
        progress(name, 0)
        figures: dict[str, Any] = {}
        calls, start = self._oracle.ledger.calls, time.perf_counter()
        try:
            yield figures
        finally:
            spent = self._oracle.ledger.calls - calls
            self._phases.append(Phase(name, figures, spent, time.perf_counter() - start))

    def keep(self, **arrays: np.ndarray) -> None:
        self._arrays.update(arrays)

    def note(self, stop: Stop) -> None:
        """Writes the reason for another way into the figures of the last stage."""
        last = self._phases[-1]
        self._phases[-1] = Phase(last.name, {**last.figures, "left_for": str(stop)}, last.calls, last.seconds)

    def learned(self, status: Status, evidence: str) -> Learned:
        cost = Cost.between(self._before, self._oracle.ledger, time.perf_counter() - self._start)
        return Learned(self.layer, status, cost, tuple(self._phases), evidence, self._arrays)
