"""Every test runs under the strictest settings the package promises to keep.

Four virtual CPU devices exercise the sharded code; dtype and rank promotion are errors, so that nothing widens
silently.
"""

import os

# Tests compile far more than they compute, so the compiler is told not to try hard.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tempfile
from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "parsec-test-compile-cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)

# A loaded machine is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def key() -> jax.Array:
    """A fixed random key."""
    return jax.random.key(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of measuring data, named by the environment variable PARSEC_DATA; skips the test without it."""
    folder = os.environ.get("PARSEC_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PARSEC_DATA names no folder of measuring data")
    return Path(folder)
