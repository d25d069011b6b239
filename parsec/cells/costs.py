"""Parameters and FLOPs of an architecture's static network, exact and without running it.

The field's conventions: parameters are the weights of the network of one genotype with affine batch normalisation;
FLOPs are the multiply-adds of its convolutions and linear layers on one image, a bias counting one for each output.
NAS-Bench-201 (Dong and Yang, arXiv 2001.00326) and DARTS (Liu et al., arXiv 1806.09055) publish these numbers, and
those given here equal theirs.

Both are read off the traced program, so an operation of your own is counted with no formula. A network's cost is that
of its skeleton and of the operations in its cells; each operation is traced once at each size at which it occurs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend import core

from parsec.cells.convolution import use_form
from parsec.cells.network import Shape, cell_output
from parsec.cells.operations import make_operation
from parsec.cells.space import Space
from parsec.errors import UserError, unknown

# Predicted from measurements on a device, in milliseconds; parameters and FLOPs are counted.
LATENCY = "latency_ms"
# Architectures that mean effects are estimated from.
_DRAWN = 256


class Cost(NamedTuple):
    """What a network costs: its parameters, and its multiply-adds on one image."""

    params: int
    flops: int


class CostTable(NamedTuple):
    """The P costs of every architecture of a space, as sums over the slots of its cells: parameters, FLOPs and others.

    Attributes:
      space: the space.
      skeleton: the costs of everything outside the slots, P of them.
      slots: for each kind of cell int64 [S, N, O, P]: the costs of slot s reading node n through operation o, summed
        over every cell of that kind; zero where the slot cannot read the node.
      names: of the costs.
      scales: how many units of a cost are one of what its name says; whole numbers of fine units add up exactly.
    """

    space: Space
    skeleton: tuple[int, ...]
    slots: dict[str, np.ndarray]
    names: tuple[str, ...] = Cost._fields
    scales: tuple[int, ...] = (1, 1)


def module_cost(module: nn.Module, x: jax.ShapeDtypeStruct) -> Cost:
    """Returns the cost of a Flax module on an input of the given shape, one image; nothing is computed."""
    with use_form("lax"):
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        program = jax.make_jaxpr(module.apply)(variables, x)
    weights = jax.tree.leaves(variables.get("params", {}))
    return Cost(sum(math.prod(leaf.shape) for leaf in weights), count_flops(program.jaxpr))


def network_cost(
    space: Space, architecture: Sequence[int] | np.ndarray, shape: Shape, image: tuple[int, int, int] = (32, 32, 3)
) -> Cost:
    """Returns the cost of the static network of one architecture.

    Args:
      space: the space that it belongs to.
      architecture: int32 [L].
      shape: size of the network.
      image: height, width and channels of the images.

    Raises:
      UserError: the architecture is not one of this space.
    """
    genotype = space.decode(architecture)
    skeleton, placed, operation_cost = _parts(space, shape, image)
    total = np.array(skeleton)
    for cell in placed:
        for edge in genotype[cell.kind].edges:
            total += operation_cost(cell, edge.source, edge.operation)
    return Cost(*total.tolist())


def cost_table(space: Space, shape: Shape, image: tuple[int, int, int] = (32, 32, 3)) -> CostTable:
    """Returns the table from which `table_costs` adds up the cost of any architecture.

    Args:
      space: the space of the architectures.
      shape: size of the network.
      image: height, width and channels of the images.
    """
    skeleton, placed, operation_cost = _parts(space, shape, image)
    slots = {}
    for kind, layout in space.cells.items():
        costs = np.zeros((len(layout.slots), layout.num_inputs + layout.num_nodes, len(space.operations), 2), np.int64)
        for at, slot in enumerate(layout.slots):
            for source in [slot.source] if slot.source_choice < 0 else range(slot.target):
                for which, operation in enumerate(space.operations):
                    for cell in placed:
                        if cell.kind == kind:
                            costs[at, source, which] += operation_cost(cell, source, operation)
        slots[kind] = costs
    return CostTable(space, skeleton, slots)


def table_costs(table: CostTable, architectures: np.ndarray) -> np.ndarray:
    """Returns the costs of many architectures, int64 [N, P], for int32 [N, L] of the table's space."""
    architectures = np.asarray(architectures)
    total = np.tile(np.array(table.skeleton, np.int64), (len(architectures), 1))
    for kind, layout in table.space.cells.items():
        for slot, costs in zip(layout.slots, table.slots[kind], strict=True):
            chosen = slot.source if slot.source_choice < 0 else architectures[:, slot.source_choice]
            total += costs[chosen, architectures[:, slot.operation]]
    return total


