"""Batch normalisation as final training has it: a scale and a bias for each channel, and running averages.

Source: S. Ioffe and C. Szegedy 2015, "Batch Normalization", arXiv 1502.03167. The names in its trees are those of
Flax's own `nn.BatchNorm`. What is different is the backward pass: it is written out and keeps the input alone.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# All axes of images but the channels.
_PLACES = (0, 1, 2)


class BatchNorm(nn.Module):
    """Normalises each channel by the batch's statistics, or by the running averages of those that training saw.

    Attributes:
      use_running_average: whether to normalise by the averages, which then stay as they are.
      momentum: share of an average that a batch leaves as it was.
      epsilon: added to the variance.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x [B, H, W, C] normalised, in its own dtype; statistics, scale and bias are float32 [C]."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        mean: Any = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        variance: Any = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if self.use_running_average:
            return _affine(x, mean.value, jax.lax.rsqrt(variance.value + self.epsilon) * scale, bias)
        normalised: Any = normalise(x, scale, bias, self.epsilon)
        result, batch_mean, batch_variance = normalised
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * batch_mean
            variance.value = self.momentum * variance.value + (1 - self.momentum) * batch_variance
        return result


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> Any:
    """Returns x normalised by its own statistics, and these, mean and variance, which have no gradient.

    Args:
      x: [B, H, W, C].
      scale: float32 [C], of the result.
      bias: float32 [C], added to it.
      epsilon: added to the variance.

    Returns:
      [B, H, W, C] in x's dtype, and two of float32 [C].
    """
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> tuple[Any, Any]:
    wide = x.astype(jnp.float32)
    count = x.size // x.shape[-1]
    mean = wide.sum(_PLACES) / count
    variance = jnp.maximum((wide * wide).sum(_PLACES) / count - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    return (_affine(x, mean, inverse * scale, bias), mean, variance), (x, mean, inverse, scale)


def _backward(epsilon: float, saved: Any, cotangents: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradients; with y = (x - mean) inverse, that of x is scale inverse (g - E[g] - y E[g y])."""
    del epsilon
    x, mean, inverse, scale = saved
    wide, gradient = x.astype(jnp.float32), cotangents[0].astype(jnp.float32)
    count = x.size // x.shape[-1]
    to_bias = gradient.sum(_PLACES)
    to_scale = ((gradient * wide).sum(_PLACES) - mean * to_bias) * inverse
    factor = inverse * scale
    slope = factor * inverse * to_scale / count
    shift = mean * slope - factor * to_bias / count
    to_x = gradient * _spread(factor, x) - wide * _spread(slope, x) + _spread(shift, x)
    return to_x.astype(x.dtype), to_scale, to_bias


normalise.defvjp(_forward, _backward)


def _affine(x: jax.Array, mean: jax.Array, factor: jax.Array, bias: jax.Array) -> jax.Array:
    return (x.astype(jnp.float32) * _spread(factor, x) + _spread(bias - mean * factor, x)).astype(x.dtype)


def _spread(values: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(values[None, None, None], x.shape)
