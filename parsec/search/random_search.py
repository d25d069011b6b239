"""Random search, the baseline every strategy has to beat.

Bergstra and Bengio, "Random search for hyper-parameter optimization" (JMLR 2012); Li and Talwalkar, "Random search and
reproducibility for neural architecture search" (UAI 2019).
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
    """The options of random search."""

    batch: int = option(1, "architectures per ask", minimum=1, maximum=10_000)


class RandomState(NamedTuple):
    """What random search keeps: the best score told, float32 []."""

    best: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns uniform sampling, with replacement, of the domain's valid architectures."""

    def init(key: jax.Array) -> RandomState:
        del key
        return RandomState(best=jnp.array(-jnp.inf, jnp.float32))

    def ask(key: jax.Array, state: RandomState) -> tuple[ArrayLike, RandomState]:
        return domain.sample(key, settings.batch), state

    def tell(state: RandomState, architectures: ArrayLike, scores: ArrayLike) -> tuple[RandomState, Info]:
        finite = jnp.nan_to_num(first_objective(scores), nan=-jnp.inf)
        best = jnp.maximum(state.best, finite.max())
        return RandomState(best), {"best": best, "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)
