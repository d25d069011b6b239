"""Training many architectures from scratch, one after another, in one compiled program.

The architecture is an argument of the program, as it is of the supernet's: a new one compiles nothing and costs its own
operations' time alone. But nothing is shared. Every run starts from a fresh draw of the weights and trains only those
that its architecture reads, as the network of that one genotype would.

The seeds of an architecture are trained at once by `vmap`. They share the choice of operations, so it stays a branch
where a `vmap` over architectures would run every operation; those are divided among the devices and looped over.
The recipe is that of NAS-Bench-201 (Dong and Yang, arXiv 2001.00326), shortened by who calls: SGD with Nesterov's
momentum under a cosine, weight decay, batch normalisation without affine parameters. What a recipe says of dropped
paths, smoothed labels, auxiliary heads and averages is for networks trained by themselves, and refused here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from parsec.cells.network import Shape
from parsec.cells.space import Space
from parsec.data.memory import Batches, normalise, steps_per_epoch, take
from parsec.data.source import Batch
from parsec.errors import UserError
from parsec.supernet.objective import Child, ChildResult, classification, make_child
from parsec.supernet.supernet import Weights, make_supernet
from parsec.train.recipe import Recipe, descend, make_optimizer, training_batch


class Parts(NamedTuple):
    """The images to train on, to choose by and to report; either of the last two may be missing."""

    train: Batches
    valid: Batches | None
    test: Batches | None


class Outcome(NamedTuple):
    """What came of training; float32 [..., S] for S seeds. A run that diverged is NaN throughout.

    Attributes:
      loss: mean cross-entropy over the training batches of the last epoch, each before its step; nats.
      valid: accuracy in percent on the validation part, after the last step; NaN where there is none.
      test: likewise on the test part.
    """

    loss: jax.Array
    valid: jax.Array
    test: jax.Array


# `train(architectures)` for int32 [N, L] returns an `Outcome` of [N, S], on the host.
Train = Callable[[np.ndarray], Outcome]


def make_train(
    space: Space,
    shape: Shape,
    recipe: Recipe,
    parts: Parts,
    keys: jax.Array,
    count: int,
    *,
    devices: Sequence[Any] | None = None,
) -> Train:
    """Returns the function that trains `count` architectures from scratch, already compiled.

    Architectures are divided among the devices. Accuracies are taken with the statistics of the evaluated batch, as
    training is: there are no running averages. A part is evaluated in the fewest batches that `eval_batch_size` allows.

    Args:
      space: of the architectures.
      shape: size of the network.
      recipe: of training.
      parts: the images.
      keys: one for each seed, [S]; all architectures draw a seed's weights and batches from the same key.
      count: N, architectures in a call.
      devices: to train on; all local ones by default.

    Raises:
      UserError: a batch is empty or larger than the part that it is drawn from.
    """
    supernet = make_supernet(space, shape)
    networks = _Networks(supernet.init, make_child(space, supernet), len(space.choices))
    return _compile(networks, shape.dtype, recipe, parts, keys, count, devices)


def make_train_one(
    network: nn.Module,
    dtype: str,
    recipe: Recipe,
    parts: Parts,
    keys: jax.Array,
    *,
    devices: Sequence[Any] | None = None,
) -> Callable[[], Outcome]:
    """Returns the function that trains one network from scratch as `make_train` trains a space's, already compiled.

    Args:
      network: a Flax module from images [B, H, W, C] to logits float32 [B, classes]; its weights are its parameters, so
        it must normalise by `BatchStatistics`.
      dtype: of the images that it is given.
      recipe: of training.
      parts: the images.
      keys: one for each seed, [S].
      devices: the first of them trains; all local ones by default.

    Returns:
      `train()`, which returns an `Outcome` of [1, S], on the host.

    Raises:
      UserError: a batch is empty or larger than the part that it is drawn from.
    """

    def init(key: jax.Array, images: jax.Array) -> Weights:
        return network.lazy_init(key, jax.ShapeDtypeStruct(images.shape, images.dtype))["params"]

    def child(weights: Weights, batch: Batch, architecture: jax.Array) -> ChildResult:
        del architecture
        outputs: Any = network.apply({"params": weights}, batch.images)
        return classification(outputs, batch)

    first = list(devices or jax.local_devices())[:1]
    train = _compile(_Networks(init, child, 1), dtype, recipe, parts, keys, 1, first)
    return lambda: train(np.zeros((1, 1), np.int32))


def eval_starts(num_examples: int, batch_size: int) -> tuple[np.ndarray, int]:
    """Returns the fewest batches of one size that cover every example.

    Args:
      num_examples: N, at least 1.
      batch_size: the largest size allowed.

    Returns:
      First example of each batch, int32 [E], and the size. The last batch may go over examples of the one before again,
      rather than be filled up with others: each batch is normalised by real images of equal number.
    """
    count = -(-num_examples // batch_size)
    size = -(-num_examples // count)
    return np.minimum(np.arange(count) * size, num_examples - size).astype(np.int32), size


class _Networks(NamedTuple):
    """Networks that share a program: `init(key, images) -> weights`, a child, and L, the length of an architecture."""

    init: Callable[[jax.Array, jax.Array], Weights]
    child: Child
    length: int


def _compile(
    networks: _Networks,
    dtype: str,
    recipe: Recipe,
    parts: Parts,
    keys: jax.Array,
    count: int,
    devices: Sequence[Any] | None,
) -> Train:
    per_epoch = steps_per_epoch(len(parts.train.labels), recipe.batch_size)
    if recipe.eval_batch_size < 1:
        raise UserError(f"eval_batch_size {recipe.eval_batch_size} is too small; it must be at least 1")
    for name in ("label_smoothing", "drop_path", "auxiliary_weight", "average"):
        if getattr(recipe, name):
            raise UserError(
                f"{name} {getattr(recipe, name)} means nothing where many networks share one program; set 0"
            )
    example = jnp.zeros((recipe.batch_size, *parts.train.images.shape[1:]), dtype)
    weights = jax.jit(jax.vmap(lambda key: networks.init(jax.random.fold_in(key, 0), example)))(keys)
    mesh = Mesh(np.array(devices or jax.local_devices()), ("architectures",))
    one = partial(_train_seed, networks.child, recipe, min(per_epoch, recipe.steps), dtype)
    # Every device trains the same number; what fills up is trained and dropped.
    filled = -(-count // mesh.size) * mesh.size

    def train_share(weights: Weights, keys: jax.Array, parts: Parts, architectures: jax.Array) -> Outcome:
        return jax.lax.map(partial(_each_seed, partial(one, parts), weights, keys), architectures)

    # The images are arguments: closed over, they would become constants of the compiled program.
    whole, divided = PartitionSpec(), PartitionSpec("architectures")
    share = jax.shard_map(
        train_share, mesh=mesh, in_specs=(whole, whole, whole, divided), out_specs=divided, check_vma=False
    )
    everywhere = jax.device_put((weights, keys, parts), NamedSharding(mesh, whole))
    divide = NamedSharding(mesh, divided)
    example_rows = jax.ShapeDtypeStruct((filled, networks.length), jnp.int32, sharding=divide)
    compiled = jax.jit(share).lower(*everywhere, example_rows).compile()

    def train(architectures: np.ndarray) -> Outcome:
        rows = np.resize(np.asarray(architectures, np.int32), (filled, networks.length))
        outcome = jax.device_get(compiled(*everywhere, jax.device_put(rows, divide)))
        return jax.tree.map(lambda values: values[:count], outcome)

    return train


def _each_seed(one: Callable[..., Outcome], weights: Weights, keys: jax.Array, architecture: jax.Array) -> Outcome:
    """Returns what `one(weights, key, architecture)` returns for each seed's weights [S, ...] and key [S]."""
    if _one_by_one():
        return jax.lax.map(lambda seed: one(seed[0], seed[1], architecture), (weights, keys))
    return jax.vmap(one, in_axes=(0, 0, None))(weights, keys, architecture)


