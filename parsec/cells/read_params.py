"""How many of its parameters a network reads: those that lie on a path from the image to the logits.

An architecture may hold parameters that its output does not depend on: in NAS-Bench-201 an edge before or behind a
"none", in DARTS a cell that no later one reads. Wherever a network's size is told they are counted, as the field does
(`parsec.cells.costs`); to what it can learn they add nothing.

Within a cell, paths are followed along its slots; from cell to cell, in the skeleton's program, which is traced once
with cells that depend on all of their inputs, and followed with those shut that a cell leaves out.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from parsec.cells.convolution import use_form
from parsec.cells.costs import NetworkParts, network_parts, slot_costs
from parsec.cells.network import Shape, cell_output
from parsec.cells.operations import BatchStatistics, make_operation
from parsec.cells.space import CellLayout, Slot, Space


class _Read(NamedTuple):
    """What is read of networks whose cells read the same of their inputs.

    Attributes:
      skeleton: parameters outside the slots.
      slots: for each kind of cell int64 [S, N, O]: the parameters of a slot that is read, as of `CostTable`, summed
        over the cells of that kind that are read.
    """

    skeleton: int
    slots: dict[str, np.ndarray]


def count_read(
    space: Space, shape: Shape, image: tuple[int, int, int] = (32, 32, 3)
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from architectures int32 [N, L] to the parameters that their networks read, int64 [N].

    What a cell outputs is taken to depend on the image where another kind of cell reads it.

    Args:
      space: of the architectures.
      shape: size of the networks.
      image: height, width and channels of the images.
    """
    parts = network_parts(space, shape, image)
    passes = np.array([_passes(parts, operation) for operation in space.operations])
    follow = _follow_skeleton(space, parts, jax.ShapeDtypeStruct((1, *image), jnp.float32))
    ends = np.cumsum([layout.num_inputs for layout in space.cells.values()])[:-1]

    @cache
    def read(inputs: tuple[tuple[int, ...], ...]) -> _Read:
        skeleton, cells = follow(dict(zip(space.cells, inputs, strict=True)))
        return _Read(skeleton, {kind: costs[..., 0] for kind, costs in slot_costs(space, parts, cells).items()})

    def count(architectures: np.ndarray) -> np.ndarray:
        rows, total = np.asarray(architectures), np.zeros(len(architectures), np.int64)
        slots, inputs = {}, []
        for kind, layout in space.cells.items():
            slots[kind], read_inputs = _on_paths(layout, passes, rows)
            inputs.append(read_inputs)
        every = np.concatenate(inputs, 1)
        for pattern in np.unique(every, axis=0):
            at = np.flatnonzero((every == pattern[None]).all(1))
            known = read(tuple(tuple(np.flatnonzero(own).tolist()) for own in np.split(pattern, ends)))
            total[at] = known.skeleton
            for kind, layout in space.cells.items():
                for which, slot in enumerate(layout.slots):
                    params = known.slots[kind][which, _source(slot, rows[at]), rows[at, slot.operation]]
                    total[at] += params * slots[kind][at, which]
        return total

    return count


def _on_paths(layout: CellLayout, passes: np.ndarray, architectures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which slots of a cell lie on a path from an input to the output, bool [N, S], and which inputs, [N, I].

    Args:
      layout: of the cell.
      passes: whether an operation's result depends on what it reads, bool [O].
      architectures: int32 [N, L].
    """
    rows, nodes = np.arange(len(architectures)), layout.num_inputs + layout.num_nodes
    sources = [_source(slot, architectures) for slot in layout.slots]
    runs = [passes[architectures[:, slot.operation]] for slot in layout.slots]
    reached, read = np.zeros((2, len(rows), nodes), bool)
    reached[:, : layout.num_inputs] = True
    for slot, source, run in zip(layout.slots, sources, runs, strict=True):
        reached[:, slot.target] |= run & reached[rows, source]
    read[:, list(layout.concat) or [-1]] = True
    on_paths = np.zeros((len(rows), len(layout.slots)), bool)
    for at, slot in reversed(list(enumerate(layout.slots))):
        on_paths[:, at] = runs[at] & reached[rows, sources[at]] & read[:, slot.target]
        read[rows, sources[at]] |= on_paths[:, at]
    return on_paths, read[:, : layout.num_inputs]


def _source(slot: Slot, architectures: np.ndarray) -> np.ndarray:
    if slot.source_choice < 0:
        return np.full(len(architectures), slot.source)
    return architectures[:, slot.source_choice]


def _follow_skeleton(
    space: Space, parts: NetworkParts, image: jax.ShapeDtypeStruct
) -> Callable[[Mapping[str, tuple[int, ...]]], tuple[int, set[str]]]:
    """Returns `follow(inputs)`, given which of their inputs cells of each kind read.

    It returns how many parameters outside the slots are read, and the names of the cells that are.
    """

    def network(marks: Mapping[str, Any], gates: Mapping[str, Sequence[Any]]) -> Any:
        def build_cell(kind: str, channels: int, stride: int, name: str) -> Callable[..., jax.Array]:
            del channels, stride

            def cell(inputs: tuple[jax.Array, ...], told: Any = None) -> jax.Array:
                del told
                value = marks[name] + sum(x.mean() * gate for x, gate in zip(inputs, gates[kind], strict=True))
                node = jnp.full(parts.cells[name].nodes[-1].shape, value)
                return cell_output([*inputs, *([node] * space.cells[kind].num_nodes)], space.cells[kind].concat)

            return cell

        return parts.skeleton(build_cell)

    number = jax.ShapeDtypeStruct((), jnp.float32)
    marks = dict.fromkeys(parts.cells, number)
    gates = {kind: [number] * layout.num_inputs for kind, layout in space.cells.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(
        lambda key, marks, gates, x: network(marks, gates).init(key, x), key, marks, gates, image
    )
    given = variables, marks, gates, image
    program = jax.make_jaxpr(lambda variables, marks, gates, x: network(marks, gates).apply(variables, x))(*given).jaxpr
    weights, mark_of, gates_of, _ = jax.tree.unflatten(jax.tree.structure(given), program.invars)

    def follow(inputs: Mapping[str, tuple[int, ...]]) -> tuple[int, set[str]]:
        shut = {gate for kind, own in gates_of.items() for at, gate in enumerate(own) if at not in inputs[kind]}
        needed = _needed(program, shut)
        sizes = (math.prod(leaf.aval.shape) for leaf in jax.tree.leaves(weights["params"]) if leaf in needed)
        return sum(sizes), {name for name, mark in mark_of.items() if mark in needed}

    return follow


def _passes(parts: NetworkParts, operation: str) -> bool:
    """Returns whether an operation's result depends on what it reads."""
    cell = next(iter(parts.cells.values()))
    module, x = make_operation(operation, channels=cell.channels, stride=1, norm=BatchStatistics), cell.nodes[-1]
    with use_form("lax"):
        program = jax.make_jaxpr(module.apply)(jax.eval_shape(module.init, jax.random.key(0), x), x).jaxpr
    return program.invars[-1] in _needed(program)


def _needed(program: core.Jaxpr, shut: Collection[Any] = ()) -> set[Any]:
    """Returns the variables that a traced program's outputs depend on, otherwise than through what reads `shut` ones.

    A program inside it is taken to need all that it is given.
    """
    needed = {each for each in program.outvars if not isinstance(each, core.Literal)}
    for equation in reversed(program.eqns):
        read = {each for each in equation.invars if not isinstance(each, core.Literal)}
        if needed.intersection(equation.outvars) and not read.intersection(shut):
            needed |= read
    return needed
