"""What every learner is and what every learner returns."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import equinox as eqx
import numpy as np

from attnlearn._status import Status
from attnlearn.layers.attention import AttentionLayer
from attnlearn.records import Cost, Phase

Source = TypeVar("Source")


@dataclass(frozen=True)
class Learned:
    """The outcome of a learner.

    `layer` is the best layer so far or `None`; `evidence` the figure behind the status; `arrays` what single
    stages had already learned when the run stopped (for example `offset`, `ov_sum`, `ov`).
    """

    layer: AttentionLayer | None
    status: Status
    cost: Cost
    phases: tuple[Phase, ...] = ()
    evidence: str = ""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class AbstractLearner(eqx.Module, Generic[Source]):
    """Learns a layer from a source and never sees the target.

    A learner does not raise for hard data: it returns a status that names what stopped it.
    """

    @abc.abstractmethod
    def learn(self, source: Source, key: np.random.Generator) -> Learned:
        """Returns what could be learned from `source`; all randomness comes from `key`."""
