"""Local search: hill climbing by first improvement, restarted at a random architecture from every local optimum.

White, Nolen and Savani, "Exploring the loss landscape in neural architecture search" (UAI 2021, arXiv 2005.02960) show
that this is a strong baseline wherever evaluation noise is low.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain, one_change
from parsec.search.contract import Info, Strategy, count_failed, first_objective


@dataclass(frozen=True)
class Settings:
    """Local search has no options."""


class LocalState(NamedTuple):
    """The climb under way.

    Attributes:
      current: the best architecture of this climb, int32 [L].
      score: its score, float32 []; -inf until the climb has a scored start.
      tried: which of its one-decision changes were asked for, bool [M].
      climbs: climbs started, int32 [].
    """

    current: jax.Array
    score: jax.Array
    tried: jax.Array
    climbs: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns hill climbing with restarts; one architecture per ask.

    A climb asks for the valid neighbours of its best architecture in random order and moves as soon as one is better.
    When all were tried without success it starts again from a uniform sample.
    """
    del settings
    changes = one_change(domain.sizes)
    moves = sum(domain.sizes) - len(domain.sizes)

    def init(key: jax.Array) -> LocalState:
        del key
        return LocalState(
            current=jnp.zeros(len(domain.sizes), jnp.int32),
            score=jnp.array(-jnp.inf, jnp.float32),
            tried=jnp.zeros(moves, bool),
            climbs=jnp.zeros((), jnp.int32),
        )

    def ask(key: jax.Array, state: LocalState) -> tuple[jax.Array, LocalState]:
        start, pick = jax.random.split(key)
        neighbours = changes(state.current)
        open_ = ~state.tried & jnp.asarray(domain.valid(neighbours))
        at = jnp.argmax(jnp.where(open_, jax.random.uniform(pick, (moves,)), -1.0))
        # A climb without a scored start (the first, or one whose start failed) has no neighbours to try.
        restart = (state.score == -jnp.inf) | ~open_.any()
        fresh = jnp.asarray(domain.sample(start, 1))[0]
        architecture = jnp.where(restart, fresh, neighbours[at])
        return architecture[None, :], LocalState(
            current=state.current,
            score=jnp.where(restart, -jnp.inf, state.score),
            tried=jnp.where(restart, False, state.tried.at[at].set(True)),
            climbs=state.climbs + restart.astype(jnp.int32),
        )

    def tell(state: LocalState, architectures: ArrayLike, scores: ArrayLike) -> tuple[LocalState, Info]:
        told = jnp.nan_to_num(first_objective(scores), nan=-jnp.inf)
        at = jnp.argmax(told)
        better = told[at] > state.score
        state = LocalState(
            current=jnp.where(better, jnp.asarray(architectures)[at], state.current),
            score=jnp.where(better, told[at], state.score),
            tried=jnp.where(better, False, state.tried),
            climbs=state.climbs,
        )
        info = {"score": state.score, "climbs": state.climbs, "failed": count_failed(architectures, scores)}
        return state, info

    return Strategy(init, ask, tell, domain.jittable)
