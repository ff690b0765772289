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
from attnlearn.studies.single_location import single_location
from attnlearn.studies.single_location_manifold import single_location_manifold
from attnlearn.studies.single_location_phases import single_location_phases
from attnlearn.studies.single_location_probing import single_location_probing
from attnlearn.studies.single_location_risk_ladder import single_location_risk_ladder
from attnlearn.studies.single_location_samples import single_location_samples

STUDIES: Mapping[str, Callable[[], Study]] = {
    "minilm-activations": minilm_activations,
    "sculpting-walkthrough": sculpting_walkthrough,
    "sculpting-seeds": sculpting_seeds,
    **SWEEPS,
    "sculpting-gap": sculpting_gap,
    "sculpting-region": sculpting_region,
    "sculpting-routes": sculpting_routes,
    "sculpting-hardness": sculpting_hardness,
    "single-location": single_location,
    "single-location-phases": single_location_phases,
    "single-location-manifold": single_location_manifold,
    "single-location-risk-ladder": single_location_risk_ladder,
    "single-location-samples": single_location_samples,
    "single-location-probing": single_location_probing,
}

__all__ = ["STUDIES"]
