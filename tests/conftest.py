"""Every test runs under the strictest settings the package promises to keep.

Four virtual CPU devices exercise the sharded code; dtype and rank promotion are errors, so that nothing widens
silently.
"""

import gc
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

# Tests compile far more than they compute, so the compiler is told not to try hard, and what it made is kept: for the
# next program that is the same, and for other processes, those of pytest-xdist and the commands that tests start, which
# inherit all of this.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "parsec-test-compile-cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import jax
import numpy as np
import pytest
from PIL import Image

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A loaded machine is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Leaves what is imported alone and collects seldom: tracing makes few cycles, and looking for them takes long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


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


@pytest.fixture
def noise_images(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder of two classes, light and dark noise: 40 images to learn from and 10 for the test."""

    def make(ending: str) -> Path:
        rng = np.random.default_rng(0)
        for part, count in (("train", 20), ("val", 5)):
            for label, name in enumerate(("dark", "light")):
                (tmp_path / "images" / part / name).mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(100 * label, 100 * label + 150, (24, 20, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i:02d}.{ending}")
        return tmp_path / "images"

    return make
