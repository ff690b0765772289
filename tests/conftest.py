"""Every call is checked against its annotations; every test leaves the JAX setting as it found it."""

import hypothesis
from jaxtyping import install_import_hook

install_import_hook("attnlearn", "beartype.beartype")  # before anything imports the package

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile(
    "check",
    derandomize=True,
    deadline=None,  # the first call of a shape compiles
    max_examples=20,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("check")


@pytest.fixture
def key() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def jax_setting_as_found():
    """The library computes in float64 without touching what the user has set."""
    before = jax.config.jax_enable_x64
    yield
    assert jax.config.jax_enable_x64 == before, "jax_enable_x64 was changed and not put back"


@pytest.fixture(autouse=True)
def strict_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield
