"""The candidate operations, each a Flax module defined once.

The supernet stacks an operation's parameters over the slots of a cell and applies it by index; a derived network calls
the same module by name. An operation maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), C].

The set is that of DARTS (Liu, Simonyan, Yang 2019, arXiv 1806.09055) and NAS-Bench-201 (Dong, Yang 2020, arXiv
2001.00326). A convolution is preceded by ReLU and followed by normalisation in both. An operation of your own is one
entry in `OPERATIONS`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.batch_norm import normalise
from parsec.cells.convolution import average_pool, convolve, convolve_depthwise, max_pool
from parsec.errors import unknown

# A normalisation: a Flax module class, or a partial of one, called with a name.
Norm = Callable[..., Any]

_BLOCK = 2**14
# Blocks that are drawn one by one; kernels of more are far larger than any of a search.
_MOST_BLOCKS = 64


def kernel_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Returns a kernel [..., inputs, outputs], uniform with variance 1 / (3 fan_in), so that published rates hold.

    Every shape is cut from draws of one size: a supernet has a hundred shapes of kernels, and compiling a random
    generator for each of them would take longer than the search's first epoch.
    """
    blocks = -(-math.prod(shape) // _BLOCK)
    if blocks > _MOST_BLOCKS:
        # The same numbers, in a program that does not grow with the kernel.
        draws = [jax.vmap(partial(_draw, key))(jnp.arange(blocks, dtype=jnp.uint32)).reshape(-1)]
    else:
        draws = [_draw(key, np.uint32(block)) for block in range(blocks)]
    return _cut(draws, tuple(shape), dtype)


@jax.jit
def _draw(key: jax.Array, block: jax.Array) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(key, block), (_BLOCK,), jnp.float32, -1.0, 1.0)


@partial(jax.jit, static_argnums=(1, 2))
def _cut(draws: list[jax.Array], shape: tuple[int, ...], dtype: Any) -> jax.Array:
    limit = 1 / math.sqrt(math.prod(shape[:-1]))
    return (jnp.concatenate(draws)[: math.prod(shape)].reshape(shape) * limit).astype(dtype)


class BatchStatistics(nn.Module):
    """Normalises each channel by the statistics of the batch at hand; no parameters, no running averages.

    With shared weights the running averages of one child are wrong for every other, so the supernet keeps none.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x [B, H, W, C] with zero mean and unit variance over B, H and W; statistics in float32."""
        channels = x.shape[-1:]
        result: Any = normalise(x, jnp.ones(channels), jnp.zeros(channels), self.epsilon)
        return result[0]


class MakeOperation(Protocol):
    """Builds an operation from the channels it maps from and to, its stride and its normalisation."""

    def __call__(self, *, channels: int, stride: int, norm: Norm, name: str | None = None) -> nn.Module: ...


class Zero(nn.Module):
    """No connection."""

    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns zeros of the output's shape."""
        return jnp.zeros_like(x[:, :: self.stride, :: self.stride, :])


class Identity(nn.Module):
    """The input itself; at stride 2, a factorised reduction."""

    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x, or x reduced."""
        return x if self.stride == 1 else FactorizedReduce(self.channels, self.norm, name="reduce")(x)


class Pool(nn.Module):
    """A 3x3 pooling."""

    pool: Callable[..., jax.Array]
    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x pooled."""
        return self.pool(x, stride=self.stride)


class ReluConv(nn.Module):
    """ReLU, convolution, normalisation; changes the number of channels where asked."""

    size: int
    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), channels]."""
        kernel = self.param("kernel", kernel_init, (self.size, self.size, x.shape[-1], self.channels))
        return self.norm(name="norm")(convolve(nn.relu(x), kernel, stride=self.stride))


class Separable(nn.Module):
    """ReLU, depthwise convolution, pointwise convolution, normalisation; once, or twice with the stride first."""

    size: int
    channels: int
    stride: int
    norm: Norm
    dilation: int = 1
    repeats: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), channels]."""
        for repeat in range(self.repeats):
            inputs = x.shape[-1]
            # [k, k, 1, C] gives a depthwise kernel its fan-in of k * k.
            depthwise = self.param(f"depthwise_{repeat}", kernel_init, (self.size, self.size, 1, inputs))
            pointwise = self.param(f"pointwise_{repeat}", kernel_init, (1, 1, inputs, self.channels))
            stride = self.stride if repeat == 0 else 1
            x = convolve_depthwise(nn.relu(x), depthwise[:, :, 0], stride=stride, dilation=self.dilation)
            x = self.norm(name=f"norm_{repeat}")(convolve(x, pointwise))
        return x


class FactorizedReduce(nn.Module):
    """Halves the resolution: ReLU, then two 1x1 convolutions of stride 2 on grids one pixel apart, normalised."""

    channels: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, ceil(H / 2), ceil(W / 2), channels]."""
        half = self.channels // 2
        even = self.param("even", kernel_init, (1, 1, x.shape[-1], half))
        odd = self.param("odd", kernel_init, (1, 1, x.shape[-1], self.channels - half))
        x = nn.relu(x)
        # The second grid starts one pixel further in; a row and a column of zeros keep the sizes equal.
        shifted = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))[:, 1:, 1:, :]
        pieces = [convolve(x, even, stride=2), convolve(shifted, odd, stride=2)]
        return self.norm(name="norm")(jnp.concatenate(pieces, axis=-1))


OPERATIONS: dict[str, MakeOperation] = {
    "none": Zero,
    "skip_connect": Identity,
    "max_pool_3x3": partial(Pool, max_pool),
    "avg_pool_3x3": partial(Pool, average_pool),
    "sep_conv_3x3": partial(Separable, 3, repeats=2),
    "sep_conv_5x5": partial(Separable, 5, repeats=2),
    "dil_conv_3x3": partial(Separable, 3, dilation=2),
    "dil_conv_5x5": partial(Separable, 5, dilation=2),
    "nor_conv_1x1": partial(ReluConv, 1),
    "nor_conv_3x3": partial(ReluConv, 3),
}


def make_operation(name: str, *, channels: int, stride: int, norm: Norm, bind_as: str | None = None) -> nn.Module:
    """Returns the named operation; raises `UserError` for a name that is not in `OPERATIONS`.

    Args:
      name: key in `OPERATIONS`.
      channels: of its output.
      stride: 1 or 2.
      norm: normalisation after each convolution.
      bind_as: name of the submodule, where it is made inside another module.
    """
    if name not in OPERATIONS:
        raise unknown("operation", name, OPERATIONS)
    return OPERATIONS[name](channels=channels, stride=stride, norm=norm, name=bind_as)
