"""MONAS for a front: policy gradients under mixtures of accuracy and cost, from one end of the front to the other.

Hsu et al. 2018 (arXiv 1806.10332) search once for each weight alpha of the mixed reward alpha * accuracy - (1 - alpha)
* cost, and have a front when all are done. Here a policy for each alpha, evenly from 0 to 1, asks in turn, and all
learn from what any of them was told: scores outlive the policy that asked for them, so that the gradient is the exact
one on what is remembered, as NPG's (`parsec.search.npg`), with an entropy bonus in units of the reward's deviation.
Policies are factorised; `parsec.search.monas` follows one reward, with the paper's gradient and its controller.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.factorised import draw_valid
from parsec.search.front import largest_cost, scored
from parsec.search.npg import policy_gradient
from parsec.search.told import Told, nothing_told, remember, standardise

# Robust deviations beyond which a reward is drawn in, as of a network that diverged.
_FARTHEST = 6.0


@dataclass(frozen=True)
class Settings:
    """The options of MONAS for a front."""

    policies: int = option(4, "with alphas evenly from 0 to 1, in turn", minimum=2, maximum=1000)
    learning_rate: float = option(0.3, "of Adam on the logits", minimum=1e-9, maximum=1000)
    entropy: float = option(0.05, "weight of the entropy's gradient", minimum=0, maximum=1000)
    capacity: int = option(256, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


class MonasState(NamedTuple):
    """The policies, A of them.

    Attributes:
      logits: float32 [A, L, max(sizes)].
      optimizer: Adam's moments, each with A in front.
      told: what is remembered; what was asked for, by A, leaves whose turn it is.
    """

    logits: jax.Array
    optimizer: optax.OptState
    told: Told


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MONAS for a front; one architecture per ask.

    In a domain with invalid combinations the policies are conditioned on validity.
    """
    mask, draw, adam = domain.mask, draw_valid(domain), optax.adam(settings.learning_rate)
    alphas = jnp.linspace(0.0, 1.0, settings.policies)

    def init(key: jax.Array) -> MonasState:
        logits = 1e-3 * jax.random.normal(key, (settings.policies, *mask.shape))
        told = nothing_told(settings.capacity, len(domain.sizes), objectives)
        return MonasState(logits, jax.vmap(adam.init)(logits), told)

    def ask(key: jax.Array, state: MonasState) -> tuple[jax.Array, MonasState]:
        turn = state.told.asked % settings.policies
        return draw(key, state.logits[turn], 1), state._replace(told=state.told._replace(asked=state.told.asked + 1))

    def tell(state: MonasState, architectures: ArrayLike, scores: ArrayLike) -> tuple[MonasState, Info]:
        told = remember(state.told, jnp.asarray(architectures), jnp.asarray(scores))
        # Who asks next learns now, from all that is known by then.
        turn = told.asked % settings.policies
        reward = mixed_rewards(told.scores, alphas[turn])
        gradient = policy_gradient(state.logits[turn], mask, told, reward, settings.entropy)
        moments = jax.tree.map(lambda each: each[turn], state.optimizer)
        # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, moments = adam.update(-gradient, moments)
        logits = state.logits.at[turn].add(jnp.asarray(updates))
        optimizer = jax.tree.map(lambda all_of, one: all_of.at[turn].set(one), state.optimizer, moments)
        return MonasState(logits, optimizer, told), {"failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)


def mixed_rewards(scores: jax.Array, alpha: jax.Array) -> jax.Array:
    """Returns the mixed reward of scores float32 [C, M] in its own deviations, float32 [C]; NaN where there is none."""
    reward = alpha * scores[:, 0] - (1 - alpha) * largest_cost(scores)
    reward = jnp.where(scored(scores), reward, jnp.nan)
    return jnp.where(scored(scores), standardise(reward, _FARTHEST).scores, jnp.nan)
