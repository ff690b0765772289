"""Studies: one file, one question, one record. `STUDIES` holds them by name, functions without arguments."""

from collections.abc import Callable, Mapping

from attnlearn.records import Study
from attnlearn.studies.real_activations import minilm_activations
from attnlearn.studies.sculpting_gap import sculpting_gap
from attnlearn.studies.sculpting_hardness import sculpting_hardness
from attnlearn.studies.sculpting_region import sculpting_region
from attnlearn.studies.sculpting_routes import sculpting_routes
from attnlearn.studies.sculpting_seeds import sculpting_seeds
from attnlearn.studies.sculpting_sweeps import SWEEPS
from attnlearn.studies.sculpting_walkthrough import sculpting_walkthrough

STUDIES: Mapping[str, Callable[[], Study]] = {
    "minilm-activations": minilm_activations,
    "sculpting-walkthrough": sculpting_walkthrough,
    "sculpting-seeds": sculpting_seeds,
    **SWEEPS,
    "sculpting-gap": sculpting_gap,
    "sculpting-region": sculpting_region,
    "sculpting-routes": sculpting_routes,
    "sculpting-hardness": sculpting_hardness,
}

__all__ = ["STUDIES"]
