"""The NAS-Bench-201 cell and the network that stacks it (Dong, Yang 2020, arXiv 2001.00326).

Four nodes, six edges, five operations: 15,625 architectures, whose published accuracies judge a search. A node is the
sum of its edges; the last node is the output. Three stages of cells, a residual block of stride 2 between them.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from parsec.cells.convolution import average_pool, convolve
from parsec.cells.isomorphism import cell_expression
from parsec.cells.network import BuildCell, Head, Shape, make_auxiliary, make_stem
from parsec.cells.operations import Norm, ReluConv, kernel_init
from parsec.cells.scan import scan_cells
from parsec.cells.space import CellLayout, Choice, Slot, Space

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
# In the order in which the benchmark's strings are read.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


class NasBench201Network(nn.Module):
    """Three stages of cells at C, 2C and 4C channels, with a residual block of stride 2 between two stages.

    Attributes:
      shape: its size.
      build_cell: what makes a cell.
      norm: normalisation outside the cells.
      auxiliary: whether a second classifier reads what the third stage reads; the benchmark's own networks have none.
      scan: whether the cells of a stage are scanned, see `parsec.cells.scan`.
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
          factors: what each cell is told instead, [cells, ...], stage by stage.
        """
        shape, cells, aside = self.shape, self.shape.cells, None
        route = (routes or {}).get("cell")
        _, x = make_stem(shape, shape.channels, self.norm)(images)
        for stage in range(3):
            channels = shape.channels * 2**stage
            if stage > 0:
                x = ResidualBlock(channels, self.norm, name=f"residual_{stage}")(x)
            if self.auxiliary and stage == 2:
                aside = make_auxiliary(shape, self.norm)(x)
            run = partial(_run_cell, self.build_cell, channels)
            told = None if factors is None else factors[stage * cells : (stage + 1) * cells]
            if self.scan and cells > 1:
                x = scan_cells(run, f"{stage}_", 0, cells, x, told)
                continue
            for at in range(cells):
                x = run(f"_{stage}_{at}", x, route if told is None else told[at])
        logits = Head(shape.num_classes, name="head")(nn.relu(self.norm(name="last_norm")(x)))
        return (logits, aside) if self.auxiliary else logits


def _run_cell(build_cell: BuildCell, channels: int, suffix: str, x: jax.Array, told: Any) -> jax.Array:
    return build_cell("cell", channels, 1, f"cell{suffix}")((x,), told)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, beside an average pool of 2x2 and a 1x1 convolution."""

    channels: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [B, ceil(H / 2), ceil(W / 2), channels]."""
        deep = ReluConv(3, self.channels, 2, self.norm, name="first")(x)
        deep = ReluConv(3, self.channels, 1, self.norm, name="second")(deep)
        kernel = self.param("shortcut", kernel_init, (1, 1, x.shape[-1], self.channels))
        return deep + convolve(average_pool(x, size=2, stride=2), kernel)


def make_space(name: str, operations: tuple[str, ...]) -> Space:
    """Returns the space of NAS-Bench-201 cells over the given operations, names of `operations.OPERATIONS`.

    In its canonical form "none" and "skip_connect" are zero and identity, and other operations differ from each other.
    """
    choices = tuple(Choice(f"edge_{source}_{target}", operations) for source, target in EDGES)
    slots = tuple(Slot(target, at, source) for at, (source, target) in enumerate(EDGES))
    cells = {"cell": CellLayout(1, 3, slots)}
    return Space(name, choices, operations, cells, NasBench201Network, canonical=cell_expression)


NASBENCH201 = replace(make_space("nasbench201", OPERATIONS), benchmark="nasbench201")
