"""Convolution and pooling in the form that is fastest on the platform that runs them; the one place that chooses.

On a CPU, XLA hands a convolution to its fast kernels only where its axes lie in the usual order, and it brings those of
the two gradients into that order only outside control flow: inside scan, while and switch they run 20 times slower. So
the gradients are written here as ordinary convolutions of transposed arrays. Grouped convolution is slow everywhere;
per channel, a convolution is its shifted slices multiplied and added. A 1x1 convolution is a matrix product.
Accelerators keep XLA's own gradients. Every form computes the same function. The form is chosen where a program is
traced: for the platform that `use_platform` names, since the machine that compiles need not be the one that runs it,
else for JAX's default one; `use_form` pins a form, which cost counting and the tests need.

Images are [B, H, W, C] of any float dtype; kernels are cast to it. Padding keeps ceil(H / stride) rows, as symmetric
padding of dilation * (k - 1) / 2 does for odd k.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_FORM: ContextVar[str] = ContextVar("convolution_form", default="")
_PLATFORM: ContextVar[str] = ContextVar("convolution_platform", default="")
# Numbers of which a core's own cache holds a few arrays.
_CACHED = 2**15


@contextmanager
def use_form(form: str) -> Iterator[None]:
    """Traces convolutions in the given form within the block: "cpu" or "lax"."""
    with _pinned(_FORM, form):
        yield


@contextmanager
def use_platform(platform: str) -> Iterator[None]:
    """Traces convolutions within the block for devices of a platform, as they name it: "cpu", "gpu" or "tpu"."""
    with _pinned(_PLATFORM, platform):
        yield


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Returns the convolution of images with a dense kernel.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C, O], k odd.
      stride: 1 or 2.
      dilation: spacing of the kernel's taps.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), O] in x's dtype.
    """
    size, _, inputs, outputs = kernel.shape
    kernel = kernel.astype(x.dtype)
    if _form() == "lax":
        return _lax_convolve(x, kernel, stride, dilation, 1)
    if size == 1:
        # As one matrix: over several axes at once, the kernel's gradient takes three times as long.
        places = x[:, ::stride, ::stride, :]
        return (places.reshape(-1, inputs) @ kernel.reshape(inputs, outputs)).reshape(*places.shape[:3], outputs)
    if min(x.shape[1:3]) < size:
        # XLA has no fast kernel for images smaller than the window; the product of shifted slices and kernel is one.
        slices = _shifted(_pad(x, size, dilation), size, stride, dilation, _strided(x.shape, stride))
        return jnp.concatenate(list(slices), axis=-1) @ kernel.reshape(size * size * inputs, outputs)
    return _ordinary(x, kernel, stride, dilation)


def convolve_depthwise(x: jax.Array, kernel: jax.Array, *, stride: int = 1, dilation: int = 1) -> jax.Array:
    """Returns the convolution of every channel with a kernel of its own.

    Args:
      x: [B, H, W, C].
      kernel: [k, k, C], k odd.
      stride: 1 or 2.
      dilation: spacing of the kernel's taps.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C] in x's dtype.
    """
    kernel = kernel.astype(x.dtype)
    if _form() == "lax":
        return _lax_convolve(x, kernel[:, :, None, :], stride, dilation, x.shape[-1])
    return _traced_once(x, kernel, stride, dilation)


def max_pool(x: jax.Array, *, stride: int = 1) -> jax.Array:
    """Returns the 3x3 maximum of images [B, H, W, C]; padding never wins."""
    if _form() == "lax":
        lowest = np.array(-np.inf, x.dtype)
        return lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), _window_padding())
    return _max_shifts(x, stride)


def average_pool(x: jax.Array, *, size: int = 3, stride: int = 1) -> jax.Array:
    """Returns the mean over windows of images [B, H, W, C]; padding is not counted.

    Args:
      x: [B, H, W, C].
      size: of the window, 3 (centred) or 2 (starting at each pixel).
      stride: 1 or 2.

    Returns:
      [B, ceil(H / stride), ceil(W / stride), C].
    """
    shape = _strided(x.shape, stride)
    before = (size - 1) // 2
    after = [max((n - 1) * stride + size - before - full, 0) for n, full in zip(shape[1:3], x.shape[1:3], strict=True)]
    margins = ((0, 0), (before, after[0]), (before, after[1]), (0, 0))
    ones = np.pad(np.ones(x.shape[1:3], np.float32), margins[1:3])
    rows, columns = ((n - 1) * stride + 1 for n in shape[1:3])
    counts = sum(ones[i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size))
    scale = jnp.asarray(1.0 / np.asarray(counts)[None, :, :, None], x.dtype)
    if _form() == "lax":
        zero = np.array(0, x.dtype)
        total = lax.reduce_window(x, zero, lax.add, (1, size, size, 1), (1, stride, stride, 1), margins)
    else:
        slices = _shifted(jnp.pad(x, margins), size, stride, 1, shape)
        total = next(slices)
        for piece in slices:
            total = total + piece
    return total * jnp.broadcast_to(scale, total.shape)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_shifts(x: jax.Array, stride: int) -> Any:
    slices = _window_slices(x, stride)
    result = next(slices)
    for piece in slices:
        result = jnp.maximum(result, piece)
    return result


