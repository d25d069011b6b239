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

    def both(*arguments):
        return run(*arguments), jax.grad(total, argnums=tuple(range(len(arguments))))(*arguments)

    found = []
    for form in ("cpu", "lax"):
        with use_form(form):
            # One program, where each operation would be one.
            found.append(jax.jit(lambda *arguments: both(*arguments))(*arguments))
    return found


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (5, 1, 2)])
def test_dense_convolution(size, kernel, stride, dilation):
    x = normal(2, *size, 3)
    weights = normal(kernel, kernel, 3, 4)
    ours, reference = both_forms(lambda x, w: convolve(x, w, stride=stride, dilation=dilation), x, weights)
    assert ours[0].shape == (2, -(-size[0] // stride), -(-size[1] // stride), 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, reference)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 1, 1), (3, 1, 2), (5, 2, 2)])
def test_depthwise_convolution(size, kernel, stride, dilation):
    x = normal(2, *size, 3)
    weights = normal(kernel, kernel, 3)
    ours, reference = both_forms(lambda x, w: convolve_depthwise(x, w, stride=stride, dilation=dilation), x, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, reference)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_pooling(size, stride):
    x = normal(2, *size, 3)
    for pool in (
        lambda x: max_pool(x, stride=stride),
        lambda x: average_pool(x, stride=stride),
        lambda x: average_pool(x, size=2, stride=stride),
    ):
        ours, reference = both_forms(pool, x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, reference)


@pytest.mark.parametrize("batch", [6, 7])
def test_the_kernels_gradient_is_the_sum_over_all_groups_of_images(batch, monkeypatch):
    """Two images fit; six make three groups, and seven groups of one."""
    monkeypatch.setattr(convolution, "_CACHED", 2 * 8 * 8 * 3)
    x = normal(batch, 8, 8, 3)
    weights = normal(3, 3, 3)
    ours, reference = both_forms(lambda x, w: convolve_depthwise(x, w), x, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, reference)


def test_padding_is_neither_averaged_nor_a_maximum():
    x = jnp.full((1, 4, 4, 1), -2.0)
    for form in ("cpu", "lax"):
        with use_form(form):
            np.testing.assert_allclose(average_pool(x), x, rtol=1e-6)
            np.testing.assert_allclose(max_pool(x), x)


def test_bfloat16_stays_bfloat16():
    x, kernel = jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.bfloat16), jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)

    def run(x, kernel):
        gradient = jax.grad(lambda w: convolve_depthwise(x, w).astype(jnp.float32).sum())(kernel[..., 0])
        return gradient, convolve(x, kernel), convolve_depthwise(x, kernel[..., 0]), max_pool(x), average_pool(x)

    for form in ("cpu", "lax"):
        with use_form(form):
            gradient, *results = jax.eval_shape(lambda *given: run(*given), x, kernel)
        assert gradient.dtype == jnp.float32
        assert all(result.dtype == jnp.bfloat16 for result in results)


@pytest.mark.parametrize("stride", [1, 2])
def test_equal_pixels_share_no_gradient(stride):
    x = np.round(normal(2, 7, 8, 3))
    ours, reference = both_forms(lambda x: max_pool(x, stride=stride), x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, reference)
