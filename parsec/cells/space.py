"""Search spaces as data: choices, and the layout that turns a vector of them into cells.

A space is an ordered tuple of categorical choices plus the slots of its cells. A slot is one operation that a child
runs: it adds `operation(source)` to a target node. Which operation runs is always a choice; which node it reads is
either fixed (NAS-Bench-201's edges) or a choice of its own (the DARTS encoding of PARSEC, ENAS and UNAS).

Nothing outside this folder knows which space it works on: strategies see `sizes`, the supernet sees `route`, and
everything a person reads comes from `decode`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.errors import UserError, unknown

# Operations without weights, by name: they learn nothing and train fast, and searches tend to collapse to them.
SKIPS = ("skip_connect", "none")
POOLS = ("max_pool_3x3", "avg_pool_3x3")


@dataclass(frozen=True)
class Choice:
    """One categorical decision with named options."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """One operation of a child: adds `operation(source)` to the node `target`.

    Attributes:
      target: index of the node that receives the result; cell inputs come first in the numbering.
      operation: index into `Space.choices` of the choice of operation.
      source: the node read when it is fixed, else -1.
      source_choice: index into `Space.choices` of the choice of source when it is searched, else -1.
    """

    target: int
    operation: int
    source: int = -1
    source_choice: int = -1


@dataclass(frozen=True)
class CellLayout:
    """The slots of one kind of cell.

    Attributes:
      num_inputs: outputs of earlier cells that the cell reads; nodes 0 .. num_inputs - 1.
      num_nodes: nodes the cell computes; nodes num_inputs .. num_inputs + num_nodes - 1.
      slots: in order of their targets, so that every source is complete before it is read.
      concat: nodes concatenated to the cell's output; empty when the last node is the output.
    """

    num_inputs: int
    num_nodes: int
    slots: tuple[Slot, ...]
    concat: tuple[int, ...] = ()


class Hard(NamedTuple):
    """A route on which every slot reads one node and runs one operation.

    Attributes:
      sources: node read by each slot, int32 [S].
      operations: index into `Space.operations` for each slot, int32 [S].
    """

    sources: jax.Array
    operations: jax.Array


class Soft(NamedTuple):
    """A route on which every slot mixes nodes and operations, as relaxed searches need.

    Attributes:
      sources: weight of each node for each slot, float32 [S, nodes].
      operations: weight of each operation for each slot, float32 [S, operations].
    """

    sources: jax.Array
    operations: jax.Array


# What the slots of a cell read and run.
Route = Hard | Soft


@dataclass(frozen=True)
class Edge:
    """One operation of a decoded cell, reading node `source` and adding to node `target`."""

    source: int
    target: int
    operation: str


@dataclass(frozen=True)
class Cell:
    """A decoded cell: its edges in slot order, and how its nodes become its output."""

    num_inputs: int
    num_nodes: int
    edges: tuple[Edge, ...]
    concat: tuple[int, ...] = ()


# A readable architecture: the decoded cell of every kind, by name.
Genotype = dict[str, Cell]


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
      name: key in `parsec.cells.SPACES`.
      choices: the categorical decisions, in the order of an architecture's entries; L of them.
      operations: names of the candidate operations; every operation choice has exactly these options.
      cells: layout of each kind of cell, by name.
      network: the Flax module that places the cells, built with `shape`, `build_cell` and `norm`
        (see `parsec.cells.network`).
      canonical: a cell's canonical form as text, equal for cells that are the same network; None where every
        architecture counts as its own.
      benchmark: the published table that knows this space's cells, a key of `parsec.tables.published.BENCHMARKS`, or
        nothing.
    """

    name: str
    choices: tuple[Choice, ...]
    operations: tuple[str, ...]
    cells: dict[str, CellLayout]
    network: Callable[..., Any]
    canonical: Callable[[Cell], str] | None = None
    benchmark: str = ""

    @cached_property
    def sizes(self) -> np.ndarray:
        """Options of each choice, int32 [L]."""
        return np.array([len(choice.options) for choice in self.choices], np.int32)

    @cached_property
    def mask(self) -> np.ndarray:
        """Which options exist, bool [L, max options]; rows are ragged when the choices differ in size."""
        return np.arange(self.sizes.max()) < self.sizes[:, None]

    @cached_property
    def common(self) -> np.ndarray:
        """What each option adds to features that a kind of cell has, float32 [F, L, max options].

        They are how often each operation occurs and, where sources are searched, how often each node is read, how
        often an input of the cell is, and how late the nodes are that are read: the sum of their numbers.
        """
        features = []
        options = np.arange(self.mask.shape[1])
        for layout in self.cells.values():
            operations = np.unique([slot.operation for slot in layout.slots])
            sources = np.unique([slot.source_choice for slot in layout.slots if slot.source_choice >= 0])
            kinds = [(operations, options == at) for at in range(len(self.operations))]
            nodes = range(self.sizes[sources].max() if len(sources) else 0)
            kinds += [(sources, options == at) for at in nodes]
            if len(sources):
                kinds += [(sources, options < layout.num_inputs), (sources, options)]
            for choices, counted in kinds:
                feature = np.zeros(self.mask.shape, np.float32)
                feature[choices] = self.mask[choices] * counted[None]
                features.append(feature)
        return np.stack(features)

    @property
    def cardinality(self) -> int:
        """Number of architectures, counting those that compute the same function separately."""
        return int(np.prod(self.sizes.astype(object)))

    def check(self, architecture: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the architecture as int32 [L], or raises `UserError` naming the first entry out of range."""
        given = np.asarray(architecture)
        if given.shape != self.sizes.shape or not np.issubdtype(given.dtype, np.integer):
            raise UserError(
                f"an architecture of {self.name} is {len(self.sizes)} integers, not {given.dtype} {list(given.shape)}"
            )
        outside = np.flatnonzero((given < 0) | (given >= self.sizes))
        if outside.size:
            at = int(outside[0])
            raise UserError(
                f"option {int(given[at])} of choice {self.choices[at].name!r} is outside 0..{int(self.sizes[at]) - 1}"
            )
        return given.astype(np.int32)

    def route(self, kind: str, architecture: jax.Array | np.ndarray) -> Hard:
        """Returns what each slot of a cell reads and runs; works on traced architectures.

        Args:
          kind: which cell, a key of `cells`.
          architecture: int32 [L].
        """
        slots = self.cells[kind].slots
        architecture = jnp.asarray(architecture)
        operations = architecture[np.array([slot.operation for slot in slots])]
        chosen = architecture[np.array([max(slot.source_choice, 0) for slot in slots])]
        fixed = np.array([slot.source for slot in slots], np.int32)
        return Hard(jnp.where(fixed >= 0, fixed, chosen), operations)

    def decode(self, architecture: Sequence[int] | np.ndarray) -> Genotype:
        """Returns the genotype of an architecture, int32 [L]; raises `UserError` if it is not one of this space."""
        vector = self.check(architecture)
        return {kind: _decode_cell(layout, vector, self.operations) for kind, layout in self.cells.items()}

    def encode(self, genotype: Genotype) -> np.ndarray:
        """Returns the architecture int32 [L] that decodes to `genotype`; raises `UserError` if none does."""
        vector = np.zeros(len(self.choices), np.int32)
        for kind, layout in self.cells.items():
            if kind not in genotype:
                raise UserError(f"the genotype has no {kind!r} cell; {self.name} needs {', '.join(self.cells)}")
            edges = genotype[kind].edges
            if len(edges) != len(layout.slots):
                raise UserError(f"the {kind} cell has {len(edges)} edges; {self.name} needs {len(layout.slots)}")
            for slot, edge in zip(layout.slots, edges, strict=True):
                if edge.operation not in self.operations:
                    raise unknown("operation", edge.operation, self.operations)
                vector[slot.operation] = self.operations.index(edge.operation)
                if slot.source_choice >= 0:
                    vector[slot.source_choice] = edge.source
                elif slot.source != edge.source:
                    raise UserError(f"the {kind} cell reads node {edge.source} where {self.name} reads {slot.source}")
                if slot.target != edge.target:
                    raise UserError(f"the {kind} cell writes node {edge.target} where {self.name} writes {slot.target}")
        return self.check(vector)


def uniform_logits(space: Space) -> np.ndarray:
    """Returns the logits of the uniform prior, float32 [L, max options]; entries outside the mask are ignored."""
    return np.zeros(space.mask.shape, np.float32)


def by_name(space: Space, values: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns a value of each option of each choice, [L, O] given, as JSON holds them: under choice and option."""
    rows = zip(space.choices, np.asarray(values), strict=True)
    return {choice.name: dict(zip(choice.options, map(float, row), strict=False)) for choice, row in rows}


def operation_share(space: Space, names: Sequence[str]) -> np.ndarray:
    """Returns what each option adds to the share that operations of these names have, float32 [L, max options].

    The sum of an architecture's entries is the share of its slots, over all kinds of cell, that run one of them.
    """
    slots = [slot for layout in space.cells.values() for slot in layout.slots]
    named = np.array([operation in names for operation in space.operations])
    share = np.zeros(space.mask.shape, np.float32)
    for slot in slots:
        share[slot.operation, : len(named)] += named / np.float32(len(slots))
    return share


def _decode_cell(layout: CellLayout, architecture: np.ndarray, operations: tuple[str, ...]) -> Cell:
    edges = tuple(
        Edge(
            source=slot.source if slot.source_choice < 0 else int(architecture[slot.source_choice]),
            target=slot.target,
            operation=operations[int(architecture[slot.operation])],
        )
        for slot in layout.slots
    )
    return Cell(layout.num_inputs, layout.num_nodes, edges, layout.concat)
