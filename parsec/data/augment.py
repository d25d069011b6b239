"""Random changes to training images that leave their labels true; plain jax.numpy, for use inside a compiled step.

Crops and flips (K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2) act on the raw
pixels, before these are normalised, so that what moves in from outside is black. DARTS and its successors do the same
on CIFAR, and black is the digits' own background.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from parsec.errors import UserError, unknown

# `augmentation(key, images [B, H, W, C]) -> images` of the same shape and dtype.
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


def augment(key: jax.Array, images: jax.Array, name: str) -> jax.Array:
    """Returns the images, each changed at random.

    Args:
      key: a random key; the same key and images give the same result.
      images: [B, H, W, C] of any dtype.
      name: one of `AUGMENTATIONS`: "none"; "flip", mirrored left to right half of the time; "shift", by up to one
        pixel either way; "crop_flip", by up to an eighth of the side either way, and "flip".

    Raises:
      UserError: unknown name.
    """
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name](key, images)


def none(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images as they are."""
    del key
    return images


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images, half of them mirrored left to right."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images moved by -1, 0 or 1 pixel along both axes; what moves in is 0."""
    return _moved(images, _offsets(key, len(images), 1), jnp.zeros(len(images), bool))


def crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images padded by an eighth of their side with 0, cut back to size at a random place, and mirrored.

    An eighth is the usual 4 pixels for images of 32. Half of the images are mirrored.
    """
    move, mirror = jax.random.split(key)
    return _moved(
        images, _offsets(move, len(images), images.shape[1] // 8), jax.random.bernoulli(mirror, 0.5, (len(images),))
    )


def cutout(key: jax.Array, images: jax.Array, length: int) -> jax.Array:
    """Returns the images with a square set to 0, its centre anywhere, so that it may stick out.

    Source: T. DeVries and G. Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
    arXiv:1708.04552. Meant for normalised images, where 0 is the mean colour; 16 is usual for CIFAR-10.

    Args:
      key: a random key.
      images: [B, H, W, C] of any dtype.
      length: side of the square in pixels; 0 for none.

    Raises:
      UserError: a negative length.
    """
    if length < 0:
        raise UserError(f"cutout length {length} is negative; give the side in pixels, or 0 for none")
    batch, height, width, _ = images.shape
    at_row, at_column = jax.random.split(key)
    first_row = jax.random.randint(at_row, (batch, 1), 0, height) - length // 2
    first_column = jax.random.randint(at_column, (batch, 1), 0, width) - length // 2
    row, column = jnp.arange(height)[None], jnp.arange(width)[None]
    rows = (row >= first_row) & (row < first_row + length)
    columns = (column >= first_column) & (column < first_column + length)
    hidden = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(hidden, jnp.zeros((), images.dtype), images)


AUGMENTATIONS: dict[str, Augmentation] = {"none": none, "flip": flip, "shift": shift, "crop_flip": crop_flip}


def _offsets(key: jax.Array, batch: int, most: int) -> jax.Array:
    return jax.random.randint(key, (batch, 2), -most, most + 1)


def _moved(images: jax.Array, offsets: jax.Array, mirrored: jax.Array) -> jax.Array:
    """Returns images whose pixel (h, w) was at (h, w) + offset, counted from the right where mirrored; 0 outside."""
    _, height, width, _ = images.shape
    rows = jnp.arange(height)[None] + offsets[:, :1]
    columns = jnp.arange(width)[None]
    columns = jnp.where(mirrored[:, None], width - 1 - columns, columns) + offsets[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None, None] & ((columns >= 0) & (columns < width))[:, None, :, None]
    # Two gathers of whole rows and columns; on a CPU 20 times as fast as products with one-hot matrices.
    images = jnp.take_along_axis(images, rows.clip(0, height - 1)[:, :, None, None], 1)
    images = jnp.take_along_axis(images, columns.clip(0, width - 1)[:, None, :, None], 2)
    return jnp.where(inside, images, jnp.zeros((), images.dtype))
