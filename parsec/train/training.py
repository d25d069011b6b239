"""Training one network from scratch: the state, a step, and the judgement after each epoch.

The protocol is DARTS's (Liu, Simonyan, Yang 2019, arXiv 1806.09055): an auxiliary head two thirds into the network
(Szegedy et al. 2015, arXiv 1409.4842), paths dropped image by image with a share that grows (Larsson, Maire,
Shakhnarovich 2017, arXiv 1605.07648), and running batch statistics. Learning rate and share of dropped paths change
from step to step where DARTS changes them from epoch to epoch. A step is a function of the state and its number alone.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from parsec.data.memory import Batches, normalise, sweep, take
from parsec.data.source import RawBatch
from parsec.data.stream import Part, StreamedPart, stream_once
from parsec.devices import divide, divided, place, traced_for, whole
from parsec.errors import UserError
from parsec.keys import fold
from parsec.train.derived import Blueprint, Variables, dropped_paths, make_network
from parsec.train.recipe import Recipe, cross_entropy, descend, learning_rate, make_optimizer, training_batch


class TrainState(NamedTuple):
    """Everything a training has learnt.

    Attributes:
      variables: weights and running statistics, of the scanned form.
      moments: the optimiser's state.
      average: the moving average of `variables`; None where the recipe has none.
      best: the evaluated variables of the epoch with the best validation accuracy; None where nothing is held out.
      best_accuracy: theirs in percent, float32 []; -1 before the first epoch has ended.
      valid_accuracy: after the last epoch that ended, likewise.
    """

    variables: Variables
    moments: Any
    average: Variables | None
    best: Variables | None
    best_accuracy: jax.Array
    valid_accuracy: jax.Array


# `step(state, index, fed) -> (state, metrics)`, compiled; it donates the state.
Step = Callable[[TrainState, int, Batches | RawBatch], tuple[TrainState, dict[str, jax.Array]]]
# `evaluate(variables, part) -> accuracy in percent`, float32 [].
Evaluate = Callable[[Variables, Part], jax.Array]


def init_state(recipe: Recipe, variables: Variables, *, validates: bool) -> TrainState:
    """Returns the state before the first step.

    Args:
      recipe: of training.
      variables: fresh, of the scanned form.
      validates: whether the best weights are to be kept by validation.
    """

    # A buffer of its own for each array: the step takes them all.
    def copy() -> Variables:
        return jax.tree.map(jnp.copy, variables)

    return TrainState(
        copy(),
        make_optimizer(recipe).init(variables["params"]),
        copy() if recipe.average else None,
        copy() if validates else None,
        jnp.full((), -1, jnp.float32),
        jnp.full((), -1, jnp.float32),
    )


def make_step(recipe: Recipe, blueprint: Blueprint, key: jax.Array, mesh: Mesh | None = None) -> Step:
    """Returns the training step.

    Args:
      recipe: of training.
      blueprint: of the network.
      key: of the batches and of the dropped paths.
      mesh: the devices that a batch is divided among; state and images in memory are whole on each.

    Raises:
      UserError: the network has no auxiliary head and the recipe weighs one.
    """
    program = make_program(recipe, blueprint, mesh)
    keys = fold(key, "batches"), fold(key, "paths")
    total, keys = place((jnp.asarray(recipe.steps, jnp.float32), keys), whole(mesh))

    def run(state: TrainState, index: int, fed: Batches | RawBatch) -> tuple[TrainState, dict[str, jax.Array]]:
        return program(state, jnp.asarray(index, jnp.int32), total, keys, fed)

    return run


def make_program(recipe: Recipe, blueprint: Blueprint, mesh: Mesh | None = None) -> Any:
    """Returns the training step as `jax.jit` gives it: `program(state, index, total, keys, fed) -> (state, metrics)`.

    Its arguments may be shapes, for devices that are elsewhere; `total` is the number of steps, float32 [], and `keys`
    those of the batches and of the dropped paths. See `make_step` for the rest.
    """
    network = make_network(blueprint, train=True, auxiliary=recipe.auxiliary_weight > 0, scan=True)
    cells, paths = dropped_paths(blueprint)

    # All but the recipe are arguments: closed over, they would be constants of a program for each length and each seed.
    def step(
        state: TrainState,
        index: jax.Array,
        total: jax.Array,
        keys: tuple[jax.Array, jax.Array],
        fed: Batches | RawBatch,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        batches_key, paths_key = keys
        timed = replace(recipe, steps=total)
        images, labels = divide(training_batch(recipe, fed, batches_key, index, blueprint.shape.dtype), mesh)
        factors = None
        if recipe.drop_path:
            share = recipe.drop_path * index.astype(jnp.float32) / total
            factors = keep_paths(jax.random.fold_in(paths_key, index), share, (cells, paths, len(labels)))

        def loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {**state.variables, "params": params}
            outputs: Any = network.apply(variables, images, None, factors, mutable=["batch_stats"])
            made, updated = outputs
            logits, aside = made if recipe.auxiliary_weight else (made, None)
            value = cross_entropy(logits, labels, recipe.label_smoothing)
            whole = value
            if aside is not None:
                whole = value + recipe.auxiliary_weight * cross_entropy(aside, labels, recipe.label_smoothing)
            return whole, (value, logits, updated)

        params, moments, _, (value, logits, updated) = descend(
            make_optimizer(timed), loss, state.variables["params"], state.moments
        )
        variables = {"params": params, **updated}
        metrics = {
            "loss": value,
            "accuracy": 100 * (logits.argmax(-1).astype(labels.dtype) == labels).mean(dtype=jnp.float32),
            "learning_rate": learning_rate(timed, index),
        }
        averaged = _averaged(recipe, state.average, variables, index)
        return state._replace(variables=variables, moments=moments, average=averaged), metrics

    return jax.jit(traced_for(mesh, step), donate_argnums=0, out_shardings=whole(mesh))


def keep_paths(key: jax.Array, share: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns factors on the results of paths, float32 of the shape: 0 for `share` of them, else 1 / (1 - share)."""
    kept = jax.random.uniform(key, shape, jnp.float32) >= share
    return kept.astype(jnp.float32) / (1 - share)


