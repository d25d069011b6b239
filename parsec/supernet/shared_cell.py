"""A cell that runs any child with shared weights: one compiled program, the memory of one child.

The cell is a scan over its slots. Each step reads the slot's source, runs the slot's operation by `lax.switch` and adds
the result to the slot's target, so compilation does not grow with the number of children and a child's cost is its own
operations' alone. Differentiating that program as it stands would save the residuals of every candidate operation; the
backward pass here is written as the reverse scan, which keeps the nodes only and recomputes one operation at a time.

Never `vmap` over children: a switch under `vmap` runs every branch. Loop over them (see `parsec.supernet.children`).
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from parsec.cells.network import cell_output
from parsec.cells.operations import Norm, make_operation
from parsec.cells.space import CellLayout, Route, Soft

# Every operation's parameters, stacked over slots: operation name -> tree of [S, ...].
CellParams = dict[str, Any]


class SharedCell(nn.Module):
    """A cell whose operations are chosen by the route it is called with.

    Attributes:
      layout: the cell's slots.
      operations: names of the candidates; a route's operations index them.
      channels: of every node.
      stride: 2 puts the stride on slots that read a cell input.
      norm: normalisation without running averages.
      auxiliary_skip: factor of the input that is added to the result of every operation but `none`, where the shapes
        allow. Young convolutions lose to skip connections that merely pass on what comes in; with the input beside
        every operation, what an operation adds to it decides (Chu et al. 2021, "DARTS-", arXiv 2009.01027, which adds
        it to `none` too and lets it decay; here an edge that is absent stays absent).
    """

    layout: CellLayout
    operations: tuple[str, ...]
    channels: int
    stride: int
    norm: Norm
    auxiliary_skip: float = 0.0

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...], route: Route) -> jax.Array:
        """Returns the child's cell output for inputs [B, H, W, C] each.

        Raises:
          TypeError: for a soft route; this cell runs one operation at a time.
        """
        if isinstance(route, Soft):
            raise TypeError("a shared cell runs hard routes; a soft one needs every operation of a slot")
        params = {name: self._params(name, inputs[0]) for name in self.operations}
        packed, program = _pack(params, len(self.layout.slots)), _program(self, params)
        images = jnp.stack(inputs)
        batch, height, width, channels = images.shape[1:]
        size = (self.layout.num_nodes, batch, -(-height // self.stride), -(-width // self.stride), channels)
        if self.is_initializing():
            # Weights depend on shapes alone: whatever has the right one will do for the nodes.
            nodes: Any = jnp.broadcast_to(images[0, :, :: self.stride, :: self.stride], size)
            return cell_output([*inputs, *nodes], self.layout.concat)
        empty = jnp.zeros(size, images.dtype)
        if self.stride == 1:
            # Inputs and nodes have one shape and lie in one array: a source is one index.
            nodes = _run_slots(program, packed, None, jnp.concatenate([images, empty]), *route)
            return cell_output(list(nodes), self.layout.concat)
        nodes = _run_slots(program, packed, images, empty, *route)
        return cell_output([*inputs, *nodes], self.layout.concat)

    def _params(self, name: str, example: jax.Array) -> Any:
        # `param` would trace the drawing again at every call, for the shapes alone.
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        return self.param(name, self._initialise, name, example)

    def _initialise(self, key: jax.Array, name: str, example: jax.Array) -> Any:
        operation = _detached(name, self, self.stride)
        keys = jax.random.split(key, len(self.layout.slots))
        shape = jax.ShapeDtypeStruct(example.shape, example.dtype)
        return jax.vmap(lambda k: operation.lazy_init(k, shape).get("params", {}))(keys)


class _Part(NamedTuple):
    """Where an operation's parameters lie in a row [P] of packed ones: from `start` to `stop`, leaf after leaf."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    start: int

    @property
    def stop(self) -> int:
        return self.start + sum(map(math.prod, self.shapes))

    def cut(self, row: jax.Array) -> Any:
        """Returns the parameters that lie in a row."""
        leaves, at = [], self.start
        for shape in self.shapes:
            leaves.append(row[at : at + math.prod(shape)].reshape(shape))
            at += math.prod(shape)
        return jax.tree.unflatten(self.structure, leaves)

    def place(self, params: Any, row: jax.Array) -> jax.Array:
        """Returns a row like the given one that holds the parameters, and zeros elsewhere."""
        before, after = jnp.zeros(self.start, row.dtype), jnp.zeros(len(row) - self.stop, row.dtype)
        return jnp.concatenate([before, *(leaf.reshape(-1) for leaf in jax.tree.leaves(params)), after])


class _Branch(NamedTuple):
    """One operation, whether it reads a cell input that lies in an array of its own, and its auxiliary skip."""

    name: str
    operation: nn.Module
    part: _Part
    reads_input: bool
    auxiliary_skip: float

    def read(self, images: jax.Array | None, nodes: jax.Array, source: jax.Array) -> jax.Array:
        if images is None:
            return nodes[source]
        return images[source] if self.reads_input else nodes[source - images.shape[0]]

    def run(self, params: Any, x: jax.Array) -> jax.Array:
        result: Any = self.operation.apply({"params": params}, x)
        if self.auxiliary_skip and self.name != "none" and result.shape == x.shape:
            return result + self.auxiliary_skip * x
        return result


class _Program(NamedTuple):
    """The static part of a shared cell; hashable, so that it can be a non-differentiable argument.

    Attributes:
      branches: the operations, once where the cell has stride 1; else first with the stride, reading cell inputs, then
        again with stride 1, reading nodes.
      num_inputs: cell inputs.
      num_operations: of a slot.
      targets: row of the array of nodes that each slot adds to.
    """

    branches: tuple[_Branch, ...]
    num_inputs: int
    num_operations: int
    targets: tuple[int, ...]


