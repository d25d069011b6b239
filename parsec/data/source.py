"""Where batches come from: a source answers for the batch of any step, again and alike.

Which examples make up a batch is a function of the step's number and the source's own key alone, so a resumed run goes
on with the very next one and needs no state. Images in memory are one source (`parsec.data.memory`); those too many for
it are another, read while weights learn (`parsec.data.stream`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Batch(NamedTuple):
    """Normalised images, float [B, H, W, C], and their labels, int32 [B]."""

    images: jax.Array
    labels: jax.Array


class RawBatch(NamedTuple):
    """A batch as it was read, to be augmented and normalised inside the compiled step; a pytree.

    Attributes:
      images: uint8 [B, H, W, C].
      labels: int32 [B].
      mean: float32 [C], in units of the pixels.
      std: float32 [C].
    """

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array


class Source(NamedTuple):
    """An endless, repeatable stream of batches.

    Attributes:
      batch: `batch(index) -> Batch` of step `index`, an int from 0; the same for every process that asks.
      num_examples: examples that an epoch draws from.
      steps_per_epoch: whole batches in an epoch.
    """

    batch: Callable[[int], Batch]
    num_examples: int
    steps_per_epoch: int
