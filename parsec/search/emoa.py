"""A steady-state evolutionary algorithm for fronts: one child at a time, and the least of the last front goes.

SH-EMOA of Izquierdo et al. 2021, "Bag of baselines for multi-objective joint neural architecture search and
hyperparameter optimization" (arXiv 2105.01015), with full trainings only; `parsec.search.sh_emoa` begins with short
ones. Parents are the best of three by non-dominated front and hypervolume contribution; some of the children are
mutations, the others uniform crossovers; the member that goes is the one of the last front without which the front's
hypervolume loses least, as in SMS-EMOA (Beume, Naujoks and Emmerich 2007, European Journal of Operational Research
181, 1653-1669). A mutation changes one decision, where the paper's draws five again.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.front import contributions, directions, ranks

# A front may take up a few degrees only.
_DIRECTIONS = 256


@dataclass(frozen=True)
class Settings:
    """The options of the evolutionary algorithm; `PRESETS` has the published ones, but for `changes`."""

    population: int = option(20, "members; as many uniform samples come first", minimum=2, maximum=1000)
    tournament: int = option(3, "members drawn for each parent, with replacement", minimum=1, maximum=1000)
    mutation: float = option(
        0.8, "share of children that are mutations; the others are crossovers", minimum=0, maximum=1
    )
    changes: int = option(1, "decisions that a mutation changes, one after another", minimum=1, maximum=100)


# By the datasets of the paper.
PRESETS = {
    "default": Settings(),
    "fashion": Settings(population=10, mutation=0.5),
    "flowers": Settings(population=100, mutation=0.5),
}


class EmoaState(NamedTuple):
    """The population, the best first.

    Attributes:
      members: int32 [P, L].
      scores: float32 [P, M]; NaN for a failed member or an empty place.
      asked: architectures asked for, int32 [].
      born: members told, int32 [].
    """

    members: jax.Array
    scores: jax.Array
    asked: jax.Array
    born: jax.Array


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns the evolutionary algorithm; one architecture per ask."""
    population, length = settings.population, len(domain.sizes)
    along = directions(objectives, _DIRECTIONS)

    def init(key: jax.Array) -> EmoaState:
        del key
        return EmoaState(
            members=jnp.full((population, length), -1, jnp.int32),
            scores=jnp.full((population, objectives), jnp.nan, jnp.float32),
            asked=jnp.zeros((), jnp.int32),
            born=jnp.zeros((), jnp.int32),
        )

    def ask(key: jax.Array, state: EmoaState) -> tuple[jax.Array, EmoaState]:
        fresh, parents, which, mix, change = jax.random.split(key, 5)
        uniform = jnp.asarray(domain.sample(fresh, 1))[0]
        alive = jnp.clip(state.born, 1, population)
        # The members are in order, so that the best of a tournament is the first of those drawn.
        drawn = jax.random.randint(parents, (2, settings.tournament), 0, alive).min(1)
        # With nobody born yet the parents are placeholders; what comes of them is not used.
        first, second = jnp.maximum(state.members[drawn[0]], 0), jnp.maximum(state.members[drawn[1]], 0)
        crossed = jnp.where(jax.random.bernoulli(mix, 0.5, (length,)), first, second)
        mutated = first
        for each in jax.random.split(change, settings.changes):
            mutated = jnp.asarray(domain.mutate(each, mutated))
        # A crossover that is not valid, or nothing but its first parent, gives way to a mutation.
        new = jnp.asarray(domain.valid(crossed[None]))[0] & (crossed != first).any()
        child = jnp.where(new & ~jax.random.bernoulli(which, settings.mutation), crossed, mutated)
        found = (state.asked < population) | (state.born == 0)
        return jnp.where(found, uniform, child)[None], state._replace(asked=state.asked + 1)

    def tell(state: EmoaState, architectures: ArrayLike, scores: ArrayLike) -> tuple[EmoaState, Info]:
        told = jnp.asarray(scores)
        rows = jnp.concatenate([state.members, jnp.asarray(architectures)])
        values = jnp.concatenate([state.scores, jnp.where(jnp.isfinite(told).all(1, keepdims=True), told, jnp.nan)])
        rank = ranks(values)
        share = contributions(values, rank, along)
        # An empty place comes after a failed member.
        last = jnp.where(rows[:, 0] < 0, len(rows) + 1, rank).astype(jnp.float32)
        # Rounded, so that equal contributions stay equal however a compiler adds them up; the older of them stays.
        share = jnp.round(1e4 * share / jnp.maximum(share.max(), 1e-30)) / 2e4
        order = jnp.argsort(last - share)[:population]
        state = EmoaState(rows[order], values[order], state.asked, state.born + told.shape[0])
        first = (rank[order] == 0).sum(dtype=jnp.int32)
        return state, {"first_front": first, "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)
