"""SH-EMOA: the population of `parsec.search.emoa` grows up on short trainings and moves to longer ones.

Izquierdo et al. 2021, "Bag of baselines for multi-objective joint neural architecture search and hyperparameter
optimization" (arXiv 2105.01015). After some births at the shortest training the whole population is trained again,
longer, and goes on from there, up to the longest training and the rest of the budget. The births at each training take
the same epochs: the published 80, 40 and 20 at 7, 13 and 25 epochs are each about 20 trainings of 25.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search import emoa
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.emoa import EmoaState


@dataclass(frozen=True)
class Settings:
    """The options of SH-EMOA; `PRESETS` has the published ones."""

    population: int = option(20, "members; as many uniform samples come first", minimum=2, maximum=1000)
    tournament: int = option(3, "members drawn for each parent, with replacement", minimum=1, maximum=1000)
    mutation: float = option(
        0.8, "share of children that are mutations; the others are crossovers", minimum=0, maximum=1
    )
    changes: int = option(1, "decisions that a mutation changes, one after another", minimum=1, maximum=100)
    stage: int = option(
        20, "epochs at each but the longest training, the first samples' too, in longest trainings", minimum=1
    )


# By the datasets of the paper.
PRESETS = {
    "default": Settings(),
    "fashion": Settings(population=10, mutation=0.5, stage=20),
    "flowers": Settings(population=100, mutation=0.5, stage=2000),
}


class ShEmoaState(NamedTuple):
    """The population at one fidelity.

    Attributes:
      within: of `emoa.make`.
      fidelity: of the population, int32 [].
      left: births until it moves on, int32 [].
      queue: members of the population before, to be trained again, int32 [P, L]; -1 for an empty place.
      asked: rows of the queue asked for, int32 [].
    """

    within: EmoaState
    fidelity: jax.Array
    left: jax.Array
    queue: jax.Array
    asked: jax.Array


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns SH-EMOA, for a domain of several fidelities; one architecture per ask."""
    population, length, top = settings.population, len(domain.sizes), len(domain.fidelities) - 1
    within = emoa.make(
        domain, emoa.Settings(population, settings.tournament, settings.mutation, settings.changes), objectives
    )
    longest = domain.fidelities[-1]
    births = jnp.array([-(-settings.stage * longest // each) for each in domain.fidelities], jnp.int32)

    def init(key: jax.Array) -> ShEmoaState:
        return ShEmoaState(
            within=within.init(key),
            fidelity=jnp.zeros((), jnp.int32),
            left=births[0],
            queue=jnp.full((population, length), -1, jnp.int32),
            asked=jnp.asarray(population, jnp.int32),
        )

    def ask(key: jax.Array, state: ShEmoaState) -> tuple[jax.Array, ShEmoaState]:
        child, grown = within.ask(key, state.within)
        waiting = (state.asked < population) & (state.queue[jnp.minimum(state.asked, population - 1), 0] >= 0)
        row = jnp.where(waiting, state.queue[jnp.minimum(state.asked, population - 1)], jnp.asarray(child)[0])
        kept = jax.tree.map(lambda old, new: jnp.where(waiting, old, new), state.within, grown)
        asked = jnp.where(waiting, state.asked + 1, population)
        return jnp.append(row, state.fidelity)[None], state._replace(within=kept, asked=asked)

    def tell(state: ShEmoaState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ShEmoaState, Info]:
        given, told = jnp.asarray(architectures), jnp.asarray(scores)
        # What comes late, of a training that the population has left, is of no use to it.
        current = given[0, -1] == state.fidelity
        grown, info = within.tell(state.within, given[:, :-1], told)
        grown = jax.tree.map(lambda old, new: jnp.where(current, new, old), state.within, grown)
        again = (state.queue == given[:, :-1]).all(1).any()
        left = state.left - (current & ~again).astype(jnp.int32)
        moves = (left <= 0) & (state.fidelity < top)
        # Nobody lives there yet, and nobody is sampled uniformly there.
        empty = within.init(jax.random.key(0))._replace(asked=jnp.asarray(population, jnp.int32))
        fidelity = state.fidelity + moves.astype(jnp.int32)
        state = ShEmoaState(
            within=jax.tree.map(lambda old, new: jnp.where(moves, new, old), grown, empty),
            fidelity=fidelity,
            left=jnp.where(moves, births[fidelity], left),
            queue=jnp.where(moves, grown.members, state.queue),
            asked=jnp.where(moves, 0, state.asked),
        )
        return state, {**info, "fidelity": fidelity, "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)
