"""Regularized (ageing) evolution: tournament selection in a queue that drops its oldest member.

Real, Aggarwal, Huang and Le, "Regularized evolution for image classifier architecture search" (AAAI 2019,
arXiv 1802.01548). Defaults are those of the NAS-Bench-201 baselines (Dong and Yang, ICLR 2020): population 10 and
sample 3.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed, first_objective


@dataclass(frozen=True)
class Settings:
    """The options of regularized evolution."""

    population: int = option(
        10, "members alive at once; as many uniform samples come first", minimum=1, maximum=100_000
    )
    sample: int = option(3, "members drawn for a tournament, with replacement", minimum=1, maximum=100_000)
    batch: int = option(1, "architectures per ask, each with a parent of its own", minimum=1, maximum=10_000)


class EvolutionState(NamedTuple):
    """The population as a ring.

    Attributes:
      members: int32 [P, L]; slot `born % P` is the oldest.
      scores: float32 [P]; -inf for a failed member.
      asked: architectures asked for, int32 [].
      born: members told, int32 [].
    """

    members: jax.Array
    scores: jax.Array
    asked: jax.Array
    born: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns regularized evolution; `batch` architectures per ask.

    The first `population` architectures are uniform samples. After that `sample` members are drawn with replacement for
    each architecture, and one decision of the best of them is changed.
    """
    population, batch = settings.population, settings.batch

    def init(key: jax.Array) -> EvolutionState:
        del key
        return EvolutionState(
            members=jnp.zeros((population, len(domain.sizes)), jnp.int32),
            scores=jnp.full(population, -jnp.inf, jnp.float32),
            asked=jnp.zeros((), jnp.int32),
            born=jnp.zeros((), jnp.int32),
        )

    def bear(key: jax.Array, place: jax.Array, state: EvolutionState) -> jax.Array:
        """Returns the architecture that is asked for as the `place`-th of the run, int32 [L]."""
        fresh, tournament, mutation = jax.random.split(key, 3)
        alive = jnp.clip(state.born, 1, population)
        drawn = jax.random.randint(tournament, (settings.sample,), 0, alive)
        parent = state.members[drawn[jnp.argmax(state.scores[drawn])]]
        found = (place < population) | (state.born == 0)
        # With nobody born yet the parent is a placeholder that may be invalid; its mutation is then not used.
        return jnp.where(found, jnp.asarray(domain.sample(fresh, 1))[0], jnp.asarray(domain.mutate(mutation, parent)))

    def ask(key: jax.Array, state: EvolutionState) -> tuple[jax.Array, EvolutionState]:
        keys = key[None] if batch == 1 else jax.random.split(key, batch)
        places = state.asked + jnp.arange(batch, dtype=jnp.int32)
        if batch > 1 and domain.jittable:
            children = jax.vmap(bear, (0, 0, None))(keys, places, state)
        else:
            children = jnp.stack([bear(keys[at], places[at], state) for at in range(batch)])
        return children, state._replace(asked=state.asked + batch)

    def tell(state: EvolutionState, architectures: ArrayLike, scores: ArrayLike) -> tuple[EvolutionState, Info]:
        told = jnp.nan_to_num(first_objective(scores), nan=-jnp.inf)
        # Those that more than a whole population follows are dead already.
        first = max(told.shape[0] - population, 0)
        slots = (state.born + jnp.arange(first, told.shape[0])) % population
        state = state._replace(
            members=state.members.at[slots].set(jnp.asarray(architectures)[first:]),
            scores=state.scores.at[slots].set(told[first:]),
            born=state.born + told.shape[0],
        )
        return state, {"population_best": state.scores.max(), "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)
