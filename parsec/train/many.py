"""Training many architectures from scratch in one compiled program.

The architecture is an argument of the program, as it is of the supernet's: a new one compiles nothing and costs its own
operations' time alone. So is the number of steps, which decides how the learning rate falls: short and long trainings
are one program too. But nothing is shared. Every run has weights of its own and trains only those that its architecture
reads, as the network of that one genotype would.

Each device trains one architecture at a time; a `vmap` over architectures would run every operation. The recipe is that
of NAS-Bench-201 (Dong and Yang, arXiv 2001.00326), shortened by who calls: momentum under a cosine, weight decay, batch
normalisation without affine parameters by the statistics of the batch at hand, in evaluation too. What a recipe says of
dropped paths, smoothed labels, auxiliary heads and averages is for networks trained by themselves, and refused here.
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

# Steps between two calls of `pause`: a stop is answered within seconds, and a device is not left waiting.
_STRETCH = 25


class Trained(NamedTuple):
    """What training left, one for each of D runs.

    Attributes:
      weights: a tree of float32 arrays [D, ...].
      loss: mean cross-entropy over the training batches of the last epoch, each before its step, in nats; float32 [D],
        NaN where any loss was not finite.
    """

    weights: Weights
    loss: np.ndarray


class Scores(NamedTuple):
    """What networks say of held-out images; NaN where an output is not finite.

    Attributes:
      accuracy: in percent, float32 [D].
      log_likelihood: mean of an image's, in nats, float32 [D].
    """

    accuracy: np.ndarray
    log_likelihood: np.ndarray


class Trainer(NamedTuple):
    """One compiled program that trains any D architectures side by side, one on each device.

    Attributes:
      together: D.
      fresh: `fresh(keys [D]) -> weights`, each leaf [D, ...].
      train: `train(weights, architectures int32 [D, L], keys [D], steps, pause) -> Trained`. Batches are drawn from
        a run's key; `pause()` is called between stretches of steps and may raise. The weights given are used up.
      score: `score(weights, architectures int32 [D, L], part) -> Scores`.
    """

    together: int
    fresh: Callable[[jax.Array], Weights]
    train: Callable[[Weights, np.ndarray, jax.Array, int, Callable[[], None]], Trained]
    score: Callable[[Weights, np.ndarray, Batches], Scores]


def make_trainer(
    space: Space, shape: Shape, recipe: Recipe, part: Batches, *, devices: Sequence[Any] | None = None
) -> Trainer:
    """Returns what trains a space's architectures, already compiled.

    Args:
      space: of the architectures.
      shape: size of the network.
      recipe: of training; its steps are given to each training instead.
      part: the images to train on.
      devices: to train on; all local ones by default.

    Raises:
      UserError: a batch is empty or larger than the part that it is drawn from, or the recipe asks for what a shared
        program does not do.
    """
    supernet = make_supernet(space, shape)
    networks = _Networks(supernet.init, make_child(space, supernet), len(space.choices))
    return _compile(networks, shape.dtype, recipe, part, devices)


def make_trainer_of(
    network: nn.Module, dtype: str, recipe: Recipe, part: Batches, *, devices: Sequence[Any] | None = None
) -> Trainer:
    """Returns what trains one network as `make_trainer` trains a space's; its architectures are int32 [D, 1], not read.

    Args:
      network: a Flax module from images [B, H, W, C] to logits float32 [B, classes]; its weights are its parameters, so
        it must normalise by `BatchStatistics`.
      dtype: of the images that it is given.
      recipe: of training; its steps are given to each training instead.
      part: the images to train on.
      devices: to train on; all local ones by default.

    Raises:
      UserError: as `make_trainer`.
    """

    def init(key: jax.Array, images: jax.Array) -> Weights:
        return network.lazy_init(key, jax.ShapeDtypeStruct(images.shape, images.dtype))["params"]

    def child(weights: Weights, batch: Batch, architecture: jax.Array) -> ChildResult:
        del architecture
        outputs: Any = network.apply({"params": weights}, batch.images)
        return classification(outputs, batch)

    return _compile(_Networks(init, child, 1), dtype, recipe, part, devices)


def eval_starts(num_examples: int, batch_size: int) -> tuple[np.ndarray, int]:
    """Returns batches of one size that cover every example.

    Args:
      num_examples: N, at least 1.
      batch_size: the size, where there are as many examples.

    Returns:
      First example of each batch, int32 [E], and the size. The last batch goes over examples of the one before again,
      rather than be filled up with others: each batch is normalised by real images of equal number.
    """
    size = min(batch_size, num_examples)
    count = -(-num_examples // size)
    return np.minimum(np.arange(count) * size, num_examples - size).astype(np.int32), size


class _Networks(NamedTuple):
    """Networks that share a program: `init(key, images) -> weights`, a child, and L, the length of an architecture."""

    init: Callable[[jax.Array, jax.Array], Weights]
    child: Child
    length: int


class _Run(NamedTuple):
    """A training under way: weights, the optimiser's state, the sum of the last epoch's losses (NaN once one was)."""

    weights: Weights
    moments: Any
    loss: jax.Array


def _compile(networks: _Networks, dtype: str, recipe: Recipe, part: Batches, devices: Sequence[Any] | None) -> Trainer:
    per_epoch = steps_per_epoch(len(part.labels), recipe.batch_size)
    if recipe.eval_batch_size < 1:
        raise UserError(f"eval_batch_size {recipe.eval_batch_size} is too small; it must be at least 1")
    for name in ("label_smoothing", "drop_path", "auxiliary_weight", "average"):
        if getattr(recipe, name):
            raise UserError(
                f"{name} {getattr(recipe, name)} means nothing where many networks share one program; set 0"
            )
    mesh = Mesh(np.array(devices or jax.local_devices()), ("architectures",))
    whole, divided = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("architectures")))
    spec = {whole: whole.spec, divided: divided.spec}

    def share(function: Callable[..., Any], *places: NamedSharding) -> Callable[..., Any]:
        """Returns the function of one run as one of all runs; arguments that are divided have a leading axis D."""

        def one(*arguments: Any) -> Any:
            own = [
                jax.tree.map(lambda leaf: leaf[0], argument) if place is divided else argument
                for argument, place in zip(arguments, places, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], function(*own))

        in_specs = tuple(spec[place] for place in places)
        return jax.shard_map(one, mesh=mesh, in_specs=in_specs, out_specs=divided.spec, check_vma=False)

    example = jnp.zeros((recipe.batch_size, *part.images.shape[1:]), dtype)
    init = jax.jit(jax.vmap(lambda key: networks.init(key, example)))
    advance = share(
        partial(_advance, networks.child, recipe, per_epoch, dtype), divided, *[whole] * 4, divided, divided
    )
    count = jax.jit(share(partial(_count, networks.child, dtype), divided, divided, *[whole] * 5))
    images = jax.device_put(part, whole)

    def fresh(keys: jax.Array) -> Weights:
        return jax.device_put(init(keys), divided)

    def begin(weights: Weights, steps: jax.Array) -> _Run:
        moments = jax.vmap(make_optimizer(recipe, steps).init)(weights)
        return _Run(weights, moments, jnp.zeros(mesh.size, jnp.float32))

    start = jax.jit(begin)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), mesh.size))
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=divided),
        (
            jax.eval_shape(begin, jax.eval_shape(init, keys), number),
            keys,
            jax.ShapeDtypeStruct((mesh.size, networks.length), jnp.int32),
        ),
    )
    run, run_keys, rows = shapes
    compiled = jax.jit(advance, donate_argnums=0).lower(run, images, number, number, number, run_keys, rows).compile()

    def train(
        weights: Weights, architectures: np.ndarray, keys: jax.Array, steps: int, pause: Callable[[], None]
    ) -> Trained:
        last = min(per_epoch, steps)
        rows = jax.device_put(np.asarray(architectures, np.int32), divided)
        keys, total = jax.device_put(keys, divided), jax.device_put(np.int32(steps), whole)
        run = jax.device_put(start(weights, np.int32(steps)), divided)
        for begun in range(0, steps, _STRETCH):
            pause()
            bounds = (jax.device_put(np.int32(at), whole) for at in (begun, min(begun + _STRETCH, steps)))
            run = compiled(run, images, *bounds, total, keys, rows)
            jax.block_until_ready(run.loss)
        return Trained(run.weights, np.asarray(run.loss) / np.float32(last))

    def score(weights: Weights, architectures: np.ndarray, part: Batches) -> Scores:
        rows = jax.device_put(np.asarray(architectures, np.int32), divided)
        starts, size = eval_starts(len(part.labels), recipe.eval_batch_size)
        # What a batch goes over again has been counted by the one before.
        again = np.maximum(np.append(0, starts[:-1] + size) - starts, 0).astype(np.int32)
        correct, likelihood = np.zeros(mesh.size, np.int64), np.zeros(mesh.size, np.float64)
        for first, known in zip(starts, again, strict=True):
            batch = take(part, first + jnp.arange(size, dtype=jnp.int32))
            given = jax.device_put((*batch, part.mean, part.std, known), whole)
            right, value = count(weights, rows, *given)
            correct, likelihood = correct + np.asarray(right), likelihood + np.asarray(value)
        # Outputs that are no numbers have a most likely class as well, the first.
        accuracy = np.where(np.isfinite(likelihood), 100 * correct / len(part.labels), np.nan)
        return Scores(accuracy.astype(np.float32), (likelihood / len(part.labels)).astype(np.float32))

    return Trainer(mesh.size, fresh, train, score)


def _advance(
    child: Child,
    recipe: Recipe,
    per_epoch: int,
    dtype: str,
    run: _Run,
    part: Batches,
    first: jax.Array,
    stop: jax.Array,
    steps: jax.Array,
    key: jax.Array,
    architecture: jax.Array,
) -> _Run:
    """Returns a run after the steps from `first` to before `stop`, of `steps` altogether."""
    optimizer = make_optimizer(recipe, steps)

    def step(index: jax.Array, run: _Run) -> _Run:
        batch = training_batch(recipe, part, key, index, dtype)

        def loss(weights: Weights) -> tuple[jax.Array, None]:
            return -child(weights, batch, architecture).log_likelihood / recipe.batch_size, None

        weights, moments, value, _ = descend(optimizer, loss, run.weights, run.moments)
        # Infinity less itself is NaN, and stays it: no loss that is not finite is forgotten.
        counted = jnp.where(index >= steps - per_epoch, value, value - value)
        return _Run(weights, moments, run.loss + counted)

    return jax.lax.fori_loop(first, stop, step, run)


def _count(
    child: Child,
    dtype: str,
    weights: Weights,
    architecture: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    known: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns how many of a batch's images are labelled rightly, int32 [], and their log-likelihoods' sum, float32 [].

    The first `known` images belong to the batch's statistics alone.
    """
    batch = Batch(normalise(images, mean, std, dtype), labels)
    fresh = jnp.arange(len(labels), dtype=jnp.int32) >= known
    found = child(weights, batch._replace(labels=jnp.where(fresh, labels, -1)), architecture)
    return found.correct, found.log_likelihood