def _train_seed(
    child: Child,
    recipe: Recipe,
    last_steps: int,
    dtype: str,
    parts: Parts,
    weights: Weights,
    key: jax.Array,
    architecture: jax.Array,
) -> Outcome:
    optimizer = make_optimizer(recipe)
    batch_key = jax.random.fold_in(key, 1)

    def step(carry: tuple[Weights, Any], index: jax.Array) -> tuple[tuple[Weights, Any], jax.Array]:
        batch = training_batch(recipe, parts.train, batch_key, index, dtype)

        def loss(weights: Weights) -> tuple[jax.Array, None]:
            return -child(weights, batch, architecture).log_likelihood / recipe.batch_size, None

        weights, state, value, _ = descend(optimizer, loss, *carry)
        return (weights, state), value

    start = (weights, optimizer.init(weights))
    (weights, _), losses = jax.lax.scan(step, start, jnp.arange(recipe.steps, dtype=jnp.int32))

    def accuracy(part: Batches | None) -> jax.Array:
        if part is None:
            return jnp.array(jnp.nan, jnp.float32)
        return _accuracy(child, recipe.eval_batch_size, dtype, weights, part, architecture)

    outcome = Outcome(losses[-last_steps:].mean(), accuracy(parts.valid), accuracy(parts.test))
    # The losses were taken before each step: an accuracy that is NaN tells of the last one.
    finite = jnp.isfinite(losses).all()
    for value, part in ((outcome.valid, parts.valid), (outcome.test, parts.test)):
        finite &= jnp.isfinite(value) if part is not None else True
    return jax.tree.map(lambda value: jnp.where(finite, value, jnp.nan), outcome)


def _accuracy(
    child: Child, batch_size: int, dtype: str, weights: Weights, part: Batches, architecture: jax.Array
) -> jax.Array:
    """Returns the percentage of a part's images that a child labels rightly, each counted once; NaN if it diverged."""
    starts, size = eval_starts(len(part.labels), batch_size)
    # What a batch goes over again has been counted by the one before.
    again = np.maximum(np.append(0, starts[:-1] + size) - starts, 0).astype(np.int32)

    def count(batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        images, labels = take(part, batch[0] + jnp.arange(size, dtype=jnp.int32))
        # A label that no class has is never right.
        counted = jnp.where(jnp.arange(size, dtype=jnp.int32) < batch[1], -1, labels)
        images = normalise(images, part.mean, part.std, dtype)
        found = child(weights, Batch(images, counted), architecture)
        return found.correct, found.log_likelihood

    correct, likelihoods = jax.lax.map(count, (jnp.asarray(starts), jnp.asarray(again)))
    accuracy = correct.sum(dtype=jnp.int32).astype(jnp.float32) * np.float32(100 / len(part.labels))
    # Outputs that are no numbers have a most likely class as well, the first.
    return jnp.where(jnp.isfinite(likelihoods).all(), accuracy, jnp.nan)


def _one_by_one() -> bool:
    """Whether seeds take turns: on a CPU, products with a leading axis of seeds take longer than one after another."""
    return jax.default_backend() == "cpu"
