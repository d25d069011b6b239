"""What is made of a network's outputs: the log-likelihood that a child is weighed by.

The supernet ends with its outputs. An objective maps them and the batch to a log-likelihood, so that classification is
one entry, and label smoothing or a policy's return are others; the estimators see log-likelihoods only.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from parsec.cells.network import Shape
from parsec.cells.space import Genotype, Space
from parsec.data.source import Batch
from parsec.supernet.supernet import Supernet, Weights, hard_routes, static_network


class ChildResult(NamedTuple):
    """What one child made of one batch.

    Attributes:
      log_likelihood: sum over the batch of log p(label | image), float32.
      correct: how many labels were the most likely class, int32.
    """

    log_likelihood: jax.Array
    correct: jax.Array


# `objective(outputs [B, ...], batch) -> ChildResult`; differentiable in the outputs.
Objective = Callable[[jax.Array, Batch], ChildResult]
# `child(weights, batch, architecture int32 [L]) -> ChildResult`; differentiable in the weights.
Child = Callable[[Weights, Batch, jax.Array], ChildResult]


def classification(outputs: jax.Array, batch: Batch) -> ChildResult:
    """Returns the log-likelihood and the number correct of logits float32 [B, classes] for the batch's labels.

    An image whose label is -1 counts for neither; it is there for the batch's statistics.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(outputs, jnp.maximum(batch.labels, 0))
    losses = jnp.where(batch.labels >= 0, losses, 0.0)
    return ChildResult(-losses.sum(), (outputs.argmax(-1).astype(batch.labels.dtype) == batch.labels).sum())


def make_child(space: Space, supernet: Supernet, objective: Objective = classification) -> Child:
    """Returns the function that runs any architecture of a space as a child of its supernet."""

    def child(weights: Weights, batch: Batch, architecture: jax.Array) -> ChildResult:
        return objective(supernet.apply(weights, batch.images, hard_routes(space, architecture)), batch)

    return child


def static_child(
    space: Space, genotype: Genotype, shape: Shape, objective: Objective = classification
) -> Callable[[Weights, Batch], ChildResult]:
    """Returns `run(weights, batch)` of one genotype's own network, the child that `make_child` must equal."""
    apply = static_network(space, genotype, shape)
    return lambda weights, batch: objective(apply(weights, batch.images), batch)
