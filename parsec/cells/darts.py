"""The DARTS cell in PARSEC's encoding, and the network that stacks it.

Four nodes a cell, two operations a node, each reading one of the two previous cells or an earlier node; the operation
and its source are independent categoricals (Casale, Gordon, Fusi 2019, arXiv 1902.05116). The operations are those of
DARTS (arXiv 1806.09055) without "none", since the topology is explicit. 32 choices, 168 logits, 6.9e21 architectures.
"""

from functools import partial

import flax.linen as nn
import jax

from parsec.cells.network import BuildCell, Head, Shape, Stem
from parsec.cells.operations import FactorizedReduce, Norm, ReluConv
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
    """Cells in a row, each reading the two before it; reduction cells after one and two thirds of them."""

    shape: Shape
    build_cell: BuildCell
    norm: Norm

    @nn.compact
    def __call__(self, images: jax.Array, routes: dict | None = None) -> jax.Array:
        """Returns logits float32 [B, num_classes] for images [B, H, W, C]."""
        shape, routes = self.shape, routes or {}
        channels = shape.channels
        before = last = Stem(3 * channels, shape.stem_stride, self.norm, shape.dtype, name="stem")(images)
        reductions = (shape.cells // 3, 2 * shape.cells // 3)
        halved = False
        for at in range(shape.cells):
            kind = "reduce" if at in reductions else "normal"
            channels *= 2 if kind == "reduce" else 1
            # After a reduction the older input has twice the newer one's resolution.
            older = FactorizedReduce if halved else partial(ReluConv, 1, stride=1)
            first = older(channels=channels, norm=self.norm, name=f"older_{at}")(before)
            second = ReluConv(1, channels, 1, self.norm, name=f"newer_{at}")(last)
            halved = kind == "reduce"
            cell = self.build_cell(kind, channels, 2 if halved else 1, f"cell_{at}")
            before, last = last, cell((first, second), routes.get(kind))
        return Head(shape.num_classes, name="head")(last)


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


DARTS = make_space("darts", OPERATIONS)
