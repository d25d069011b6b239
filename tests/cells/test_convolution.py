"""Both forms of every convolution and pooling compute one function, and so do their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import convolution
from parsec.cells.convolution import average_pool, convolve, convolve_depthwise, max_pool, use_form

SIZES = [(8, 8), (7, 5), (2, 2)]


def both_forms(run, *arguments):
    """Returns value and gradients of `run` in the two forms; its outputs are weighted so that none cancels."""

    def total(*arguments):
        result = run(*arguments)
        return (result * jnp.arange(result.size, dtype=result.dtype).reshape(result.shape)).sum() / result.size

    found = []
    for form in ("cpu", "lax"):
        with use_form(form):
            found.append((run(*arguments), jax.grad(total, argnums=tuple(range(len(arguments))))(*arguments)))
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (5, 1, 2)])
def test_dense_convolution(key, size, kernel, stride, dilation):
    x = jax.random.normal(key, (2, *size, 3))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (kernel, kernel, 3, 4))
    ours, reference = both_forms(lambda x, w: convolve(x, w, stride=stride, dilation=dilation), x, weights)
    assert ours[0].shape == (2, -(-size[0] // stride), -(-size[1] // stride), 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, reference)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 1), (3, 1, 2), (5, 2, 2)])
def test_depthwise_convolution(key, size, kernel, stride, dilation):
    x = jax.random.normal(key, (2, *size, 3))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (kernel, kernel, 3))
    ours, reference = both_forms(lambda x, w: convolve_depthwise(x, w, stride=stride, dilation=dilation), x, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, reference)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_pooling(key, size, stride):
    x = jax.random.normal(key, (2, *size, 3))
    for pool in (
        lambda x: max_pool(x, stride=stride),
        lambda x: average_pool(x, stride=stride),
        lambda x: average_pool(x, size=2, stride=stride),
    ):
        ours, reference = both_forms(pool, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, reference)


@pytest.mark.parametrize("batch", [6, 7])
def test_the_kernels_gradient_is_the_sum_over_all_groups_of_images(key, batch, monkeypatch):
    """Two images fit; six make three groups, and seven groups of one."""
    monkeypatch.setattr(convolution, "_CACHED", 2 * 8 * 8 * 3)
    x = jax.random.normal(key, (batch, 8, 8, 3))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (3, 3, 3))
    ours, reference = both_forms(lambda x, w: convolve_depthwise(x, w), x, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, reference)


def test_padding_is_neither_averaged_nor_a_maximum():
    x = jnp.full((1, 4, 4, 1), -2.0)
    for form in ("cpu", "lax"):
        with use_form(form):
            np.testing.assert_allclose(average_pool(x), x, rtol=1e-6)
            np.testing.assert_allclose(max_pool(x), x)


def test_bfloat16_stays_bfloat16(key):
    x = jax.random.normal(key, (2, 6, 6, 3)).astype(jnp.bfloat16)
    kernel = jax.random.normal(key, (3, 3, 3, 4))
    for form in ("cpu", "lax"):
        with use_form(form):
            assert convolve(x, kernel).dtype == jnp.bfloat16
            assert convolve_depthwise(x, kernel[..., 0]).dtype == jnp.bfloat16
            assert max_pool(x).dtype == average_pool(x).dtype == jnp.bfloat16
            gradient = jax.grad(lambda w: convolve_depthwise(x, w).astype(jnp.float32).sum())(kernel[..., 0])
            assert gradient.dtype == jnp.float32


@pytest.mark.parametrize("stride", [1, 2])
def test_equal_pixels_share_no_gradient(key, stride):
    x = jnp.round(jax.random.normal(key, (2, 7, 8, 3)))
    ours, reference = both_forms(lambda x: max_pool(x, stride=stride), x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, reference)
