"""The DARTS cell in PARSEC's encoding, and the network that stacks it.

Four nodes a cell, two operations a node, each reading one of the two previous cells or an earlier node; the operation
and its source are independent categoricals (Casale, Gordon, Fusi 2019, arXiv 1902.05116). The operations are those of
DARTS (arXiv 1806.09055) without "none", since the topology is explicit. 32 choices, 168 logits, 6.9e21 architectures.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from parsec.cells.network import BuildCell, Head, Shape, make_auxiliary, make_stem
from parsec.cells.operations import FactorizedReduce, Norm, ReluConv
from parsec.cells.scan import scan_cells
from parsec.cells.space import CellLayout, Choice, Slot, Space

OPERATIONS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NUM_NODES = 4


class DartsNetwork(nn.Module):
    """Cells in a row, each reading the two before it; reduction cells after one and two thirds of them.

    Attributes:
      shape: its size.
      build_cell: what makes a cell.
      norm: normalisation outside the cells.
      auxiliary: whether a second classifier reads the cell at two thirds.
      scan: whether equal cells in a row are scanned, see `parsec.cells.scan`.
    """

    shape: Shape
    build_cell: BuildCell
    norm: Norm
    auxiliary: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, routes: dict | None = None, factors: jax.Array | None = None) -> Any:
        """Returns logits float32 [B, num_classes], or with `auxiliary` a pair of them, the second head's last.

        Args:
          images: [B, H, W, C].
          routes: what the cells of each kind are told, by kind.
          factors: what each cell is told instead, [cells, ...].
        """
        shape, routes = self.shape, routes or {}
        before, last = make_stem(shape, 3 * shape.channels, self.norm)(images)
        channels, aside = shape.channels, None
        reductions = (shape.cells // 3, 2 * shape.cells // 3)
        # After a reduction the older input has twice the newer one's resolution.
        halved = shape.stem == "imagenet"
        for first, count in _rows(shape.cells, reductions, self.scan):
            kind = "reduce" if first in reductions else "normal"
            channels *= 2 if kind == "reduce" else 1
            run = partial(_run_cell, self.build_cell, self.norm, kind, channels, halved)
            if count == 1:
                told = routes.get(kind) if factors is None else factors[first]
                before, last = run(f"_{first}", (before, last), told)
            else:
                told = None if factors is None else factors[first : first + count]
                before, last = scan_cells(run, "", first, count, (before, last), told)
            if self.auxiliary and first == reductions[1]:
                aside = make_auxiliary(shape, self.norm)(last)
            halved = kind == "reduce"
        logits = Head(shape.num_classes, name="head")(last)
        return (logits, aside) if self.auxiliary else logits


def _rows(cells: int, reductions: tuple[int, int], scan: bool) -> list[tuple[int, int]]:
    """Returns first cell and length of each row of equal cells; rows of one where they are not to be scanned."""
    rows: list[tuple[int, int]] = []
    for at in range(cells):
        # Equal to the cell before: both read two cells of their own width.
        equal = at >= 3 and not {at, at - 1, at - 2} & set(reductions)
        if scan and equal:
            rows[-1] = (rows[-1][0], rows[-1][1] + 1)
        else:
            rows.append((at, 1))
    return rows


def _run_cell(
    build_cell: BuildCell,
    norm: Norm,
    kind: str,
    channels: int,
    halved: bool,
    suffix: str,
    carry: tuple[jax.Array, jax.Array],
    told: Any,
) -> tuple[jax.Array, jax.Array]:
    """Returns the last cell's output, which is the next one's older input, and this cell's."""
    before, last = carry
    older = FactorizedReduce if halved else partial(ReluConv, 1, stride=1)
    first = older(channels=channels, norm=norm, name=f"older{suffix}")(before)
    second = ReluConv(1, channels, 1, norm, name=f"newer{suffix}")(last)
    cell = build_cell(kind, channels, 2 if kind == "reduce" else 1, f"cell{suffix}")
    return last, cell((first, second), told)


def make_space(name: str, operations: tuple[str, ...]) -> Space:
    """Returns the space of DARTS cells over the given operations, names of `parsec.cells.operations.OPERATIONS`."""
    choices: list[Choice] = []
    cells: dict[str, CellLayout] = {}
    for kind in ("normal", "reduce"):
        slots = []
        for node in range(2, 2 + NUM_NODES):
            for which in "ab":
                slots.append(Slot(target=node, operation=len(choices) + 1, source_choice=len(choices)))
                choices.append(Choice(f"{kind}_{node}{which}_source", tuple(str(source) for source in range(node))))
                choices.append(Choice(f"{kind}_{node}{which}_operation", operations))
        cells[kind] = CellLayout(2, NUM_NODES, tuple(slots), concat=tuple(range(2, 2 + NUM_NODES)))
    return Space(name, tuple(choices), operations, cells, DartsNetwork)


DARTS = replace(make_space("darts", OPERATIONS), benchmark="nasbench301")
