"""A strategy of one objective that searches for a front: it is told what each architecture adds to the hypervolume.

The score is the uncrowded hypervolume improvement (Toure, Hansen, Auger and Brockhoff, GECCO 2019, arXiv 1904.08823)
over what was told before: the volume gained, and for what is dominated, which gains nothing, minus how far it falls
short of the front. It is measured along a fixed list of directions (`parsec.search.front`), of which only the length
reached in each need be remembered. The score of an architecture is as of the time when it was told: late ones gain
less, which does not matter to PARSEC, as it only compares the children of a step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.search.contract import Info, State, Strategy, count_failed
from parsec.search.front import directions, gains, lengths, scored

# A front may take up a few degrees only.
_DIRECTIONS = 512


class ImprovementState(NamedTuple):
    """The strategy within, and the front.

    Attributes:
      within: the state of the strategy of one objective.
      reached: the largest length told so far in each direction, float32 [D].
    """

    within: State
    reached: jax.Array


def adapt(strategy: Strategy, domain: Domain, objectives: int) -> Strategy:
    """Returns the strategy, told improvements of the hypervolume in its first and only column."""
    del domain
    along = directions(objectives, _DIRECTIONS)

    def init(key: jax.Array) -> ImprovementState:
        return ImprovementState(strategy.init(key), jnp.zeros(len(along), jnp.float32))

    def ask(key: jax.Array, state: ImprovementState) -> tuple[ArrayLike, ImprovementState]:
        architectures, within = strategy.ask(key, state.within)
        return architectures, state._replace(within=within)

    def tell(state: ImprovementState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ImprovementState, Info]:
        told = jnp.asarray(scores)
        length = lengths(told, along)
        gain = jnp.where(scored(told), gains(length, state.reached, objectives), jnp.nan)
        within, info = strategy.tell(state.within, architectures, gain[:, None])
        reached = jnp.maximum(state.reached, length.max(0))
        return ImprovementState(within, reached), info | {"failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, strategy.jittable)
