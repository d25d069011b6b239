"""The prior over architectures: one independent categorical for each choice.

Logits are float32 [L, O] with O the largest number of options; a mask, bool [L, O], says which of them exist. Masked
entries of the logits are ignored everywhere and their gradients are zero, so spaces with ragged choices need no case.
"""

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.Array | np.ndarray


def probabilities(logits: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Returns each option's probability, float32 [L, O]; zero where masked."""
    return jax.nn.softmax(_masked(logits, mask), axis=-1)


def sample(key: jax.Array, logits: ArrayLike, mask: ArrayLike, count: int) -> jax.Array:
    """Returns `count` architectures drawn from the prior, int32 [count, L]."""
    masked = _masked(logits, mask)
    return jax.random.categorical(key, masked, shape=(count, masked.shape[0])).astype(jnp.int32)


def log_probability(logits: ArrayLike, mask: ArrayLike, architectures: ArrayLike) -> jax.Array:
    """Returns log p(architecture | logits), float32 [K], for architectures int32 [K, L]."""
    chosen = one_hot(architectures, mask)
    logp = jnp.where(jnp.asarray(mask), jax.nn.log_softmax(_masked(logits, mask), axis=-1), 0.0)
    return jnp.einsum("klo,lo->k", chosen, logp)


def entropy(logits: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Returns the prior's entropy in nats, float32 []; the sum over choices."""
    logp = jax.nn.log_softmax(_masked(logits, mask), axis=-1)
    return -jnp.where(jnp.asarray(mask), jnp.exp(logp) * logp, 0.0).sum()


def mode(logits: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Returns the most probable architecture, int32 [L]; the first of equal options."""
    return _masked(logits, mask).argmax(-1).astype(jnp.int32)


def one_hot(architectures: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Returns float32 [K, L, O] with a one at each architecture's options."""
    return jax.nn.one_hot(jnp.asarray(architectures), jnp.asarray(mask).shape[-1], dtype=jnp.float32)


def _masked(logits: ArrayLike, mask: ArrayLike) -> jax.Array:
    return jnp.where(jnp.asarray(mask), jnp.asarray(logits), -jnp.inf)
