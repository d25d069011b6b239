"""Scores architectures by the shared weights: how each does as a child on held-out images.

Every child sees the same images in the same batches and is normalised by each batch's own statistics, so scoring one
child never changes another's score. One compiled program scores any architecture. Streamed images are read again for
each architecture, cut as networks for ImageNet are evaluated; one that cannot be read does not count.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from parsec.data.memory import Batches, normalise, take
from parsec.data.source import Batch, RawBatch
from parsec.data.stream import Part, StreamedPart, stream_once
from parsec.devices import divide, place, traced_for, whole
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.supernet.objective import Child
from parsec.supernet.supernet import Weights


class Scored(NamedTuple):
    """What a child made of held-out images; both are NaN where its likelihood is not finite.

    Attributes:
      accuracy: in percent.
      log_likelihood: mean of log p(label | image), in nats; NaN where only the accuracy was measured.
    """

    accuracy: float
    log_likelihood: float


# `score(weights, architecture int32 [L]) -> Scored`.
Score = Callable[[Weights, np.ndarray], Scored]

# What shared weights and short trainings say of an architecture.
OBJECTIVE = "valid_accuracy"


def make_score(
    child: Child,
    part: Part,
    *,
    batch_size: int,
    num_images: int,
    dtype: str,
    seed: int,
    mesh: Mesh | None = None,
) -> Score:
    """Returns the function that scores a child on `num_images` of a part's images.

    Args:
      child: runs one child.
      part: held-out images, in memory or streamed.
      batch_size: images a batch; only whole batches are used, at least one.
      num_images: how many images to use at most.
      dtype: of activations.
      seed: chooses the images, the same for every child.
      mesh: the devices that each batch is divided among.
    """
    available = part.num_examples
    batch_size = min(batch_size, available)
    batches = max(min(num_images, available) // batch_size, 1)
    chosen = np.random.default_rng(seed).permutation(available)[: batches * batch_size]
    if isinstance(part, StreamedPart):
        return _score_streamed(child, part._replace(rows=part.rows[chosen]), batch_size, dtype, mesh)
    indices = jnp.asarray(chosen.reshape(batches, batch_size).astype(np.int32))

    # The images are an argument: closed over, they would become a constant of the compiled program.
    def count(weights: Weights, part: Batches, architecture: jax.Array) -> tuple[jax.Array, jax.Array]:
        def add(total: tuple[jax.Array, jax.Array], rows: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            images, labels = take(part, rows)
            batch = divide(Batch(normalise(images, part.mean, part.std, dtype), labels), mesh)
            value, correct = child(weights, batch, architecture)
            return (total[0] + correct.astype(jnp.int32), total[1] + value.astype(jnp.float32)), None

        start = (jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))
        return jax.lax.scan(add, start, indices)[0]

    part, counted = place(part, whole(mesh)), jax.jit(traced_for(mesh, count), out_shardings=whole(mesh))

    def score(weights: Weights, architecture: np.ndarray) -> Scored:
        correct, value = counted(weights, part, jnp.asarray(architecture, jnp.int32))
        # A sum is finite only where every batch's value is.
        if not np.isfinite(value):
            return Scored(float("nan"), float("nan"))
        return Scored(100.0 * int(correct) / indices.size, float(value) / indices.size)

    return score


def _score_streamed(child: Child, part: StreamedPart, batch_size: int, dtype: str, mesh: Mesh | None) -> Score:
    """Returns `make_score`'s function for whole batches of a streamed part, all its images."""

    def count(weights: Weights, raw: RawBatch, real: jax.Array, architecture: jax.Array) -> tuple[jax.Array, ...]:
        # What could not be read is black, has no label and counts for nothing.
        labels = jnp.where(real > 0, raw.labels, -1)
        batch = divide(Batch(normalise(raw.images, raw.mean, raw.std, dtype), labels), mesh)
        value, correct = child(weights, batch, architecture)
        return correct.astype(jnp.int32), value.astype(jnp.float32), (real > 0).sum(dtype=jnp.int32)

    counted = jax.jit(traced_for(mesh, count), out_shardings=whole(mesh))

    def score(weights: Weights, architecture: np.ndarray) -> Scored:
        placed = place(np.asarray(architecture, np.int32), whole(mesh))
        correct, value, number = 0, 0.0, 0
        for raw, real in stream_once(part, batch_size, mesh):
            right, likelihood, there = counted(weights, raw, real, placed)
            correct, value, number = correct + int(right), value + float(likelihood), number + int(there)
        if not number:
            raise UserError(f"none of the {part.num_examples} images of a part can be read")
        if not np.isfinite(value):
            return Scored(float("nan"), float("nan"))
        return Scored(100.0 * correct / number, value / number)

    return score


def supernet_evaluator(score: Score, weights: Weights) -> Evaluator:
    """Returns the evaluator of children under shared weights; its one objective is their accuracy in percent."""

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        del evaluated, pause
        return np.array([[score(weights, architecture).accuracy] for architecture in architectures], np.float32)

    return Evaluator((OBJECTIVE,), evaluate)
