"""The example learns: the loss falls, the prior moves, and what it finds beats random children."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def example():
    """The example, loaded from its file as a user would run it."""
    path = Path(__file__).resolve().parents[2] / "examples" / "minimal_parsec.py"
    spec = importlib.util.spec_from_file_location("minimal_parsec", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_mode_beats_random_children(example, capsys):
    # As a user runs it, under JAX's own rules of promotion; Optax needs them.
    with jax.numpy_dtype_promotion("standard"):
        found = example.main(seed=1, steps=150)
    losses, probabilities = np.array(found["losses"]), found["probabilities"]
    assert losses[-20:].mean() < 0.7 * losses[:10].mean()
    options = len(example.OPERATIONS)
    assert probabilities.shape == (example.LAYERS, options)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert probabilities.max() > 2 / options
    assert found["accuracy"] > found["random_accuracy"] + 3
    assert " -> ".join(found["cell"]) in capsys.readouterr().out


def test_the_streamed_gradient_is_the_weighted_sum(example):
    """One child at a time, rescaled as larger likelihoods come, against all children at once."""
    rng = np.random.default_rng(0)
    weights = example.init_weights(rng)
    images = jnp.asarray(rng.normal(size=(6, 8, 8, 1)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, 6), jnp.int32)
    architectures = jnp.asarray(rng.integers(0, len(example.OPERATIONS), (3, example.LAYERS)), jnp.int32)
    streamed, values = jax.jit(example.weighted_gradient)(weights, architectures, images, labels, jnp.float32(0.5))

    def bound(weights):
        each = jnp.stack([example.log_likelihood(weights, a, images, labels) for a in architectures])
        return (jax.lax.stop_gradient(jax.nn.softmax(0.5 * each)) * each).sum()

    expected = jax.jit(jax.grad(bound))(weights)
    assert values.shape == (3,)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), streamed, expected)
