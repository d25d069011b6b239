"""The plain residual network: what a user would train who searches nothing, of about the same number of parameters.

He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks", arXiv 1603.05027: blocks of normalisation, ReLU
and 3x3 convolution, twice, added to what comes in; three stages of equal depth, each of half the resolution and twice
the width of the one before. A block that changes either starts its short cut after the first ReLU, with a 1x1
convolution. Depth and width are chosen for a number of parameters.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from parsec.cells.convolution import convolve
from parsec.cells.network import Head, Shape, make_auxiliary, make_stem
from parsec.cells.operations import Norm, kernel_init
from parsec.cells.scan import scan_cells

# What a genotype says that asks for this network; there is no cell in it.
RESIDUAL = "resnet"
STAGES = 3
# Blocks of a stage, the usual first: 3 make the 20 layers of the smallest network of the paper's family. Another depth
# is for parameters that no width of a usual one comes as near to as this share.
_DEPTHS = (3, 2, 4, 5, 6)
_NEAR = 0.05


class Size(NamedTuple):
    """Blocks in each of the three stages, and channels of the first."""

    blocks: int
    channels: int


class ResidualNetwork(nn.Module):
    """Stem, three stages, normalisation, head; `shape.cells` is the number of blocks in a stage.

    Attributes:
      shape: its size.
      norm: normalisation.
      auxiliary: whether a second classifier reads what the third stage reads.
      scan: whether the equal blocks of a stage are scanned, see `parsec.cells.scan`.
    """

    shape: Shape
    norm: Norm
    auxiliary: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, routes: Any = None, factors: jax.Array | None = None) -> Any:
        """Returns logits float32 [B, num_classes], or with `auxiliary` a pair of them, the second head's last.

        Args:
          images: [B, H, W, C].
          routes: ignored; there is nothing to choose.
          factors: on what each block adds to each image, float32 [blocks, 1, B], where blocks are dropped.
        """
        del routes
        shape, blocks, aside = self.shape, self.shape.cells, None
        _, x = make_stem(shape, shape.channels, self.norm)(images)
        for stage in range(STAGES):
            if self.auxiliary and stage == STAGES - 1:
                aside = make_auxiliary(shape, self.norm)(x)
            channels = shape.channels * 2**stage
            told = None if factors is None else factors[stage * blocks : (stage + 1) * blocks]
            first = PreActivationBlock(channels, 2 if stage else 1, self.norm, name=f"block_{stage}_0")
            x = first(x, None if told is None else told[0])
            run = partial(_run_block, channels, self.norm)
            if self.scan and blocks > 2:
                x = scan_cells(run, f"{stage}_", 1, blocks - 1, x, None if told is None else told[1:])
                continue
            for at in range(1, blocks):
                x = run(f"_{stage}_{at}", x, None if told is None else told[at])
        logits = Head(shape.num_classes, name="head")(nn.relu(self.norm(name="last_norm")(x)))
        return (logits, aside) if self.auxiliary else logits


class PreActivationBlock(nn.Module):
    """Normalisation, ReLU and 3x3 convolution, twice, beside the input."""

    channels: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, factors: jax.Array | None = None) -> jax.Array:
        """Returns [B, ceil(H / stride), ceil(W / stride), channels]; `factors` [1, B] scale what the block adds."""
        inputs = x.shape[-1]
        active = nn.relu(self.norm(name="norm_0")(x))
        kernel = self.param("kernel_0", kernel_init, (3, 3, inputs, self.channels))
        added = nn.relu(self.norm(name="norm_1")(convolve(active, kernel, stride=self.stride)))
        added = convolve(added, self.param("kernel_1", kernel_init, (3, 3, self.channels, self.channels)))
        if factors is not None:
            added = added * factors[0].astype(added.dtype)[:, None, None, None]
        if self.stride > 1 or inputs != self.channels:
            shortcut = self.param("shortcut", kernel_init, (1, 1, inputs, self.channels))
            return added + convolve(active, shortcut, stride=self.stride)
        return added + x


def choose_size(params: int, num_classes: int, image_channels: int) -> Size:
    """Returns a depth and width whose network has about `params` parameters: the usual depth where a width is near.

    Args:
      params: wanted, at least 1.
      num_classes: of the data.
      image_channels: 1 or 3.
    """

    def distance(size: Size) -> float:
        return abs(math.log(count_params(size, num_classes, image_channels) / params))

    nearest = []
    for blocks in _DEPTHS:
        # Parameters grow with the square of the width, so the nearest width is beside the square root.
        per_square = count_params(Size(blocks, 64), num_classes, image_channels) / 64**2
        width = max(round(math.sqrt(params / per_square)), 1)
        nearest.append(min((Size(blocks, max(width + step, 1)) for step in range(-2, 3)), key=distance))
    return next((size for size in nearest if distance(size) < _NEAR), min(nearest, key=distance))


def count_params(size: Size, num_classes: int, image_channels: int) -> int:
    """Returns the parameters of the network of that size with the stem of one convolution."""
    width = size.channels
    total = 9 * image_channels * width + 2 * width
    inputs = width
    for stage in range(STAGES):
        channels = width * 2**stage
        for _ in range(size.blocks):
            total += 2 * inputs + 9 * inputs * channels + 2 * channels + 9 * channels**2
            total += inputs * channels if stage and inputs != channels else 0
            inputs = channels
    return total + 2 * inputs + inputs * num_classes + num_classes


def _run_block(channels: int, norm: Norm, suffix: str, x: jax.Array, told: jax.Array | None) -> jax.Array:
    return PreActivationBlock(channels, 1, norm, name=f"block{suffix}")(x, told)
