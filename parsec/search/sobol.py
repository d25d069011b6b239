"""Quasi-random sampling: Sobol's sequence, which covers a space more evenly than independent draws.

Sobol' 1967, USSR Computational Mathematics and Mathematical Physics 7, 86-112; the random baseline of Izquierdo et al.
2021 (arXiv 2105.01015). Each run shifts the sequence by a random vector, round the torus (Cranley and Patterson 1976,
SIAM Journal on Numerical Analysis 13, 904-914). Scores are not read.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from scipy.stats import qmc

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed

# 2 to this many points before the sequence is shifted anew.
_POINTS = 12


@dataclass(frozen=True)
class Settings:
    """The options of Sobol's sequence."""

    batch: int = option(1, "architectures per ask", minimum=1, maximum=10_000)


class SobolState(NamedTuple):
    """Where the sequence stands.

    Attributes:
      shift: of this run, float32 [L].
      asked: points taken, int32 [].
    """

    shift: jax.Array
    asked: jax.Array


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns Sobol's sequence; a point that is no valid architecture is replaced by a uniform sample."""
    del objectives
    sizes = jnp.array(domain.sizes, jnp.int32)
    points = jnp.asarray(qmc.Sobol(len(domain.sizes), scramble=False).random_base2(_POINTS), jnp.float32)

    def init(key: jax.Array) -> SobolState:
        return SobolState(jax.random.uniform(key, sizes.shape), jnp.zeros((), jnp.int32))

    def ask(key: jax.Array, state: SobolState) -> tuple[jax.Array, SobolState]:
        fresh, again = jax.random.split(key)
        # A sequence that is used up begins again elsewhere.
        at = state.asked + jnp.arange(settings.batch + 1, dtype=jnp.int32)
        over = at // len(points) > state.asked // len(points)
        shift = jnp.where(over[:, None], jax.random.uniform(again, sizes.shape)[None], state.shift[None])
        place = (points[at[:-1] % len(points)] + shift[:-1]) % 1.0 * sizes.astype(jnp.float32)[None]
        drawn = jnp.minimum(place.astype(jnp.int32), sizes[None] - 1)
        uniform = jnp.asarray(domain.sample(fresh, settings.batch))
        architectures = jnp.where(jnp.asarray(domain.valid(drawn))[:, None], drawn, uniform)
        return architectures, SobolState(shift[-1], at[-1])

    def tell(state: SobolState, architectures: ArrayLike, scores: ArrayLike) -> tuple[SobolState, Info]:
        return state, {"failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)
