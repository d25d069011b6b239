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

from parsec.cells.batch_norm import BatchNorm
from parsec.cells.convolution import convolve
from parsec.cells.operations import Norm, ReluConv, kernel_init, make_operation
from parsec.cells.space import Cell, Genotype, Space

# `build_cell(kind, channels, stride, name)` returns a module called as `cell(inputs, told)`, which maps a tuple of
# [B, H, W, C] to [B, H / stride, W / stride, C']. What a cell is told is the child's route where it runs any child, and
# the factors on its operations' results where paths are dropped in training.
BuildCell = Callable[[str, int, int, str], Any]
# What a stem that has no `stem_stride` divides the resolution by.
STEM_STRIDES = {"imagenet": 8}


@dataclass(frozen=True)
class Shape:
    """The size of a network.

    Attributes:
      channels: of the first cells; doubled at each reduction.
      cells: in the whole network (darts) or in each of its three stages (nasbench201).
      num_classes: of the data.
      stem_stride: 2 halves the resolution before the first cell, for searches on a CPU.
      dtype: of activations, "float32" or "bfloat16"; parameters stay float32.
      stem: "cifar", one convolution; or "imagenet", three of stride 2, in place of `stem_stride`.
    """

    channels: int
    cells: int
    num_classes: int
    stem_stride: int = 1
    dtype: str = "float32"
    stem: str = "cifar"


class StaticCell(nn.Module):
    """One decoded cell, each of its edges a module of its own."""

    cell: Cell
    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, inputs: tuple[jax.Array, ...], factors: jax.Array | None = None) -> jax.Array:
        """Returns the cell's output.

        Args:
          inputs: [B, H, W, C] each.
          factors: on each operation's result for each image, float32 [S, B], where paths are dropped: 0 or 1 / share
            kept. An input that is merely passed on is never dropped.
        """
        nodes: list[Any] = [*inputs, *([None] * self.cell.num_nodes)]
        for at, edge in enumerate(self.cell.edges):
            stride = self.stride if edge.source < self.cell.num_inputs else 1
            operation: Any = make_operation(
                edge.operation, channels=self.channels, stride=stride, norm=self.norm, bind_as=f"slot_{at}"
            )
            result = operation(nodes[edge.source])
            if factors is not None and result is not nodes[edge.source]:
                result = result * factors[at].astype(result.dtype)[:, None, None, None]
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
        norm = partial(BatchNorm, use_running_average=not train)

    def build_cell(kind: str, channels: int, stride: int, name: str) -> StaticCell:
        return StaticCell(genotype[kind], channels, stride, norm, name=name)

    return space.network(shape=shape, build_cell=build_cell, norm=norm)


def cell_output(nodes: list[jax.Array] | tuple[jax.Array, ...], concat: tuple[int, ...]) -> jax.Array:
    """Returns the nodes' concatenation along channels, or the last node where `concat` is empty."""
    return jnp.concatenate([nodes[at] for at in concat], axis=-1) if concat else nodes[-1]


def make_stem(shape: Shape, channels: int, norm: Norm) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the function from images to the older and the newer input of the first cell.

    Args:
      shape: of the network.
      channels: of a stem that is one convolution, whose result is both inputs; the other one has `shape.channels`.
      norm: normalisation.
    """
    if shape.stem == "imagenet":
        return ImageNetStem(shape.channels, norm, shape.dtype, name="stem")
    stem = Stem(channels, shape.stem_stride, norm, shape.dtype, name="stem")

    def run(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = stem(images)
        return x, x

    return run


def make_auxiliary(shape: Shape, norm: Norm) -> nn.Module:
    """Returns the auxiliary head of a network, named "auxiliary"."""
    # On ImageNet, DARTS's last normalisation is missing, in the paper's experiments too.
    return AuxiliaryHead(shape.num_classes, norm, last_norm=shape.stem != "imagenet", name="auxiliary")


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


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2, as DARTS has them on ImageNet; an eighth of the resolution."""

    channels: int
    norm: Norm
    dtype: str

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns [B, H / 4, W / 4, channels] and [B, H / 8, W / 8, channels] for images [B, H, W, C]."""
        half = Stem(self.channels // 2, 2, self.norm, self.dtype, name="first")(images)
        older = ReluConv(3, self.channels, 2, self.norm, name="second")(half)
        return older, ReluConv(3, self.channels, 2, self.norm, name="third")(older)


class AuxiliaryHead(nn.Module):
    """A second classifier on cells two thirds into the network, for training alone (DARTS's auxiliary tower).

    Means over windows of up to 5 pixels in the four corners, a 1x1 and a 2x2 convolution. On 8x8 and 7x7 pixels, which
    DARTS's networks have there on CIFAR and on ImageNet, these are its average poolings of strides 3 and 2.
    """

    num_classes: int
    norm: Norm
    last_norm: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits float32 [B, num_classes] for x [B, H, W, C]; H and W at least 2."""
        x = corner_means(nn.relu(x))
        narrow = self.param("narrow", kernel_init, (1, 1, x.shape[-1], 128))
        x = nn.relu(self.norm(name="norm")(convolve(x, narrow)))
        # A convolution of 2x2 pixels with a 2x2 kernel is one product.
        wide = self.param("wide", kernel_init, (2, 2, 128, 768))
        x = x.reshape(len(x), 1, 1, 4 * 128) @ wide.reshape(4 * 128, 768).astype(x.dtype)
        x = nn.relu(self.norm(name="last_norm")(x) if self.last_norm else x)
        return nn.Dense(self.num_classes, kernel_init=kernel_init, name="linear")(x[:, 0, 0].astype(jnp.float32))


def corner_means(x: jax.Array) -> jax.Array:
    """Returns the means over a window in each corner, [B, 2, 2, C], for x [B, H, W, C]; H and W at least 2."""
    height, width = (min(5, size - 1) for size in x.shape[1:3])
    rows = (x[:, :height], x[:, -height:])
    corners = [[row[:, :, :width].mean((1, 2)), row[:, :, -width:].mean((1, 2))] for row in rows]
    return jnp.stack([jnp.stack(row, 1) for row in corners], 1)


class Head(nn.Module):
    """Global average, then a linear layer; both in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns logits float32 [B, num_classes] for x [B, H, W, C]."""
        return nn.Dense(self.num_classes, kernel_init=kernel_init, name="linear")(x.astype(jnp.float32).mean((1, 2)))
