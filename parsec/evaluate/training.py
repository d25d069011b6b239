"""Scores architectures by training each of them: the accuracy on held-out images after a few epochs of its own.

A child is trained inside the supernet's program, on weights of its own: the slots it does not use have no gradient and
no influence, so this is the training of its static network, and one compiled program trains any child. Normalisation is
by batch statistics, as everywhere in a search.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec.cells.network import Shape
from parsec.cells.space import Space
from parsec.data.memory import Batches, draw
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.evaluate.supernet import OBJECTIVE, Score
from parsec.supernet.objective import Child
from parsec.supernet.supernet import Supernet, Weights, cell_kinds, child_weights
from parsec.train.inherit import inherit, load_child, nearest, save_child
from parsec.train.recipe import descend

# `train(weights, architecture int32 [L], pause) -> weights`; `pause()` is called between stretches of steps.
Train = Callable[[Weights, np.ndarray, Pause], Weights]

# Steps between two calls of `pause`: a stop is answered within seconds, and a device is not left waiting.
_STRETCH = 25


def make_train(
    child: Child,
    optimizer: optax.GradientTransformation,
    part: Batches,
    *,
    steps: int,
    batch_size: int,
    augmentation: str,
    dtype: str,
    key: jax.Array,
) -> Train:
    """Returns the function that trains one child; compiled once for all of them.

    Args:
      child: the program that runs any of them.
      optimizer: of the weights; its schedule should end after `steps`.
      part: training images.
      steps: of each child.
      batch_size: images in a batch.
      augmentation: of the images.
      dtype: of activations.
      key: of the batches, which are the same for every child.

    Raises:
      UserError: the batch is larger than the data.
    """

    # The images are an argument: closed over, they would become a constant of the compiled program.
    @jax.jit
    def advance(
        weights: Weights,
        moments: optax.OptState,
        part: Batches,
        architecture: jax.Array,
        start: jax.Array,
        stop: jax.Array,
    ) -> tuple[Weights, optax.OptState]:
        def step(index: jax.Array, carry: tuple[Weights, optax.OptState]) -> tuple[Weights, optax.OptState]:
            weights, moments = carry
            batch = draw(part, key, index, batch_size, augmentation=augmentation, dtype=dtype)

            def loss(weights: Weights) -> tuple[jax.Array, jax.Array]:
                result = child(weights, batch, architecture)
                return -result.log_likelihood / batch_size, result.correct

            weights, moments, _, _ = descend(optimizer, loss, weights, moments)
            return weights, moments

        return jax.lax.fori_loop(start, stop, step, (weights, moments))

    def train(weights: Weights, architecture: np.ndarray, pause: Pause) -> Weights:
        moments = optimizer.init(weights)
        for start in range(0, steps, _STRETCH):
            pause()
            stop = min(start + _STRETCH, steps)
            bounds = (jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32))
            weights, moments = advance(weights, moments, part, jnp.asarray(architecture, jnp.int32), *bounds)
            jax.block_until_ready(weights)
        return weights

    return train


def training_evaluator(
    space: Space,
    shape: Shape,
    supernet: Supernet,
    train: Train,
    score: Score,
    *,
    images: jax.ShapeDtypeStruct,
    key: jax.Array,
    folder: Path | None,
) -> Evaluator:
    """Returns the evaluator that trains each child; its one objective is the accuracy after training, in percent.

    A child that diverges, in its weights or its likelihoods, scores NaN.

    Args:
      space: of the children.
      shape: of their networks.
      supernet: of that space and shape, whose weights they start from.
      train: of `make_train`.
      score: of `parsec.evaluate.supernet.make_score`.
      images: shape [B, H, W, C] and dtype of a batch.
      key: of the fresh weights; the n-th child's are drawn from `fold_in(key, n)`.
      folder: where the weights of each trained child are kept, for later ones to inherit from, by their order; None
        starts every child fresh. The children `evaluated` before must lie there.
    """
    kinds = cell_kinds(space, shape)
    fresh = jax.jit(lambda key: supernet.init(key, jnp.zeros(images.shape, images.dtype)))

    def evaluate(architecture: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        order = len(evaluated.scores)
        weights = fresh(jax.random.fold_in(key, order))
        genotype = space.decode(architecture)
        parent = None if folder is None else nearest(architecture, evaluated.architectures, evaluated.scores[:, 0])
        if folder is not None and parent is not None:
            before = space.decode(evaluated.architectures[parent])
            weights, _ = inherit(weights, kinds, genotype, before, load_child(child_file(folder, parent)))
            weights = jax.tree.map(jnp.asarray, weights)
        weights = train(weights, architecture, pause)
        accuracy = score(weights, architecture).accuracy
        own = child_weights(space, shape, jax.device_get(weights), genotype)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own)):
            return np.full(1, np.nan, np.float32)
        # Kept before the score is known to anyone, so that whoever knows the score finds the weights.
        if folder is not None and np.isfinite(accuracy):
            save_child(child_file(folder, order), own)
        return np.array([accuracy], np.float32)

    return Evaluator((OBJECTIVE,), evaluate)


def child_file(folder: Path, order: int) -> Path:
    """Returns where the weights of the n-th evaluated child are kept."""
    return folder / f"{order:06d}.npz"
