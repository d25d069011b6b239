"""The optimiser's step on shared weights, from the gradient of a log-likelihood."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from parsec.supernet.supernet import Weights


def descend(
    optimizer: optax.GradientTransformation,
    weights: Weights,
    moments: Any,
    gradient: Weights,
    batch_size: int,
    usable: jax.Array,
) -> tuple[Weights, Any]:
    """Returns weights and moments after a step on the mean negative log-likelihood, or as they were.

    Args:
      optimizer: of the weights.
      weights: the shared weights.
      moments: the optimiser's state.
      gradient: of the log-likelihood summed over a batch, a tree like the weights.
      batch_size: of that batch.
      usable: bool []; False leaves everything as it was.
    """
    # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        descent = jax.tree.map(lambda leaf: -leaf / batch_size, gradient)
        change, after = optimizer.update(descent, moments, weights)
    moved = (optax.apply_updates(weights, change), after)
    return jax.tree.map(lambda new, before: jnp.where(usable, new, before), moved, (weights, moments))
