"""The normalisation of final training is Flax's, forwards and backwards, in both forms of its sums."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.batch_norm import BatchNorm
from parsec.cells.convolution import use_form


@pytest.mark.parametrize("form", ["cpu", "lax"])
def test_it_equals_flax_in_result_gradients_and_averages(key: jax.Array, form: str):
    x = 3 + 2 * jax.random.normal(key, (4, 5, 3, 6))
    weights = jax.random.normal(jax.random.fold_in(key, 1), x.shape)
    params = {"scale": jnp.linspace(0.5, 2, 6), "bias": jnp.linspace(-1, 1, 6)}
    stats = {"mean": jnp.full(6, 0.25), "var": jnp.full(6, 0.5)}

    def run(module: nn.Module):
        def loss(params, x):
            y, updated = module.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
            return (y * weights).sum(), (y, updated)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    with use_form(form):
        found = run(BatchNorm(use_running_average=False))
    expected = run(nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, expected)


def test_evaluation_uses_the_averages_and_leaves_them(key: jax.Array):
    x = jax.random.normal(key, (2, 3, 3, 4)).astype(jnp.bfloat16)
    variables = {
        "params": {"scale": jnp.full(4, 2.0), "bias": jnp.full(4, 1.0)},
        "batch_stats": {"mean": jnp.full(4, 0.5), "var": jnp.full(4, 4.0)},
    }
    y, updated = BatchNorm(use_running_average=True).apply(variables, x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), (np.asarray(x, np.float32) - 0.5) + 1.0, atol=0.03)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
