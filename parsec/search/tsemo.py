"""TSEMO: Thompson samples of Gaussian processes, one for each objective, have fronts, and these are asked for.

Bradford, Schweidtmann and Lapkin 2018, "Efficient multiobjective optimization employing Gaussian processes, spectral
sampling and a genetic algorithm" (Journal of Global Optimization 71, 407-438). For each architecture of an ask all
objectives are drawn together from their posteriors (`parsec.search.posterior`), and asked for is the one that under
the draw adds most hypervolume to what has been evaluated and asked for. What was evaluated counts as the draw has it,
not as it was told. The draw is of the architectures at hand, so that no spectral samples are needed where the paper's
genetic algorithm wants a function; and nearer to the mean than the posterior is (reshaped, Chapelle and Li 2011,
NeurIPS 24).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec.cells.domain import Domain
from parsec.config import option
from parsec.search.contract import Strategy
from parsec.search.front import gains
from parsec.search.posterior import AtHand, Reach, posterior_strategy

_DIRECTIONS = 256


@dataclass(frozen=True)
class Settings:
    """The options of TSEMO."""

    batch: int = option(8, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(24, "uniform samples before the processes are used", minimum=1, maximum=1_000_000)
    exploration: float = option(
        0.5, "of the posterior's deviation from its mean, how much draws have; 1 is Thompson sampling", minimum=0
    )
    candidates: int = option(200, "mutations drawn, next to half as many uniform samples", minimum=2, maximum=10_000)
    capacity: int = option(256, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns TSEMO; `batch` architectures per ask, uniform at first, then new ones as far as such are at hand.

    Raises:
      UserError: if `capacity` is below `batch`.
    """

    def choose(key: jax.Array, hand: AtHand, reach: Reach) -> jax.Array:
        known = len(hand.there)
        drawn = hand.draw(key, settings.batch, settings.exploration)

        def pick(counts: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Picks for one draw; `counts` bool [C + P] are those evaluated and asked for."""
            length = reach(scores)
            gain = gains(length[known:], jnp.where(counts[:, None], length, -jnp.inf).max(0), objectives)
            chosen = jnp.where(hand.new & ~counts[known:], gain, -jnp.inf).argmax()
            same = (hand.pool == hand.pool[chosen][None]).all(1)
            return counts.at[known:].set(counts[known:] | same), chosen

        counts = jnp.concatenate([hand.there, jnp.zeros(len(hand.pool), bool)])
        return jax.lax.scan(pick, counts, drawn)[1]

    return posterior_strategy("tsemo", domain, settings, objectives, choose, _DIRECTIONS)
