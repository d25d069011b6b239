"""Valid draws from a prior of independent categoricals, for domains in which some combinations are invalid."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior
from parsec.cells.domain import Domain

# Draws from a prior tried for a valid architecture before the domain's own sampler is asked for one.
DRAWS = 16


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
        if product:
            return prior.sample(from_prior, logits, mask, n)
        drawn = prior.sample(from_prior, logits, mask, n * DRAWS)
        return first_valid(from_domain, domain, drawn.reshape(n, DRAWS, -1))

    return draw


def draw_each(domain: Domain) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Returns `draw(key, logits float32 [n, L, max(sizes)]) -> int32 [n, L]`: a valid architecture from each prior.

    As of `draw_valid`.
    """
    mask = domain.mask
    product = is_product(domain)

    def draw(key: jax.Array, logits: jax.Array) -> jax.Array:
        from_prior, from_domain = jax.random.split(key)
        keys, tries = jax.random.split(from_prior, len(logits)), 1 if product else DRAWS
        drawn = jax.vmap(lambda each, prior_of: prior.sample(each, prior_of, mask, tries))(keys, logits)
        return drawn[:, 0] if product else first_valid(from_domain, domain, drawn)

    return draw


def first_valid(key: jax.Array, domain: Domain, drawn: jax.Array) -> jax.Array:
    """Returns the first valid one of each row's draws int32 [n, D, L], int32 [n, L]; a uniform sample where none is."""
    count, draws, length = drawn.shape
    valid = jnp.asarray(domain.valid(drawn.reshape(-1, length))).reshape(count, draws)
    first = drawn[jnp.arange(count), jnp.argmax(valid, 1)]
    return jnp.where(valid.any(1)[:, None], first, jnp.asarray(domain.sample(key, count)))