def make_evaluate(blueprint: Blueprint, batch_size: int, mesh: Mesh | None = None) -> Evaluate:
    """Returns the function that evaluates a network's variables, of the scanned form, on a part of the images.

    Of a streamed part, images that cannot be read do not count; where none can, it raises `UserError`.

    Args:
      blueprint: of the network.
      batch_size: most images looked at together, but for a few where the devices do not divide it.
      mesh: the devices that these are divided among; images in memory are whole on each.
    """
    devices = divided(mesh).num_devices
    network: nn.Module = make_network(blueprint, train=False, scan=True)

    def count(variables: Variables, raw: RawBatch, real: jax.Array) -> jax.Array:
        logits: Any = network.apply(variables, normalise(raw.images, raw.mean, raw.std, blueprint.shape.dtype))
        right = (logits.argmax(-1).astype(raw.labels.dtype) == raw.labels) & (real > 0)
        return jnp.stack([right, real > 0]).sum(1, dtype=jnp.int32)

    def count_of_rows(variables: Variables, part: Batches, rows: jax.Array, real: jax.Array) -> jax.Array:
        return count(variables, RawBatch(*take(part, rows), part.mean, part.std), real)

    count_rows, count_read = (
        jax.jit(traced_for(mesh, counting), out_shardings=whole(mesh)) for counting in (count_of_rows, count)
    )

    def evaluate(variables: Variables, part: Part) -> jax.Array:
        # What fills a batch up does not count, and changes nothing: here nothing is normalised by the batch.
        size = -(-min(batch_size, part.num_examples) // devices) * devices
        # The auxiliary head is a thing of training.
        variables = {group: _without_auxiliary(tree) for group, tree in variables.items()}
        # The right ones of each batch, and all that count.
        counts: list[jax.Array] = []
        if isinstance(part, StreamedPart):
            for raw, real in stream_once(part, size, mesh):
                # One behind the device: were it far behind, all the images would wait in its memory.
                jax.block_until_ready(counts[-1:])
                counts.append(count_read(variables, raw, real))
        else:
            for pair in zip(*sweep(part.num_examples, size), strict=True):
                counts.append(count_rows(variables, part, *place(pair, divided(mesh))))
        right, number = jnp.stack(counts).sum(0, dtype=jnp.int32)
        if not int(number):
            raise UserError(f"none of the {part.num_examples} images of a part can be read")
        return right.astype(jnp.float32) * jnp.float32(100 / int(number))

    return evaluate


def evaluated(state: TrainState) -> Variables:
    """Returns the variables that are judged and used: the average where there is one, else the current ones."""
    return state.variables if state.average is None else state.average


def judge(state: TrainState, evaluate: Evaluate, part: Part) -> TrainState:
    """Returns the state at the end of an epoch with its validation accuracy, and the best variables so far."""
    variables = evaluated(state)
    accuracy = evaluate(variables, part)
    better = accuracy > state.best_accuracy
    return state._replace(
        best=jax.tree.map(lambda new, old: jnp.where(better, new, old), variables, state.best),
        best_accuracy=jnp.where(better, accuracy, state.best_accuracy),
        valid_accuracy=accuracy,
    )


def _averaged(recipe: Recipe, average: Variables | None, variables: Variables, index: jax.Array) -> Variables | None:
    """Returns the moving average after a step; early ones forget the start faster, as `1 - 1 / steps` would."""
    if average is None:
        return None
    done = index.astype(jnp.float32)
    decay = jnp.minimum(recipe.average, (1 + done) / (10 + done))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, variables)


def _without_auxiliary(tree: Any) -> Any:
    return {name: part for name, part in tree.items() if name != "auxiliary"}
