"""Importance weights of sampled children, and how sharp to make them.

With children a_k drawn from the prior, p(y) is estimated by the mean of p(y | a_k), and its gradient by the children's
gradients weighted with w = softmax(l), l_k = log p(y | a_k) (Casale, Gordon, Fusi 2019, arXiv 1902.05116). The
log-likelihood is a sum over the batch, so w falls on one child as soon as the children differ by a few hundredths in
mean loss: with 64 images and a spread of 0.05, the effective sample size of 16 children is 2.5. `reduce_likelihood`
offers the sum, the mean, the sum at a fixed temperature, and a temperature that keeps the effective sample size above
a floor.
"""

from typing import Literal

import jax
import jax.numpy as jnp

Reduction = Literal["sum", "mean", "tempered"]
REDUCTIONS: tuple[Reduction, ...] = ("sum", "mean", "tempered")
# Halvings of the inverse temperature's bracket; 2^-30 of it is beyond float32.
_BISECTIONS = 30


def importance_weights(log_likelihoods: jax.Array, active: jax.Array | None = None) -> jax.Array:
    """Returns softmax(l) over the children, float32 [K].

    A child with a non-finite likelihood, or not active, has weight zero; if there is no other, all weights are zero.

    Args:
      log_likelihoods: float32 [K].
      active: bool [K]; which rows are children at all. All by default.
    """
    usable = _usable(log_likelihoods, active)
    shifted = jnp.where(usable, log_likelihoods, -jnp.inf)
    largest = jnp.where(usable.any(), shifted.max(), 0.0)
    weights = jnp.where(usable, jnp.exp(shifted - largest), 0.0)
    return weights / jnp.maximum(weights.sum(), 1.0)


def effective_sample_size(weights: jax.Array) -> jax.Array:
    """Returns 1 / sum w^2, float32 []: how many children the weights amount to; zero when all weights are."""
    squares = jnp.square(weights).sum()
    return jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1.0), 0.0)


def reduce_likelihood(
    log_likelihoods: jax.Array,
    batch_size: int,
    reduction: Reduction,
    *,
    temperature: float = 1.0,
    ess_floor: float = 0.0,
    active: jax.Array | None = None,
) -> jax.Array:
    """Returns the log-likelihoods as the weights take them, float32 [K].

    Args:
      log_likelihoods: sums over a batch, float32 [K].
      batch_size: of that batch.
      reduction: "sum" leaves them, "mean" divides by the batch size, "tempered" by `temperature`.
      temperature: of "tempered", above 0.
      ess_floor: of "tempered": where the effective sample size would be lower than this share of the children, the
        temperature is raised until it is not.
      active: bool [K], as in `importance_weights`.
    """
    if reduction == "sum":
        return log_likelihoods
    if reduction == "mean":
        return log_likelihoods / batch_size
    tempered = log_likelihoods / temperature
    if ess_floor <= 0:
        return tempered
    return tempered * cooling(tempered, ess_floor * _usable(log_likelihoods, active).astype(jnp.float32).sum(), active)


def cooling(log_likelihoods: jax.Array, floor: jax.Array, active: jax.Array | None) -> jax.Array:
    """Returns the largest factor in 0 .. 1, float32 [], at which the effective sample size is at least the floor.

    The size falls steadily as the factor grows, from the number of children at 0, so bisection finds it.
    """

    def enough(factor: jax.Array) -> jax.Array:
        return effective_sample_size(importance_weights(log_likelihoods * factor, active)) >= floor

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        holds = enough(middle)
        return jnp.where(holds, middle, low), jnp.where(holds, high, middle)

    zero, one = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (zero, one))
    return jnp.where(enough(one), one, low)


def _usable(log_likelihoods: jax.Array, active: jax.Array | None) -> jax.Array:
    finite = jnp.isfinite(log_likelihoods)
    return finite if active is None else finite & active
