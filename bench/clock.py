"""Separates compiling from working: a learner under JAX's own reports of what it compiled."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax.monitoring
import numpy as np

import attnlearn as al

COMPILING = "/jax/core/compile/"  # tracing, lowering and the compiler itself


class Clocked(al.learners.AbstractLearner):
    """The same learner; in its cost, `seconds` are without and `compile_seconds` with all that JAX compiled."""

    learner: al.learners.AbstractLearner

    def learn(self, source: Any, key: np.random.Generator) -> al.learners.Learned:
        with compilations() as spans:
            learned = self.learner.learn(source, key)
        total = learned.cost.seconds + learned.cost.compile_seconds
        compiling = sum((end - start for start, end in spans), 0.0)
        cost = replace(learned.cost, seconds=total - compiling, compile_seconds=compiling)
        return replace(learned, cost=cost)


@contextlib.contextmanager
def compilations() -> Iterator[list[tuple[float, float]]]:
    """The disjoint spans of time (start, end) in which JAX compiled; one inside another is part of the outer one."""
    spans: list[tuple[float, float]] = []

    def heard(event: str, duration_secs: float, **kwargs: object) -> None:
        if event.startswith(COMPILING):
            end = time.perf_counter()
            start = end - duration_secs
            while spans and spans[-1][0] >= start:
                spans.pop()
            spans.append((start, end))

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield spans
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)
