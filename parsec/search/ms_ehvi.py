"""MS-EHVI: what is expected to add most hypervolume is asked for, by Gaussian processes of all objectives.

The Bayesian optimisation among the baselines of Izquierdo et al. 2021 (arXiv 2105.01015), where Ax and BoTorch maximise
the expected hypervolume improvement (Daulton, Balandat and Bakshy 2020, "Differentiable expected hypervolume
improvement for parallel multi-objective Bayesian optimization", arXiv 2006.05078). Here the expectation is over joint
draws of the posterior at the architectures at hand (`parsec.search.posterior`), and of a batch each is chosen after
those before it, whose improvements under every draw are taken already, as there. What was evaluated is uncertain where
scores are noisy, and drawn too (their arXiv 2105.08195). A cost that is a sum over choices is known all but exactly
once a few have been told, where the paper is given the function. The first architectures are uniform where the
paper's are Sobol's.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec.cells.domain import Domain
from parsec.config import option
from parsec.search.contract import Strategy
from parsec.search.front import expected_gains
from parsec.search.posterior import AtHand, Reach, posterior_strategy


@dataclass(frozen=True)
class Settings:
    """The options of MS-EHVI; `PRESETS` has the published number of first samples, and one architecture at a time."""

    batch: int = option(4, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(12, "uniform samples before the processes are used", minimum=1, maximum=1_000_000)
    draws: int = option(32, "of the posterior, that the expectation is over", minimum=1, maximum=10_000)
    candidates: int = option(200, "mutations at hand, next to half as many uniform samples", minimum=2, maximum=10_000)
    capacity: int = option(256, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


PRESETS = {"default": Settings(), "paper": Settings(batch=1, initial=10)}


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MS-EHVI; `batch` architectures per ask, uniform at first, then ones that are new as far as it remembers.

    Raises:
      UserError: if `capacity` is below `batch`.
    """

    def choose(key: jax.Array, hand: AtHand, reach: Reach) -> jax.Array:
        known = len(hand.there)
        length = jax.vmap(reach)(hand.draw(key, settings.draws))
        told = jnp.where(hand.there[None, :, None], length[:, :known], -jnp.inf).max(1)
        pooled = length[:, known:]

        def pick(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            """Picks the next of the batch; the state is who may be, bool [P], and what each draw has reached [S, D]."""
            free, reached = state
            chosen = jnp.where(free, expected_gains(pooled, reached, objectives), -jnp.inf).argmax()
            same = (hand.pool == hand.pool[chosen][None]).all(1)
            return (free & ~same, jnp.maximum(reached, pooled[:, chosen])), chosen

        return jax.lax.scan(pick, (hand.new, told), None, length=settings.batch)[1]

    return posterior_strategy(
        domain,
        objectives,
        choose,
        batch=settings.batch,
        initial=settings.initial,
        candidates=settings.candidates,
        capacity=settings.capacity,
    )
