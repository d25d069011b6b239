"""Moves that several strategies share: every one-decision change, and one random change of each of many."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from parsec.search.contract import ArrayLike, Domain


def one_change(sizes: tuple[int, ...]) -> Callable[[ArrayLike], jax.Array]:
    """Returns the function from an architecture int32 [L] to all that differ in one decision, int32 [M, L].

    M is the sum of `size - 1` over the choices. Rows are not filtered for validity. Works on traced architectures.
    """
    at = np.repeat(np.arange(len(sizes)), np.array(sizes) - 1)
    step = np.concatenate([np.arange(1, size) for size in sizes]).astype(np.int32)
    size = np.array(sizes, np.int32)[at]
    rows = np.arange(len(at))

    def changed(architecture: ArrayLike) -> jax.Array:
        architecture = jnp.asarray(architecture, jnp.int32)
        moved = (architecture[at] + step) % size
        return jnp.tile(architecture[None, :], (len(at), 1)).at[rows, at].set(moved)

    return changed


def mutate_each(domain: Domain, key: jax.Array, architectures: jax.Array) -> jax.Array:
    """Returns one valid neighbour of each architecture; int32 [B, L] to int32 [B, L]."""
    keys = jax.random.split(key, architectures.shape[0])
    if domain.jittable:
        return jax.vmap(lambda k, a: jnp.asarray(domain.mutate(k, a)))(keys, architectures)
    return jnp.stack([jnp.asarray(domain.mutate(k, a), jnp.int32) for k, a in zip(keys, architectures, strict=True)])
