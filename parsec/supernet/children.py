"""K children in the memory of one: each is run in turn, and their weighted gradient is summed as it streams by.

The weights softmax(l) are known only when the last child has been run, yet no child is run twice: the sum of
exp(l_k - m) * gradient_k is kept for the largest likelihood m seen so far and rescaled when a larger one comes.

The number of children may be traced, so one compiled program serves every sample budget.

On a mesh of several groups of devices (`parsec.devices`) each group runs a share of the children in this way, on the
whole batch; then the groups' sums are rescaled to the largest likelihood of all, and added. So a device still has the
memory of one child.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from parsec.data.source import Batch
from parsec.devices import CHILDREN, groups_of
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


class _Share(NamedTuple):
    """The children of one group of devices, int32 [R, L], and the numbers that they have among all, int32 [R]."""

    architectures: jax.Array
    numbers: jax.Array


class _Seen(NamedTuple):
    """As in `Children`, of a share: float32 [R] and int32 [R]."""

    log_likelihoods: jax.Array
    correct: jax.Array


def run_children(
    child: Child,
    weights: Weights,
    batch: Batch,
    architectures: jax.Array,
    count: jax.Array | int,
    mesh: Mesh | None = None,
) -> Children:
    """Returns how the first `count` of architectures int32 [K, L] do on a batch; no gradient.

    The mesh is the program's; its groups of devices divide K. Without one, a single group runs all.
    """
    groups = groups_of(mesh)

    def run_share(weights: Weights, batch: Batch, share: _Share, count: jax.Array) -> _Seen:
        def run(row: jax.Array, seen: _Seen) -> _Seen:
            value, correct = child(weights, batch, share.architectures[row])
            return _record(seen, row, value, correct, jnp.array(True), share.numbers[row] < count)

        return jax.lax.fori_loop(0, _rounds(count, groups), run, _none_seen(share))

    run = _by_groups(mesh, run_share, PartitionSpec(CHILDREN))
    return _gathered(run(weights, batch, _dealt(architectures, groups), jnp.asarray(count, jnp.int32)), groups)


def weighted_gradient(
    child: Child,
    weights: Weights,
    batch: Batch,
    architectures: jax.Array,
    count: jax.Array | int,
    level: Callable[[jax.Array, jax.Array], jax.Array],
    mesh: Mesh | None = None,
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
      mesh: the program's, whose groups of devices divide K; without one, a single group runs all.

    Returns:
      sum_k w_k grad l_k, a tree like `weights`, and the children. A child whose loss or gradient is not finite has
      weight zero; if all have, the gradient is zero.
    """
    groups = groups_of(mesh)

    def run_share(weights: Weights, batch: Batch, share: _Share, count: jax.Array) -> tuple[Weights, _Seen]:
        def likelihood(weights: Weights, architecture: jax.Array) -> tuple[jax.Array, jax.Array]:
            return child(weights, batch, architecture)

        def run(row: jax.Array, carry: tuple[Weights, jax.Array, jax.Array, _Seen]):
            total, largest, norm, seen = carry
            k, architecture = share.numbers[row], share.architectures[row]
            (value, correct), gradient = jax.value_and_grad(likelihood, has_aux=True)(weights, architecture)
            squares = [jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient)]
            finite = jnp.isfinite(value) & jnp.isfinite(jnp.stack(squares).sum())
            counts = finite & (k < count)
            own = jnp.where(counts, level(k, value), -jnp.inf)
            highest = jnp.maximum(largest, own)
            kept, added = _factor(largest, highest), _factor(own, highest)

            def add(old: jax.Array, new: jax.Array) -> jax.Array:
                return old * kept + jnp.where(counts, new, 0.0) * added

            total = jax.tree.map(add, total, gradient)
            return total, highest, norm * kept + added, _record(seen, row, value, correct, finite, k < count)

        zero = jax.tree.map(jnp.zeros_like, weights)
        start = (zero, jnp.array(-jnp.inf, jnp.float32), jnp.zeros((), jnp.float32), _none_seen(share))
        total, largest, norm, seen = jax.lax.fori_loop(0, _rounds(count, groups), run, start)
        if groups > 1:
            kept = _factor(largest, jax.lax.pmax(largest, CHILDREN))
            total, norm = jax.lax.psum(jax.tree.map(lambda leaf: leaf * kept, (total, norm)), CHILDREN)
        scale = jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1.0), 0.0)
        return jax.tree.map(lambda leaf: leaf * scale, total), seen

    run = _by_groups(mesh, run_share, (PartitionSpec(), PartitionSpec(CHILDREN)))
    gradient, seen = run(weights, batch, _dealt(architectures, groups), jnp.asarray(count, jnp.int32))
    return gradient, _gathered(seen, groups)


def _by_groups(mesh: Mesh | None, run_share: Callable[..., Any], results: Any) -> Callable[..., Any]:
    """Returns `run(weights, batch, share of all, count)`: each group runs its own; how a batch is divided within it is
    the compiler's affair. `results` says which results are one group's after another's, and which the same in all.
    """
    if mesh is None or groups_of(mesh) == 1:
        return run_share
    given = (PartitionSpec(), PartitionSpec(), PartitionSpec(CHILDREN), PartitionSpec())
    # Varying types are off: gradients are to be of each group's own children, not summed one by one.
    return jax.shard_map(
        run_share, mesh=mesh, in_specs=given, out_specs=results, axis_names={CHILDREN}, check_vma=False
    )


def _dealt(architectures: jax.Array, groups: int) -> _Share:
    """Returns the shares one after another. Children are dealt out in turn, so that any budget is about even."""

    def deal(rows: jax.Array) -> jax.Array:
        return rows.reshape(-1, groups, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)

    return _Share(deal(architectures), deal(jnp.arange(len(architectures), dtype=jnp.int32)))


def _gathered(seen: _Seen, groups: int) -> Children:
    """Returns what the groups saw, in the order that the children had before they were dealt out."""
    values, correct = (rows.reshape(groups, -1).T.reshape(-1) for rows in seen)
    return Children(values, correct, jnp.isnan(values).sum(dtype=jnp.int32))


def _rounds(count: jax.Array, groups: int) -> jax.Array:
    """Returns how many children each group runs, all as many: what devices do together, none may leave out."""
    return (count + groups - 1) // groups


def _factor(level: jax.Array, highest: jax.Array) -> jax.Array:
    """Returns exp(level - highest), and 0 where no child has counted yet."""
    return jnp.where(jnp.isfinite(highest), jnp.exp(level - highest), 0.0)


def _none_seen(share: _Share) -> _Seen:
    rows = len(share.numbers)
    return _Seen(jnp.full(rows, -jnp.inf), jnp.zeros(rows, jnp.int32))


def _record(
    seen: _Seen, row: jax.Array, value: jax.Array, correct: jax.Array, finite: jax.Array, wanted: jax.Array
) -> _Seen:
    finite = finite & jnp.isfinite(value)
    return _Seen(
        seen.log_likelihoods.at[row].set(jnp.where(wanted, jnp.where(finite, value, jnp.nan), -jnp.inf)),
        seen.correct.at[row].set(jnp.where(wanted & finite, correct, 0).astype(jnp.int32)),
    )