def _detached(name: str, cell: SharedCell, stride: int) -> nn.Module:
    """Returns an operation that is no submodule of the cell: its parameters are passed to it."""
    return make_operation(name, channels=cell.channels, stride=stride, norm=cell.norm).clone(parent=None)


def _pack(params: CellParams, slots: int) -> jax.Array:
    """Returns all operations' parameters as one array [S, P], so that loops and switches have one value to carry."""
    leaves = jax.tree.leaves([params[name] for name in params])
    return jnp.concatenate([jnp.zeros((slots, 0), jnp.float32), *(leaf.reshape(slots, -1) for leaf in leaves)], axis=1)


def _program(cell: SharedCell, params: CellParams) -> _Program:
    parts: list[_Part] = []
    for name in params:
        leaves, structure = jax.tree.flatten(params[name])
        start = parts[-1].stop if parts else 0
        parts.append(_Part(structure, tuple(leaf.shape[1:] for leaf in leaves), start))

    def branches(stride: int, reads_input: bool) -> tuple[_Branch, ...]:
        each = zip(cell.operations, parts, strict=True)
        return tuple(_Branch(n, _detached(n, cell, stride), p, reads_input, cell.auxiliary_skip) for n, p in each)

    count, operations = cell.layout.num_inputs, len(cell.operations)
    if cell.stride == 1:
        return _Program(branches(1, False), count, operations, tuple(slot.target for slot in cell.layout.slots))
    both = branches(cell.stride, True) + branches(1, False)
    return _Program(both, count, operations, tuple(slot.target - count for slot in cell.layout.slots))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run_slots(
    program: _Program,
    packed: jax.Array,
    images: jax.Array | None,
    nodes: jax.Array,
    sources: jax.Array,
    operations: jax.Array,
) -> jax.Array:
    """Returns the nodes [N, B, h, w, C] with every slot's result added.

    `images` [I, B, H, W, C] holds the cell inputs where a stride gives them a shape of their own; else it is None.
    """

    def run_slot(nodes: jax.Array, slot: Any) -> tuple[jax.Array, None]:
        weights, source, branch, target = slot
        result = lax.switch(branch, [partial(read_and_run, b) for b in program.branches], weights, nodes, source)
        return _add(nodes, target, result), None

    def read_and_run(branch: _Branch, weights: jax.Array, nodes: jax.Array, source: jax.Array) -> jax.Array:
        return branch.run(branch.part.cut(weights), branch.read(images, nodes, source))

    nodes, _ = lax.scan(run_slot, nodes, _slots(program, packed, sources, operations))
    return nodes


def _forward(program: _Program, packed: jax.Array, *rest: Any) -> tuple[jax.Array, tuple[Any, ...]]:
    images, _, sources, operations = rest
    nodes: jax.Array = _run_slots(program, packed, *rest)
    return nodes, (packed, images, nodes, sources, operations)


def _backward(program: _Program, saved: tuple[Any, ...], gradient: jax.Array) -> tuple[Any, ...]:
    packed, images, nodes, sources, operations = saved

    def run_slot(gradients: Any, slot: Any) -> tuple[Any, jax.Array]:
        weights, source, branch, target = slot
        to_images, to_nodes = gradients
        # Slots are in order of their targets, so every slot that reads this one's target has been undone by now.
        branches = [partial(differentiate, b) for b in program.branches]
        image, node, to_weights = lax.switch(branch, branches, weights, source, to_nodes[target])
        if images is None:
            return (None, _add(to_nodes, source, node)), to_weights
        # Of the two, the one that was not read is zero, wherever the clipped index puts it.
        to_images = _add(to_images, jnp.minimum(source, program.num_inputs - 1), image)
        return (to_images, _add(to_nodes, jnp.maximum(source - program.num_inputs, 0), node)), to_weights

    def differentiate(
        branch: _Branch, weights: jax.Array, source: jax.Array, cotangent: jax.Array
    ) -> tuple[jax.Array | None, jax.Array, jax.Array]:
        _, pull = jax.vjp(branch.run, branch.part.cut(weights), branch.read(images, nodes, source))
        to_own, to_source = pull(cotangent)
        to_weights = branch.part.place(to_own, weights)
        if images is None:
            return None, to_source, to_weights
        if branch.reads_input:
            return to_source, jnp.zeros_like(cotangent), to_weights
        return jnp.zeros_like(images[0]), to_source, to_weights

    start = (None if images is None else jnp.zeros_like(images), gradient)
    slots = _slots(program, packed, sources, operations)
    (to_images, to_nodes), to_packed = lax.scan(run_slot, start, slots, reverse=True)
    nothing = np.zeros(sources.shape, jax.dtypes.float0)
    return to_packed, to_images, to_nodes, nothing, nothing


_run_slots.defvjp(_forward, _backward)


def _slots(program: _Program, packed: jax.Array, sources: jax.Array, operations: jax.Array) -> tuple[Any, ...]:
    """Returns what one step of the scan needs: weights, source, branch and target, each with leading axis S."""
    branch = operations
    count = program.num_operations
    if len(program.branches) > count:
        branch = operations + jnp.where(sources < program.num_inputs, 0, count).astype(operations.dtype)
    return packed, sources, branch, jnp.array(program.targets, jnp.int32)


def _add(rows: jax.Array, at: jax.Array, value: jax.Array) -> jax.Array:
    """Returns the array with a value added to one row; XLA makes one loop of it where a scatter would be five."""
    return lax.dynamic_update_index_in_dim(rows, rows[at] + value, at, 0)