def named_costs(table: CostTable, architecture: np.ndarray) -> dict[str, int | float]:
    """Returns the costs of an architecture int32 [L] by name, in what the names say."""
    costs = table_costs(table, architecture[None])[0].tolist()
    named = zip(table.names, costs, table.scales, strict=True)
    return {name: cost if scale == 1 else cost / scale for name, cost, scale in named}


def with_effects(table: CostTable, name: str, scale: int, intercept: float, effects: np.ndarray) -> CostTable:
    """Returns the table with one more cost, that of a model that adds up an effect of each option.

    Each slot's share is rounded to a whole unit.

    Args:
      table: of the space.
      name: of the cost.
      scale: how many units it has.
      intercept: of the model, in what the name says.
      effects: likewise, float64 [L, O].
    """
    slots = {}
    shares = np.zeros(len(effects))
    for layout in table.space.cells.values():
        for slot in layout.slots:
            shares[[slot.operation] if slot.source_choice < 0 else [slot.operation, slot.source_choice]] += 1
    each = effects * scale / np.maximum(shares, 1)[:, None]
    for kind, layout in table.space.cells.items():
        costs = table.slots[kind]
        added = np.zeros((*costs.shape[:-1], 1), np.int64)
        for at, slot in enumerate(layout.slots):
            sources = [slot.source] if slot.source_choice < 0 else list(range(slot.target))
            of_source = np.zeros(1) if slot.source_choice < 0 else each[slot.source_choice, sources]
            of_operation = each[slot.operation, : costs.shape[2]]
            added[at, sources, :, 0] = np.rint(of_source[:, None] + of_operation[None])
        slots[kind] = np.concatenate([costs, added], -1)
    skeleton = (*table.skeleton, round(intercept * scale))
    return CostTable(table.space, skeleton, slots, (*table.names, name), (*table.scales, scale))


def unknown_cost(setting: str, name: str, allowed: Sequence[str]) -> UserError:
    """Returns the error for what is none of the costs that are known; a latency needs a model of it."""
    if LATENCY in name and not any(LATENCY in known for known in allowed):
        return UserError(
            f"{setting} names {name}, which a model predicts: measure it with --config=latency, and give that run "
            "directory as --config.latency=RUN_DIR"
        )
    return unknown(f"cost in {setting}", name, allowed)


def log_params_effects(table: CostTable) -> np.ndarray:
    """Returns what each option adds to the logarithm of the parameters in the mean, float32 [L, O]; zero where masked.

    These are the main effects among uniform architectures, estimated from some hundred of them, the same always.
    """
    sizes, mask = table.space.sizes, table.space.mask
    drawn = np.random.default_rng(0).integers(0, sizes, (_DRAWN, len(sizes)))
    effects = np.zeros(mask.shape, np.float32)
    for choice, option in np.argwhere(mask):
        drawn_with = drawn.copy()
        drawn_with[:, choice] = option
        effects[choice, option] = np.log(table_costs(table, drawn_with)[:, 0]).mean()
    means = effects.sum(1, keepdims=True) / mask.sum(1, keepdims=True, dtype=np.float32)
    return np.where(mask, effects - means, np.float32(0))


