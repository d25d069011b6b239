"""The supernet: shared weights, and the one program that runs any child.

A child's loss, likelihood and gradient are functions of the shared weights, a batch and the child's architecture, an
ordinary traced array: a new child never compiles anything.
"""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec.cells.network import Shape, StaticCell, derive
from parsec.cells.operations import BatchStatistics
from parsec.cells.space import Genotype, Space
from parsec.supernet.shared_cell import SharedCell

# The shared weights: a tree of float32 arrays.
Weights = Any


class Batch(NamedTuple):
    """Normalised images, float [B, H, W, C], and their labels, int32 [B]."""

    images: jax.Array
    labels: jax.Array


class ChildResult(NamedTuple):
    """What one child made of one batch.

    Attributes:
      log_likelihood: sum over the batch of log p(label | image), float32.
      correct: how many labels were the most likely class, int32.
    """

    log_likelihood: jax.Array
    correct: jax.Array


class Supernet(NamedTuple):
    """Pure functions that close over a space and a shape.

    Attributes:
      init: `init(key, images) -> weights`.
      run_child: `run_child(weights, batch, architecture) -> ChildResult`; differentiable in the weights.
    """

    init: Callable[[jax.Array, jax.Array], Weights]
    run_child: Callable[[Weights, Batch, jax.Array], ChildResult]


def make_supernet(space: Space, shape: Shape, *, auxiliary_skip: float = 0.0) -> Supernet:
    """Returns the supernet of a space; batch statistics throughout, no affine normalisation.

    Args:
      space: whose architectures are its children.
      shape: of the network.
      auxiliary_skip: factor of the input beside every operation of a cell, see `SharedCell`; with 0 a child is its
        architecture's own network.
    """

    def build_cell(kind: str, channels: int, stride: int, name: str) -> SharedCell:
        layout = space.cells[kind]
        return SharedCell(layout, space.operations, channels, stride, BatchStatistics, auxiliary_skip, name=name)

    network: nn.Module = space.network(shape=shape, build_cell=build_cell, norm=BatchStatistics)

    def routes(architecture: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
        return {kind: space.route(kind, architecture) for kind in space.cells}

    def init(key: jax.Array, images: jax.Array) -> Weights:
        # Lazily: only what the parameters need is run, so nothing the size of the network is compiled.
        first = jax.eval_shape(routes, jax.ShapeDtypeStruct((len(space.choices),), jnp.int32))
        return network.lazy_init(key, jax.ShapeDtypeStruct(images.shape, images.dtype), first)["params"]

    def run_child(weights: Weights, batch: Batch, architecture: jax.Array) -> ChildResult:
        logits: Any = network.apply({"params": weights}, batch.images, routes(architecture))
        return score(logits, batch.labels)

    return Supernet(init, run_child)


def score(logits: jax.Array, labels: jax.Array) -> ChildResult:
    """Returns the log-likelihood and the number correct of logits float32 [B, classes] for labels int32 [B]."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return ChildResult(-losses.sum(), (logits.argmax(-1).astype(labels.dtype) == labels).sum())


def static_child(space: Space, genotype: Genotype, shape: Shape) -> Callable[[Weights, Batch], ChildResult]:
    """Returns `run(weights, batch)` of one genotype's own network, normalised as the supernet is.

    What the supernet must equal, and what it is measured against; `child_weights` picks its weights.
    """
    network = derive(space, genotype, shape, norm=BatchStatistics)

    def run(weights: Weights, batch: Batch) -> ChildResult:
        logits: Any = network.apply({"params": weights}, batch.images)
        return score(logits, batch.labels)

    return run


def child_weights(space: Space, shape: Shape, weights: Weights, genotype: Genotype) -> Weights:
    """Returns the shared weights that a child uses, named as in its static network; works on traced weights.

    Args:
      space: of the supernet.
      shape: of the supernet.
      weights: of the supernet.
      genotype: of the child.
    """

    def pick(cell: Weights, kind: str) -> Weights:
        slots = enumerate(edge.operation for edge in genotype[kind].edges)
        return {f"slot_{at}": jax.tree.map(itemgetter(at), cell[operation]) for at, operation in slots}

    kinds = cell_kinds(space, shape)
    return {name: pick(part, kinds[name]) if name in kinds else part for name, part in weights.items()}


def cell_kinds(space: Space, shape: Shape) -> dict[str, str]:
    """Returns the kind of every cell of the network, by the cell's name."""
    kinds: dict[str, str] = {}
    genotype = space.decode(np.zeros(len(space.choices), np.int32))

    def build_cell(kind: str, channels: int, stride: int, name: str) -> StaticCell:
        kinds[name] = kind
        return StaticCell(genotype[kind], channels, stride, BatchStatistics, name=name)

    network = space.network(shape=shape, build_cell=build_cell, norm=BatchStatistics)
    jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    return kinds
