"""The scores that a strategy remembers, in a ring: what models of them are fitted to."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Told(NamedTuple):
    """Architectures and their scores; the oldest give way to new ones.

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
    """Returns the state after scores float32 [B, M] of architectures int32 [B, L]; a failure is a row with a NaN."""
    # A repeated architecture brings the same score again, which is no second observation.
    seen = (architectures[:, None] == state.architectures[None]).all(-1).any(1)
    again = jnp.tril((architectures[:, None] == architectures[None]).all(-1), -1).any(1)
    kept = jnp.isfinite(scores).all(1) & ~seen & ~again
    slots = (state.told + jnp.arange(len(scores))) % len(state.scores)
    return state._replace(
        architectures=state.architectures.at[slots].set(architectures),
        scores=state.scores.at[slots].set(jnp.where(kept[:, None], scores, jnp.nan)),
        told=state.told + len(scores),
    )
