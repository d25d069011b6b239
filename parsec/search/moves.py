"""Moves that several strategies share: one random change of each of many architectures."""

import jax
import jax.numpy as jnp

from parsec.cells.domain import Domain


def mutate_each(domain: Domain, key: jax.Array, architectures: jax.Array) -> jax.Array:
    """Returns one valid neighbour of each architecture; int32 [B, L] to int32 [B, L]."""
    keys = jax.random.split(key, architectures.shape[0])
    if domain.jittable:
        return jax.vmap(lambda k, a: jnp.asarray(domain.mutate(k, a)))(keys, architectures)
    return jnp.stack([jnp.asarray(domain.mutate(k, a), jnp.int32) for k, a in zip(keys, architectures, strict=True)])