def count_flops(jaxpr: core.Jaxpr) -> int:
    """Returns the multiply-adds of a traced program's convolutions and matrix products, with their biases.

    A loop of known length counts every turn, a `while` a single one, a branch its costliest case. The program must hold
    XLA's own convolutions (`parsec.cells.convolution.use_form("lax")`): one written as shifts is elementwise work,
    which the convention leaves out.
    """
    total = 0
    products: set[Any] = set()
    biases: set[Any] = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        variables = [variable for variable in equation.invars if not isinstance(variable, core.Literal)]
        if name in _MULTIPLY_ADDS:
            total += _MULTIPLY_ADDS[name](equation)
            products.add(equation.outvars[0])
        elif name in _CASTS and variables:
            # A bias is a vector spread over the outputs; a product keeps being one through a cast.
            if variables[0] in products and name == "convert_element_type":
                products.add(equation.outvars[0])
            if len(_shape(variables[0])) == 1 or variables[0] in biases:
                biases.add(equation.outvars[0])
        elif name == "add" and len(variables) == 2:
            left, right = variables
            if (left in products and right in biases) or (right in products and left in biases):
                total += math.prod(_shape(equation.outvars[0]))
        total += _inner_flops(equation)
    return total


class _PlacedCell(NamedTuple):
    """A cell where the skeleton put it: what it is built with, and the shapes of its nodes."""

    kind: str
    num_inputs: int
    channels: int
    stride: int
    nodes: tuple[jax.ShapeDtypeStruct, ...]


def _parts(
    space: Space, shape: Shape, image: tuple[int, int, int]
) -> tuple[Cost, list[_PlacedCell], Callable[[_PlacedCell, int, str], Cost]]:
    """Returns the skeleton's cost, its cells, and the cost of an operation in a cell by the node that it reads."""
    shape = replace(shape, dtype="float32")  # no cost depends on the precision
    norm = partial(nn.BatchNorm, use_running_average=True)
    placed: dict[str, _PlacedCell] = {}

    def build_cell(kind: str, channels: int, stride: int, name: str) -> Callable[..., jax.Array]:
        def empty_cell(inputs: tuple[jax.Array, ...], routes: Any = None) -> jax.Array:
            del routes
            layout = space.cells[kind]
            batch, height, width, _ = inputs[0].shape
            node = jnp.zeros((batch, -(-height // stride), -(-width // stride), channels), inputs[0].dtype)
            nodes = [*inputs, *([node] * layout.num_nodes)]
            shapes = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in nodes)
            placed[name] = _PlacedCell(kind, layout.num_inputs, channels, stride, shapes)
            return cell_output(nodes, layout.concat)

        return empty_cell

    @cache
    def traced(operation: str, channels: int, stride: int, source: jax.ShapeDtypeStruct) -> Cost:
        return module_cost(make_operation(operation, channels=channels, stride=stride, norm=norm), source)

    def operation_cost(cell: _PlacedCell, source: int, operation: str) -> Cost:
        stride = cell.stride if source < cell.num_inputs else 1
        return traced(operation, cell.channels, stride, cell.nodes[source])

    skeleton = space.network(shape=shape, build_cell=build_cell, norm=norm)
    cost = module_cost(skeleton, jax.ShapeDtypeStruct((1, *image), jnp.float32))
    return cost, list(placed.values()), operation_cost


def _inner_flops(equation: core.JaxprEqn) -> int:
    inner = [count_flops(jaxpr) for jaxpr in core.jaxprs_in_params(equation.params)]
    if equation.primitive.name == "cond":
        return max(inner)
    return sum(inner) * (equation.params["length"] if equation.primitive.name == "scan" else 1)


def _convolution_flops(equation: core.JaxprEqn) -> int:
    kernel = _shape(equation.invars[1])
    outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return math.prod(_shape(equation.outvars[0])) * (math.prod(kernel) // outputs)


def _product_flops(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    summed = math.prod(_shape(equation.invars[0])[axis] for axis in contracted)
    return math.prod(_shape(equation.outvars[0])) * summed


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


_MULTIPLY_ADDS = {"conv_general_dilated": _convolution_flops, "dot_general": _product_flops}
_CASTS = ("convert_element_type", "reshape", "broadcast_in_dim")
