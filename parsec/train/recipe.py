"""One recipe for every training of a network, whatever trains it: the optimiser, its schedule, and the batches.

Final training (`training`) and the many short trainings behind a table (`many`) draw their batches, step and decay
alike; each says which of the recipe's fields it has no use for. Constants are those of DARTS (Liu, Simonyan, Yang 2019,
arXiv 1806.09055) or of NAS-Bench-201 (Dong, Yang 2020, arXiv 2001.00326), by who calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from parsec.data.augment import cutout
from parsec.data.memory import Batches, draw, finished
from parsec.data.source import Batch, RawBatch
from parsec.keys import fold


@dataclass(frozen=True)
class Recipe:
    """How one network is trained and evaluated.

    Attributes:
      steps: of the optimiser.
      batch_size: images in a step.
      learning_rate: at the first step; falls as a cosine.
      momentum: of the gradient.
      weight_decay: added to the gradient, of every weight.
      augmentation: a name of `parsec.data.augment.AUGMENTATIONS`.
      eval_batch_size: most images that an evaluation looks at together.
      nesterov: whether momentum looks ahead.
      final_learning_rate: after the last step.
      clip: largest norm of the gradient, before the decay is added; 0 for none.
      cutout: side in pixels of the square hidden in each image; 0 for none.
      label_smoothing: share of a label that is spread over all classes.
      drop_path: share of the paths dropped in the last step; grows from 0 in proportion to the steps done.
      auxiliary_weight: of the auxiliary head's loss; 0 for no such head.
      average: decay of the exponential moving average of the weights that is evaluated in their place; 0 for none.
    """

    steps: int
    batch_size: int
    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augmentation: str = "none"
    eval_batch_size: int = 1000
    nesterov: bool = True
    final_learning_rate: float = 0.0
    clip: float = 0.0
    cutout: int = 0
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    auxiliary_weight: float = 0.0
    average: float = 0.0


def make_optimizer(recipe: Recipe, steps: jax.Array | None = None) -> optax.GradientTransformation:
    """Returns clipping, weight decay and momentum under a cosine, in DARTS's order.

    Args:
      recipe: of training.
      steps: int32 [], in place of the recipe's; may be traced.
    """

    def schedule(step: Any) -> jax.Array:
        return learning_rate(recipe, step, steps)

    clip = [optax.clip_by_global_norm(recipe.clip)] if recipe.clip else []
    return optax.chain(
        *clip,
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(schedule, recipe.momentum, nesterov=recipe.nesterov),
    )


def learning_rate(recipe: Recipe, step: Any, steps: jax.Array | None = None) -> jax.Array:
    """Returns the learning rate of a step, float32 []; step int32 [], from 0; steps as of `make_optimizer`."""
    done = jnp.asarray(step).astype(jnp.float32) / (recipe.steps if steps is None else steps.astype(jnp.float32))
    span = recipe.learning_rate - recipe.final_learning_rate
    return span * 0.5 * (1 + jnp.cos(jnp.pi * done)) + recipe.final_learning_rate


def training_batch(recipe: Recipe, fed: Batches | RawBatch, key: jax.Array, step: jax.Array | int, dtype: str) -> Batch:
    """Returns a step's batch as the recipe has it.

    Args:
      recipe: of training.
      fed: all images, of which the step draws its own; or the step's own, as they were read.
      key: of the batches, the same for the whole training.
      step: int32 [], from 0; may be traced.
      dtype: of the images returned.
    """
    if isinstance(fed, RawBatch):
        batch = finished(fed, key, step, augmentation=recipe.augmentation, dtype=dtype)
    else:
        batch = draw(fed, key, step, recipe.batch_size, augmentation=recipe.augmentation, dtype=dtype)
    if not recipe.cutout:
        return batch
    key = jax.random.fold_in(fold(key, "cutout"), jnp.asarray(step, jnp.int32))
    return batch._replace(images=cutout(key, batch.images, recipe.cutout))


def descend(
    optimizer: optax.GradientTransformation, loss: Callable[[Any], tuple[jax.Array, Any]], weights: Any, moments: Any
) -> tuple[Any, Any, jax.Array, Any]:
    """Returns weights and the optimiser's state after a step, the loss before it, and what else `loss` returned.

    Args:
      optimizer: of `make_optimizer`.
      loss: `loss(weights) -> (float32 [], anything)`.
      weights: a tree of float32 arrays.
      moments: the optimiser's state.
    """
    (value, beside), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    # Optax may multiply Python floats by its int32 step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        changes, moments = optimizer.update(gradient, moments, weights)
    return optax.apply_updates(weights, changes), moments, value, beside


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Returns the mean cross-entropy in nats, float32 [], of logits [B, classes] for labels int32 [B].

    With smoothing, that share of each label is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567).
    """
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()