def _max_forward(x: jax.Array, stride: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the maxima, and for each the tap that holds it, int8; the first of equals, as XLA's own form has it."""
    slices = _window_slices(x, stride)
    result = next(slices)
    winner = jnp.zeros(result.shape, jnp.int8)
    for tap, piece in enumerate(slices, start=1):
        winner = jnp.where(piece > result, jnp.int8(tap), winner)
        result = jnp.maximum(result, piece)
    # The input is kept for its shape alone; its values are not read again.
    return result, (winner, x)


def _max_backward(stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    """Returns the gradient: each pixel collects those of the nine windows around it that it won."""
    winner, x = saved
    # Between the spread-out windows the gradient is zero, whatever tap stands there.
    gradients = _shifted(_pad(_spread(gradient, x.shape, stride), 3, 1), 3, 1, 1, x.shape)
    winners = _shifted(_pad(_spread(winner, x.shape, stride), 3, 1), 3, 1, 1, x.shape)
    total = jnp.zeros_like(x)
    for tap, (piece, won) in enumerate(zip(gradients, winners, strict=True)):
        total = total + jnp.where(won == 8 - tap, piece, jnp.zeros_like(piece))
    return (total,)


_max_shifts.defvjp(_max_forward, _max_backward)


def _window_slices(x: jax.Array, stride: int) -> Iterator[jax.Array]:
    lowest = float(jnp.finfo(x.dtype).min)
    return _shifted(_pad(x, 3, 1, lowest), 3, stride, 1, _strided(x.shape, stride))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _ordinary(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> Any:
    return _lax_convolve(x, kernel, stride, dilation, 1)


def _ordinary_forward(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    return _lax_convolve(x, kernel, stride, dilation, 1), (x, kernel)


def _ordinary_backward(
    stride: int, dilation: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of input and kernel, each as a convolution whose axes lie in the usual order."""
    x, kernel = saved
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    input_gradient = _lax_convolve(_spread(gradient, x.shape, stride), flipped, 1, dilation, 1)
    # A kernel's tap sums over images and places: channels become the batch, and the batch the channels. The stride of
    # the forward pass is the spacing of the gradient's places, and the dilation the stride from tap to tap.
    size = kernel.shape[0]
    padded = _pad(x, size, dilation).transpose(3, 1, 2, 0)
    reach = [(n - 1) * stride + 1 + (size - 1) * dilation for n in gradient.shape[1:3]]
    taps = lax.conv_general_dilated(
        padded[:, : reach[0], : reach[1]],
        gradient.transpose(1, 2, 0, 3),
        (dilation, dilation),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return input_gradient, taps.transpose(1, 2, 0, 3)


_ordinary.defvjp(_ordinary_forward, _ordinary_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise_shifts(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return _sum_taps(x, _taps(kernel), stride, dilation)


def _depthwise_forward(
    x: jax.Array, kernel: jax.Array, stride: int, dilation: int
) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    result: Any = _depthwise_shifts(x, kernel, stride, dilation)
    return result, (x, kernel)


def _depthwise_backward(
    stride: int, dilation: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients: the input's by the same routine with the kernel flipped, the kernel's tap by tap.

    The taps are a loop, so that the program does not grow with the kernel. The batch is gone over in groups of images
    that fit the cache, so all k * k sums over a group cost little more than one. A sum over the rows of a group is a
    product with ones, which runs at the speed of the machine; XLA's reduction over leading axes adds up one number at a
    time. Columns and channels are one axis: where a tap begins is known when the program runs, and XLA reads fast from
    there only along long rows.
    """
    x, kernel = saved
    size = kernel.shape[0]
    spread = _spread(gradient, x.shape, stride)
    input_gradient = _sum_taps(spread, _taps(kernel)[::-1], 1, dilation)
    batch, height, width, channels = gradient.shape
    group = max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * gradient[0].size <= _CACHED))
    pixels = _phases(_pad(x, size, dilation), stride)
    cotangents = gradient.reshape(batch, height, width * channels)
    ones = jnp.ones((1, group * height), x.dtype)

    # For every step of the loop: its tap, and where that reads its phase, first image, row and column.
    at = np.arange(size * size * (batch // group), dtype=np.int32)
    tap, first = at % (size * size), at // (size * size) * group
    row, column = tap // size * dilation, tap % size * dilation
    starts = (row % stride * stride + column % stride, first, row // stride, column // stride * channels)

    def accumulate(total: jax.Array, step: Any) -> tuple[jax.Array, None]:
        tap, start = step
        pieces = lax.dynamic_slice(pixels, start, (1, group, height, width * channels))[0]
        product = pieces * lax.dynamic_slice_in_dim(cotangents, start[1], group)
        own = jnp.dot(ones, product.reshape(group * height, width * channels), preferred_element_type=jnp.float32)
        own = own + lax.dynamic_slice_in_dim(total, tap, 1)
        return lax.dynamic_update_slice_in_dim(total, own, tap, 0), None

    zero = jnp.zeros((size * size, width * channels), jnp.float32)
    taps, _ = lax.scan(accumulate, zero, jax.tree.map(jnp.asarray, (tap, starts)))
    return input_gradient, taps.reshape(size, size, width, channels).sum(2).astype(kernel.dtype)


_depthwise_shifts.defvjp(_depthwise_forward, _depthwise_backward)


def _taps(kernel: jax.Array) -> list[jax.Array]:
    """Returns the taps [C] of a kernel [k, k, C], row by row; cut from one axis, so that XLA need not copy them."""
    channels = kernel.shape[-1]
    flat = kernel.reshape(-1)
    return [lax.slice(flat, (at,), (at + channels,)) for at in range(0, flat.size, channels)]


def _sum_taps(x: jax.Array, taps: list[jax.Array], stride: int, dilation: int) -> jax.Array:
    """Returns the sum of x, shifted to each of k * k taps, times the tap."""
    size, shape = math.isqrt(len(taps)), _strided(x.shape, stride)
    total = jnp.zeros(shape, x.dtype)
    for piece, tap in zip(_shifted(_pad(x, size, dilation), size, stride, dilation, shape), taps, strict=True):
        total = total + piece * lax.broadcast_in_dim(tap, shape, (3,))
    return total


# Within a program, calls of equal shapes are traced and lowered once.
_traced_once = jax.jit(_depthwise_shifts, static_argnums=(2, 3))


@contextmanager
def _pinned(variable: ContextVar[str], value: str) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _form() -> str:
    return _FORM.get() or ("cpu" if (_PLATFORM.get() or jax.default_backend()) == "cpu" else "lax")


def _lax_convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int, groups: int) -> jax.Array:
    margin = dilation * (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((margin, margin), (margin, margin)),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _window_padding() -> tuple[tuple[int, int], ...]:
    return ((0, 0), (1, 1), (1, 1), (0, 0))


def _strided(shape: tuple[int, ...], stride: int) -> tuple[int, ...]:
    batch, height, width, channels = shape
    return batch, -(-height // stride), -(-width // stride), channels


def _pad(x: jax.Array, size: int, dilation: int, value: float = 0.0) -> jax.Array:
    margin = dilation * (size - 1) // 2
    if margin == 0:
        return x
    edges = ((0, 0, 0), (margin, margin, 0), (margin, margin, 0), (0, 0, 0))
    return lax.pad(x, jnp.asarray(value, x.dtype), edges)


def _shifted(x: jax.Array, size: int, stride: int, dilation: int, shape: tuple[int, ...]) -> Iterator[jax.Array]:
    """Yields, for each tap in row-major order, the slice of padded x that the tap multiplies."""
    _, height, width, _ = shape
    for i in range(size):
        for j in range(size):
            top, left = i * dilation, j * dilation
            stop = (x.shape[0], top + (height - 1) * stride + 1, left + (width - 1) * stride + 1, x.shape[3])
            yield lax.slice(x, (0, top, left, 0), stop, (1, stride, stride, 1))


def _phases(x: jax.Array, stride: int) -> jax.Array:
    """Returns every stride-th row and column of x, from each of the first on: [stride**2, B, H', W' * C]."""
    _, height, width, _ = x.shape
    x = lax.pad(x, jnp.asarray(0, x.dtype), ((0, 0, 0), (0, -height % stride, 0), (0, -width % stride, 0), (0, 0, 0)))
    each = jnp.stack([x[:, row::stride, column::stride] for row in range(stride) for column in range(stride)])
    return each.reshape(*each.shape[:3], -1)


def _spread(gradient: jax.Array, shape: tuple[int, ...], stride: int) -> jax.Array:
    """Puts a strided output's gradient back on the input's grid, zeros between."""
    if stride == 1:
        return gradient
    rows, columns = (full - ((n - 1) * stride + 1) for full, n in zip(shape[1:3], gradient.shape[1:3], strict=True))
    edges = ((0, 0, 0), (0, rows, stride - 1), (0, columns, stride - 1), (0, 0, 0))
    return lax.pad(gradient, jnp.asarray(0, gradient.dtype), edges)
