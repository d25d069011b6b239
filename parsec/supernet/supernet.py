"""The supernet: shared weights, and the one program that runs any child.

A child's outputs are a function of the shared weights, its inputs and its routes, which are ordinary traced arrays: a
new child never compiles anything. What is made of the outputs is an objective's affair (`parsec.supernet.objective`).
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from parsec.cells.network import Shape, StaticCell, derive
from parsec.cells.operations import BatchStatistics
from parsec.cells.space import Genotype, Hard, Route, Space
from parsec.supernet.shared_cell import SharedCell

# The shared weights: a tree of float32 arrays.
Weights = Any


class Supernet(NamedTuple):
    """Pure functions that close over a space and a shape.

    Attributes:
      init: `init(key, inputs) -> weights`.
      apply: `apply(weights, inputs, routes) -> outputs`, with the route of every kind of cell by its name;
        differentiable in the weights and the inputs.
    """

    init: Callable[[jax.Array, jax.Array], Weights]
    apply: Callable[[Weights, jax.Array, Mapping[str, Route]], jax.Array]


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

    def init(key: jax.Array, inputs: jax.Array) -> Weights:
        # Lazily: only what the parameters need is run, so nothing the size of the network is compiled.
        example = jax.ShapeDtypeStruct((len(space.choices),), jnp.int32)
        first = jax.eval_shape(lambda architecture: hard_routes(space, architecture), example)

        def draw(key: jax.Array) -> Weights:
            return network.lazy_init(key, jax.ShapeDtypeStruct(inputs.shape, inputs.dtype), first)["params"]

        # Traced, and run operation by operation: equal draws share a program, where one program of them all would hold
        # a random generator for each kernel and take longer to compile than the child itself.
        program, weights = jax.make_jaxpr(draw, return_shape=True)(key)
        return jax.tree.unflatten(jax.tree.structure(weights), jaxpr_as_fun(program)(key))

    def apply(weights: Weights, inputs: jax.Array, routes: Mapping[str, Route]) -> jax.Array:
        outputs: Any = network.apply({"params": weights}, inputs, routes)
        return outputs

    return Supernet(init, apply)


def hard_routes(space: Space, architecture: jax.Array) -> dict[str, Hard]:
    """Returns the route of every kind of cell for an architecture, int32 [L]; works on traced ones."""
    return {kind: space.route(kind, architecture) for kind in space.cells}


def static_network(space: Space, genotype: Genotype, shape: Shape) -> Callable[[Weights, jax.Array], jax.Array]:
    """Returns `apply(weights, inputs) -> outputs` of one genotype's own network, normalised as the supernet is.

    What the supernet must equal, and what it is measured against; `child_weights` picks its weights.
    """
    network = derive(space, genotype, shape, norm=BatchStatistics)

    def apply(weights: Weights, inputs: jax.Array) -> jax.Array:
        outputs: Any = network.apply({"params": weights}, inputs)
        return outputs

    return apply


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
