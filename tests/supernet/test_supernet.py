"""A child of the supernet is the same architecture built statically: in loss and in every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import SPACES
from parsec.cells.network import Shape
from parsec.data.source import Batch
from parsec.supernet.objective import make_child, static_child
from parsec.supernet.supernet import child_weights, make_supernet

# Space, shape and side of the images in pixels.
CASES = {
    "darts": ("darts", Shape(channels=4, cells=3, num_classes=5), 8),
    "nasbench201": ("nasbench201", Shape(4, 1, 5), 8),
    "darts behind ImageNet's stem": ("darts", Shape(4, 3, 5, stem="imagenet"), 32),
}

# Each program runs once: compiling it well would take longer than running it badly.
QUICKLY = {"xla_backend_optimization_level": 0}


def make_batch(key: jax.Array, side: int, size: int = 8) -> Batch:
    images, labels = jax.random.split(key)
    return Batch(jax.random.normal(images, (size, side, side, 3)), jax.random.randint(labels, (size,), 0, 5))


def test_every_space_has_a_case():
    assert {space for space, _, _ in CASES.values()} == set(SPACES)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if "stem" in case else []) for case in CASES]
)
def test_a_child_equals_its_static_network_in_loss_and_gradient(case: str, key: jax.Array):
    name, shape, side = CASES[case]
    space = SPACES[name]
    net = make_supernet(space, shape)
    child = make_child(space, net)
    batch = make_batch(key, side)
    weights = net.init(key, batch.images)
    shared = jax.jit(jax.value_and_grad(lambda w, a: child(w, batch, a).log_likelihood), compiler_options=QUICKLY)
    rng = np.random.default_rng(0)
    for _ in range(1):
        architecture = rng.integers(0, space.sizes).astype(np.int32)
        genotype = space.decode(architecture)
        run = static_child(space, genotype, shape)

        def static(w, run=run, genotype=genotype):
            return run(child_weights(space, shape, w, genotype), batch).log_likelihood

        expected, expected_gradient = jax.jit(jax.value_and_grad(static), compiler_options=QUICKLY)(weights)
        found, found_gradient = shared(weights, jnp.asarray(architecture))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        for (path, one), other in zip(
            jax.tree.leaves_with_path(found_gradient), jax.tree.leaves(expected_gradient), strict=True
        ):
            scale = max(float(jnp.abs(other).max()), 1e-3)
            np.testing.assert_allclose(one / scale, other / scale, atol=2e-3, err_msg=jax.tree_util.keystr(path))
    assert shared._cache_size() == 1
