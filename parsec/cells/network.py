"""From a cell to a network: what every skeleton shares, and the network of one fixed genotype.

A skeleton (one for each space, in the space's own file) is a Flax module that places cells. It is told how to build a
cell and never which kind of cell it is: the supernet passes a shared cell that runs any child, `derive` passes static
ones. So a child of the supernet and the network derived from it are the same code outside their cells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from parsec.cells.convolution import convolve
from parsec.cells.operations import Norm, kernel_init, make_operation
from parsec.cells.space import Cell, Genotype, Space

# `build_cell(kind, channels, stride, name)` returns a module called as `cell(inputs, routes)`, which maps a tuple of
# [B, H, W, C] to [B, H / stride, W / stride, C'].
BuildCell = Callable[[str, int, int, str], Any]


@dataclass(frozen=True)
class Shape:
    """The size of a network.

    Attributes:
      channels: of the first cells; doubled at each reduction.
      cells: in the whole network (darts) or in each of its three stages (nasbench201).
      num_classes: of the data.
      stem_stride: 2 halves the resolution before the first cell, for searches on a CPU.
      dtype: of activations, "float32" or "bfloat16"; parameters stay float32.
    """

    channels: int
    cells: int
    num_classes: int
    stem_stride: int = 1
    dtype: str = "float32"


class StaticCell(nn.Module):
    """One decoded cell, each of its edges a module of its own."""

    cell: Cell
    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...], routes: Any = None) -> jax.Array:
        """Returns the cell's output for inputs [B, H, W, C] each; `routes` is ignored."""
        del routes
        nodes: list[Any] = [*inputs, *([None] * self.cell.num_nodes)]
        for at, edge in enumerate(self.cell.edges):
            stride = self.stride if edge.source < self.cell.num_inputs else 1
            operation: Any = make_operation(
                edge.operation, channels=self.channels, stride=stride, norm=self.norm, bind_as=f"slot_{at}"
            )
            result = operation(nodes[edge.source])
            nodes[edge.target] = result if nodes[edge.target] is None else nodes[edge.target] + result
        return cell_output(nodes, self.cell.concat)


def derive(
    space: Space, genotype: Genotype, shape: Shape, *, norm: Norm | None = None, train: bool = True
) -> nn.Module:
    """Returns the network of one genotype, called as `network.apply(variables, images)`; images float [B, H, W, C].

    Args:
      space: whose skeleton places the cells.
      genotype: the decoded cell of every kind.
      shape: size of the network.
      norm: normalisation; by default batch normalisation with affine parameters and running averages.
      train: whether the default normalisation uses the batch's statistics and updates the averages.
    """
    if norm is None:
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=jnp.dtype(shape.dtype))

    def build_cell(kind: str, channels: int, stride: int, name: str) -> StaticCell:
        return StaticCell(genotype[kind], channels, stride, norm, name=name)

    return space.network(shape=shape, build_cell=build_cell, norm=norm)


def cell_output(nodes: list[jax.Array] | tuple[jax.Array, ...], concat: tuple[int, ...]) -> jax.Array:
    """Returns the nodes' concatenation along channels, or the last node where `concat` is empty."""
    return jnp.concatenate([nodes[at] for at in concat], axis=-1) if concat else nodes[-1]


class Stem(nn.Module):
    """A 3x3 convolution from the image to the first channels, normalised."""

    channels: int
    stride: int
    norm: Norm
    dtype: str

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns [B, H / stride, W / stride, channels] for images [B, H, W, C]."""
        kernel = self.param("kernel", kernel_init, (3, 3, images.shape[-1], self.channels))
        return self.norm(name="norm")(convolve(images.astype(self.dtype), kernel, stride=self.stride))


class Head(nn.Module):
    """Global average, then a linear layer; both in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits float32 [B, num_classes] for x [B, H, W, C]."""
        return nn.Dense(self.num_classes, kernel_init=kernel_init, name="linear")(x.astype(jnp.float32).mean((1, 2)))
