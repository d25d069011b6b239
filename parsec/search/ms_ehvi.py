"""MS-EHVI: what is expected to add most hypervolume is asked for, by Gaussian processes of the objectives.

The "mixed surrogate expected hypervolume improvement" among the baselines of Izquierdo et al. 2021 (arXiv 2105.01015),
where Ax and BoTorch maximise the expectation for a process of the accuracy and the known function of the size (Daulton,
Balandat and Bakshy 2020, "Differentiable expected hypervolume improvement for parallel multi-objective Bayesian
optimization", arXiv 2006.05078). A strategy of this package is told a cost and not its function, so that the cost has a
process too, which knows a sum over choices all but exactly once a few have been told. The expectation is over joint
draws of the posterior at the architectures at hand (`parsec.search.posterior`), and of a batch each is chosen after
those before it, which count in every draw. What was evaluated is uncertain where scores are noisy, and drawn too (the
same authors' qNEHVI, arXiv 2105.08195). The first architectures are uniform where the paper's are Sobol's.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from parsec.cells.domain import Domain
from parsec.config import option
from parsec.search.contract import Strategy
from parsec.search.front import added, uncrowded
from parsec.search.posterior import AtHand, Reach, posterior_strategy

# Fewer than TSEMO's, since they are looked along in every draw, and the draws differ.
_DIRECTIONS = 64


@dataclass(frozen=True)
class Settings:
    """The options of MS-EHVI; `PRESETS` has the published number of first samples, and one architecture at a time."""

    batch: int = option(4, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(12, "uniform samples before the processes are used", minimum=1, maximum=1_000_000)
    draws: int = option(32, "of the posterior, that the expectation is over", minimum=1, maximum=1000)
    candidates: int = option(200, "mutations at hand, next to half as many uniform samples", minimum=2, maximum=10_000)
    capacity: int = option(256, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


PRESETS = {"default": Settings(), "paper": Settings(batch=1, initial=10)}


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MS-EHVI; `batch` architectures per ask, uniform at first, then new ones as far as such are at hand.

    Raises:
      UserError: if `capacity` is below `batch`.
    """

    def choose(key: jax.Array, hand: AtHand, reach: Reach) -> jax.Array:
        return choose_batch(hand, hand.draw(key, settings.draws), reach, settings.batch, objectives)

    return posterior_strategy("ms_ehvi", domain, settings, objectives, choose, _DIRECTIONS)


def choose_batch(hand: AtHand, draws: jax.Array, reach: Reach, batch: int, objectives: int) -> jax.Array:
    """Returns the rows of the pool of which most is expected, each after those before it, int32 [batch].

    Args:
      hand: what is at hand.
      draws: of its scores, float32 [S, C + P, M].
      reach: how far scores reach.
      batch: rows to choose.
      objectives: M.
    """
    known = len(hand.there)
    evaluated, pooled = draws[:, :known], draws[:, known:]
    # Draw by draw: the lengths of all of them together would be the most memory by far.
    told = jax.lax.map(lambda scores: jnp.where(hand.there[:, None], reach(scores), -jnp.inf).max(0), evaluated)

    def pick(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Picks the next of the batch; the state is who may be, bool [P], and what each draw has reached [S, D]."""
        free, reached = state

        def sum_up(totals: Any, given: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            scores, best = given
            return jax.tree.map(jnp.add, totals, added(reach(scores), best, objectives)), None

        nothing = jnp.zeros(len(hand.pool), jnp.float32)
        (volume, short), _ = jax.lax.scan(sum_up, (nothing, nothing), (pooled, reached))
        chosen = jnp.where(free, uncrowded(volume, short), -jnp.inf).argmax()
        same = (hand.pool == hand.pool[chosen][None]).all(1)
        return (free & ~same, jnp.maximum(reached, reach(pooled[:, chosen]))), chosen

    return jax.lax.scan(pick, (hand.new, told), None, length=batch)[1]
