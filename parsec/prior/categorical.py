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


def sample_stratified(
    key: jax.Array, logits: ArrayLike, mask: ArrayLike, count: int, active: jax.Array | int | None = None
) -> jax.Array:
    """Returns architectures of which each is a draw from the prior, and which together cover it evenly.

    For every choice the unit interval is cut into K equal strata, one uniform number (the same in each) marks an option
    in every stratum, and the options are dealt out to the children in random order: systematic sampling, choice by
    choice. An option of probability pi is drawn floor(K pi) or ceil(K pi) times, so with K options equally likely each
    is drawn once, as FairNAS's strict fairness asks (Chu, Zhang, Xu 2021, arXiv 1907.01845). Averages over the children
    keep their expectation and lose variance.

    Args:
      key: a random key.
      logits: float32 [L, O].
      mask: bool [L, O].
      count: rows.
      active: K, how many of the rows are children, if not all; may be traced. The other rows mean nothing.

    Returns:
      int32 [count, L].
    """
    share = probabilities(logits, mask)
    number = jnp.asarray(count if active is None else active, jnp.float32)
    rows = jnp.arange(count, dtype=jnp.float32)
    offset_key, order_key = jax.random.split(key)
    offset = jax.random.uniform(offset_key, (1, share.shape[0]))
    marks = (rows[:, None] + offset) / number
    # The last existing option takes what rounding leaves of the interval.
    edges = jnp.where(
        jnp.arange(share.shape[1])[None] < jnp.asarray(mask).sum(-1, keepdims=True) - 1, share.cumsum(-1), 2.0
    )
    options = (marks[:, :, None] >= edges[None]).sum(-1).astype(jnp.int32)
    order = jax.random.uniform(order_key, (count, share.shape[0])) + (rows >= number)[:, None].astype(jnp.float32)
    dealt = jnp.take_along_axis(options, order.argsort(0), axis=0)
    return jnp.minimum(dealt, jnp.asarray(mask).sum(-1, dtype=jnp.int32)[None] - 1)


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
