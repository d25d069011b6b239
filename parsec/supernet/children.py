"""K children in the memory of one: each is run in turn, and their weighted gradient is summed as it streams by.

The weights softmax(l) are known only when the last child has been run, yet no child is run twice: the sum of
exp(l_k - m) * gradient_k is kept for the largest likelihood m seen so far and rescaled when a larger one comes.

The number of children may be traced, so one compiled program serves every sample budget.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.data.source import Batch
from parsec.supernet.objective import Child
from parsec.supernet.supernet import Weights


class Children(NamedTuple):
    """What K children made of one batch; rows past the budget are minus infinity and zero.

    Attributes:
      log_likelihoods: sums over the batch, float32 [K]; NaN where a child failed.
      correct: int32 [K].
      failed: how many had a non-finite loss or gradient, int32 [].
    """

    log_likelihoods: jax.Array
    correct: jax.Array
    failed: jax.Array


def run_children(
    child: Child, weights: Weights, batch: Batch, architectures: jax.Array, count: jax.Array | int
) -> Children:
    """Returns how the first `count` of architectures int32 [K, L] do on a batch; no gradient."""

    def run(k: jax.Array, done: Children) -> Children:
        return _record(done, k, *child(weights, batch, architectures[k]), jnp.array(True))

    return jax.lax.fori_loop(0, count, run, _none_run(architectures))


def weighted_gradient(
    child: Child,
    weights: Weights,
    batch: Batch,
    architectures: jax.Array,
    count: jax.Array | int,
    level: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[Weights, Children]:
    """Returns the gradient of the weighted log-likelihood, and what each child made of the batch.

    Args:
      child: runs one of them.
      weights: shared.
      batch: images and labels.
      architectures: int32 [K, L].
      count: how many of them to run, at least 1; may be traced.
      level: `level(k, log likelihood of child k on the batch) -> float32 []`; the children are weighted by its softmax.
        The likelihood itself gives importance weights, a constant gives uniform ones, and the logarithm of a weight
        known beforehand gives that.

    Returns:
      sum_k w_k grad l_k, a tree like `weights`, and the children. A child whose loss or gradient is not finite has
      weight zero; if all have, the gradient is zero.
    """

    def likelihood(weights: Weights, architecture: jax.Array) -> tuple[jax.Array, jax.Array]:
        return child(weights, batch, architecture)

    def run(k: jax.Array, carry: tuple[Weights, jax.Array, jax.Array, Children]):
        total, largest, norm, done = carry
        (value, correct), gradient = jax.value_and_grad(likelihood, has_aux=True)(weights, architectures[k])
        squares = [jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)]
        finite = jnp.isfinite(value) & jnp.isfinite(jnp.stack(squares).sum())
        own = jnp.where(finite, level(k, value), -jnp.inf)
        highest = jnp.maximum(largest, own)
        known = jnp.isfinite(highest)
        keep = jnp.where(known, jnp.exp(largest - highest), 0.0)
        share = jnp.where(known, jnp.exp(own - highest), 0.0)

        def add(old: jax.Array, new: jax.Array) -> jax.Array:
            return old * keep + jnp.where(finite, new, 0.0) * share

        total = jax.tree.map(add, total, gradient)
        return total, highest, norm * keep + share, _record(done, k, value, correct, finite)

    zero = jax.tree.map(jnp.zeros_like, weights)
    start = (zero, jnp.array(-jnp.inf, jnp.float32), jnp.zeros((), jnp.float32), _none_run(architectures))
    total, _, norm, children = jax.lax.fori_loop(0, count, run, start)
    scale = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1.0), 0.0)
    return jax.tree.map(lambda leaf: leaf * scale, total), children


def _none_run(architectures: jax.Array) -> Children:
    rows = architectures.shape[0]
    return Children(jnp.full(rows, -jnp.inf), jnp.zeros(rows, jnp.int32), jnp.zeros((), jnp.int32))


def _record(done: Children, k: jax.Array, value: jax.Array, correct: jax.Array, finite: jax.Array) -> Children:
    finite = finite & jnp.isfinite(value)
    return Children(
        done.log_likelihoods.at[k].set(jnp.where(finite, value, jnp.nan)),
        done.correct.at[k].set(jnp.where(finite, correct, 0).astype(jnp.int32)),
        done.failed + (~finite).astype(jnp.int32),
    )
