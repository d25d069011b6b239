"""What strategies with a prior of independent categoricals share: a valid draw from it, and a step of its logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec.search.contract import Domain

# Draws from a prior tried for a valid architecture before the domain's own sampler is asked for one.
_DRAWS = 16


def is_product(domain: Domain) -> bool:
    """Whether every combination of options is known to be valid."""
    return domain.pool is not None and len(domain.pool) == int(np.prod(np.array(domain.sizes, object)))


def draw_valid(domain: Domain) -> Callable[[jax.Array, jax.Array, int], jax.Array]:
    """Returns `draw(key, logits, n) -> int32 [n, L]`: valid architectures drawn from independent categoricals.

    Logits are float32 [L, max(sizes)]; entries outside `domain.mask` are ignored. In a domain with invalid combinations
    each architecture is the first valid one of 16 draws, so it follows the prior conditioned on validity; if none is
    valid it is a uniform sample of the domain, so an invalid architecture is never proposed.
    """
    mask = domain.mask
    product = is_product(domain)

    def draw(key: jax.Array, logits: jax.Array, n: int) -> jax.Array:
        from_prior, from_domain = jax.random.split(key)
        logits = jnp.where(mask, logits, -jnp.inf)
        if product:
            return jax.random.categorical(from_prior, logits, shape=(n, len(domain.sizes))).astype(jnp.int32)
        drawn = jax.random.categorical(from_prior, logits, shape=(n, _DRAWS, len(domain.sizes))).astype(jnp.int32)
        valid = jnp.asarray(domain.valid(drawn.reshape(n * _DRAWS, -1))).reshape(n, _DRAWS)
        first = jnp.take_along_axis(drawn, jnp.argmax(valid, 1)[:, None, None], 1)[:, 0]
        return jnp.where(valid.any(1)[:, None], first, jnp.asarray(domain.sample(from_domain, n)))

    return draw


def ascend(
    gradient: jax.Array, logits: jax.Array, optimizer: optax.OptState, learning_rate: float
) -> tuple[jax.Array, optax.OptState]:
    """Returns the logits and Adam's moments after one step up the gradient; gradient and logits float32 [L, O]."""
    # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = optax.adam(learning_rate).update(-gradient, optimizer)
    return logits + jnp.asarray(updates), optimizer
