"""The scores that a strategy remembers, in a ring: what models of them are fitted to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Standardised(NamedTuple):
    """Scores in deviations from their mean.

    Attributes:
      scores: float32 [C]; zero where they were not finite.
      center: their mean, outliers drawn in, float32 [].
      unit: their deviation likewise, float32 [].
    """

    scores: jax.Array
    center: jax.Array
    unit: jax.Array


class Told(NamedTuple):
    """Distinct architectures and their scores; the oldest give way to new ones.

    Attributes:
      architectures: int32 [C, L]; -1 where nothing is stored.
      scores: float32 [C, M]; NaN for a failure or an empty slot.
      told: rows stored so far, int32 [].
      asked: architectures asked for, int32 [].
    """

    architectures: jax.Array
    scores: jax.Array
    told: jax.Array
    asked: jax.Array


def nothing_told(capacity: int, length: int, objectives: int = 1) -> Told:
    """Returns the state before any score, with room for `capacity` of architectures [L]."""
    return Told(
        architectures=jnp.full((capacity, length), -1, jnp.int32),
        scores=jnp.full((capacity, objectives), jnp.nan, jnp.float32),
        told=jnp.zeros((), jnp.int32),
        asked=jnp.zeros((), jnp.int32),
    )


def remember(state: Told, architectures: jax.Array, scores: jax.Array) -> Told:
    """Returns the state after scores float32 [B, M] of architectures int32 [B, L]; a failure is a row with a NaN.

    A repeated architecture brings the same score again, which is no second observation and takes no room; but where it
    failed before, a score takes the failure's place. Of more than the capacity the last are kept.
    """
    capacity = len(state.scores)
    finite = jnp.isfinite(scores).all(1)
    same = (architectures[:, None] == state.architectures[None]).all(-1)
    again = jnp.tril((architectures[:, None] == architectures[None]).all(-1), -1).any(1)
    at = same.argmax(1)
    mends = same.any(1) & finite & ~jnp.isfinite(state.scores[at]).all(1)
    known = state.scores.at[jnp.where(mends, at, capacity)].set(scores, mode="drop")
    new = (architectures[:, 0] >= 0) & ~same.any(1) & ~again
    place, count = jnp.cumsum(new, dtype=jnp.int32) - 1, new.sum(dtype=jnp.int32)
    slots = jnp.where(new & (place >= count - capacity), (state.told + place) % capacity, capacity)
    return state._replace(
        architectures=state.architectures.at[slots].set(architectures, mode="drop"),
        scores=known.at[slots].set(jnp.where(finite[:, None], scores, jnp.nan), mode="drop"),
        told=state.told + count,
    )


def standardise(scores: jax.Array, farthest: float) -> Standardised:
    """Returns scores float32 [C] in their own unit; NaN where a row says nothing.

    What is further than `farthest` robust deviations from the median is drawn in: a network that diverged would
    otherwise make all others look alike.
    """
    scored = jnp.isfinite(scores)
    middle = jnp.nanmedian(scores)
    # For normal scores this is their deviation.
    spread = 1.4826 * jnp.nanmedian(jnp.abs(scores - middle))
    spread = jnp.maximum(jnp.where(spread > 0, spread, jnp.nanstd(scores)), 1e-12)
    count = jnp.maximum(scored.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    drawn_in = jnp.where(scored, jnp.clip((scores - middle) / spread, -farthest, farthest), 0.0)
    mean = drawn_in.sum() / count
    centred = jnp.where(scored, drawn_in - mean, 0.0)
    deviation = jnp.maximum(jnp.sqrt((centred * centred).sum() / count), 1e-6)
    return Standardised(centred / deviation, middle + spread * mean, spread * deviation)
