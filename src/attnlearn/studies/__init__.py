"""Studies: one file, one question, one record. `STUDIES` holds them by name, functions without arguments."""

from collections.abc import Callable, Mapping

from attnlearn.records import Study
from attnlearn.studies.real_activations import minilm_activations

STUDIES: Mapping[str, Callable[[], Study]] = {"minilm-activations": minilm_activations}

__all__ = ["STUDIES", "minilm_activations"]
