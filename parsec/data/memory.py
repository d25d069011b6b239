"""Batches drawn inside the compiled step from images that lie in the device's memory.

Which examples make up a batch is a pure function of a key and the number of the step, so that a resumed run needs to
know nothing else to go on exactly where it was. Every epoch is a permutation of the examples, made new from
`fold_in(key, epoch)`; the remainder that fills no batch is left out of that epoch.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from parsec.data.augment import augment
from parsec.data.dataset import Dataset
from parsec.data.permutation import permute
from parsec.data.source import Batch, RawBatch, Source
from parsec.devices import divided, place, whole
from parsec.errors import UserError
from parsec.keys import fold


class Batches(NamedTuple):
    """One part of a dataset in the device's memory; a pytree, to be passed to the compiled step.

    Attributes:
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      mean: float32 [C], in units of the pixels.
      std: float32 [C].
    """

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.labels)


def training_batches(dataset: Dataset, indices: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Batches:
    """Returns the training images at `indices` int32 [N], with the channels' mean and std float32 [C]."""
    return Batches(*map(jnp.asarray, (dataset.images[indices], dataset.labels[indices], mean, std)))


def held_out_batches(dataset: Dataset, mean: np.ndarray, std: np.ndarray) -> Batches:
    """Returns the test images, with the mean and std of the training images, float32 [C]."""
    return Batches(*map(jnp.asarray, (dataset.test_images, dataset.test_labels, mean, std)))


def steps_per_epoch(num_examples: int, batch_size: int, setting: str = "batch_size") -> int:
    """Returns how many whole batches an epoch has; `setting` is what a config calls their size.

    Raises:
      UserError: the batch is empty, or larger than the data.
    """
    if batch_size < 1:
        raise UserError(f"{setting}={batch_size} is too small; it must be at least 1")
    if batch_size > num_examples:
        raise UserError(
            f"{setting}={batch_size} is larger than the {num_examples} images it is drawn from; give at most "
            f"{num_examples}"
        )
    return num_examples // batch_size


def memory_source(
    part: Batches,
    key: jax.Array,
    batch_size: int,
    *,
    augmentation: str = "none",
    dtype: jax.typing.DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Source:
    """Returns the source of a part's batches, divided among the mesh's devices; see `draw` for the rest."""
    part = place(part, whole(mesh))

    # The images are an argument: closed over, they would become constants of the compiled program.
    @partial(jax.jit, out_shardings=divided(mesh))
    def drawn(part: Batches, index: jax.Array) -> Batch:
        return draw(part, key, index, batch_size, augmentation=augmentation, dtype=dtype)

    per_epoch = steps_per_epoch(len(part.labels), batch_size)
    return Source(lambda index: drawn(part, jnp.asarray(index, jnp.int32)), len(part.labels), per_epoch)


def batch_indices(key: jax.Array, step: jax.Array | int, num_examples: int, batch_size: int) -> jax.Array:
    """Returns the examples of one step's batch.

    Args:
      key: a random key, the same for the whole run.
      step: int32 [], from 0; may be traced.
      num_examples: N.
      batch_size: B, at most N.

    Returns:
      int32 [B], distinct; no example comes twice in the `steps_per_epoch` steps of an epoch.

    Raises:
      UserError: the batch is empty, or larger than the data.
    """
    steps = steps_per_epoch(num_examples, batch_size)
    step = jnp.asarray(step, jnp.int32)
    epoch, within = step // steps, step % steps
    places = within * batch_size + jnp.arange(batch_size, dtype=jnp.int32)
    return permute(jax.random.fold_in(key, epoch), places, num_examples)


def draw(
    part: Batches,
    key: jax.Array,
    step: jax.Array | int,
    batch_size: int,
    *,
    augmentation: str = "none",
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Batch:
    """Returns one step's batch, augmented and normalised.

    Args:
      part: the images.
      key: a random key, the same for the whole run.
      step: int32 [], from 0; may be traced.
      batch_size: B.
      augmentation: a name of `parsec.data.augment.AUGMENTATIONS`.
      dtype: of the images returned.

    Raises:
      UserError: the batch is empty or larger than the data, or the augmentation unknown.
    """
    indices = batch_indices(fold(key, "order"), step, len(part.labels), batch_size)
    raw = RawBatch(*take(part, indices), part.mean, part.std)
    return finished(raw, key, step, augmentation=augmentation, dtype=dtype)


def finished(
    raw: RawBatch,
    key: jax.Array,
    step: jax.Array | int,
    *,
    augmentation: str = "none",
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Batch:
    """Returns a step's batch, augmented and normalised, of one that was read; see `draw`."""
    key = jax.random.fold_in(fold(key, "augmentation"), jnp.asarray(step, jnp.int32))
    images = augment(key, raw.images, augmentation)
    return Batch(normalise(images, raw.mean, raw.std, dtype), raw.labels)


def take(part: Batches, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the raw images uint8 [B, H, W, C] and labels int32 [B] at `indices` int32 [B], all in range."""
    return jnp.take(part.images, indices, 0, mode="clip"), jnp.take(part.labels, indices, 0, mode="clip")


def normalise(
    images: jax.Array, mean: jax.Array, std: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
    """Returns the pixels less their channel's mean, divided by its deviation.

    Args:
      images: uint8 [B, H, W, C].
      mean: float32 [C], in units of the pixels, from the training images.
      std: float32 [C], positive.
      dtype: of the result; the arithmetic is float32.
    """
    shape = (1, 1, 1, -1)
    return ((images.astype(jnp.float32) - mean.reshape(shape)) / std.reshape(shape)).astype(dtype)


def sweep(num_examples: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns batches of one size that go through every example once, in order, for an evaluation.

    Args:
      num_examples: N.
      batch_size: B; may be larger than N.

    Returns:
      Indices int32 [S, B] and weights float32 [S, B] with S = ceil(N / B). Weights are 1, and 0 where the last batch is
      filled up with example 0.

    Raises:
      UserError: there is no example, or the batch is empty.
    """
    if num_examples < 1 or batch_size < 1:
        raise UserError(f"cannot go through {num_examples} images in batches of {batch_size}; both must be at least 1")
    places = np.arange(-(-num_examples // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    real = places < num_examples
    return np.where(real, places, 0).astype(np.int32), real.astype(np.float32)
