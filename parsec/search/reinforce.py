"""REINFORCE: a policy of independent categoricals trained by the score-function gradient (Williams 1992).

The policy and its constants are those of the NAS-Bench-201 baseline (Dong and Yang, ICLR 2020): logits from
1e-3 N(0, 1), Adam at 0.01, and as baseline a bias-corrected moving average of the rewards, the present one included.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.factorised import draw_valid


@dataclass(frozen=True)
class Settings:
    """The options of REINFORCE."""

    learning_rate: float = option(0.01, "of Adam on the logits", minimum=1e-9, maximum=1000)
    momentum: float = option(0.9, "of the baseline, a moving average of the rewards", minimum=0, maximum=0.9999)


class ReinforceState(NamedTuple):
    """The policy.

    Attributes:
      logits: float32 [L, max(sizes)].
      optimizer: Adam's moments.
      average: uncorrected moving average of the rewards, float32 [].
      weight: the sum of the average's weights, float32 [].
    """

    logits: jax.Array
    optimizer: optax.OptState
    average: jax.Array
    weight: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns REINFORCE on a factorised softmax; one architecture per ask.

    In a domain with invalid combinations the policy is conditioned on validity.
    """
    learning_rate, momentum = settings.learning_rate, settings.momentum
    mask = domain.mask
    draw = draw_valid(domain)

    def init(key: jax.Array) -> ReinforceState:
        logits = 1e-3 * jax.random.normal(key, mask.shape)
        zero = jnp.zeros((), jnp.float32)
        return ReinforceState(logits, optax.adam(learning_rate).init(logits), zero, zero)

    def ask(key: jax.Array, state: ReinforceState) -> tuple[jax.Array, ReinforceState]:
        return draw(key, state.logits, 1), state

    def tell(state: ReinforceState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ReinforceState, Info]:
        reward = first_objective(scores)[0]
        scored = jnp.isfinite(reward)
        average = momentum * state.average + (1 - momentum) * reward
        weight = momentum * state.weight + (1 - momentum)
        advantage = jnp.where(scored, reward - average / weight, 0.0)
        # The gradient of log p(architecture) with respect to the logits is onehot(architecture) - p.
        chosen = jax.nn.one_hot(jnp.asarray(architectures)[0], mask.shape[1], dtype=jnp.float32)
        gradient = advantage * (chosen - prior.probabilities(state.logits, mask))
        logits, optimizer = _ascend(gradient, state.logits, state.optimizer, learning_rate)
        learnt = ReinforceState(logits, optimizer, average, weight)
        state = jax.tree.map(lambda new, old: jnp.where(scored, new, old), learnt, state)
        return state, {"advantage": advantage, "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)


def _ascend(
    gradient: jax.Array, logits: jax.Array, optimizer: optax.OptState, learning_rate: float
) -> tuple[jax.Array, optax.OptState]:
    """Returns the logits and Adam's moments after one step up the gradient; gradient and logits float32 [L, O]."""
    # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = optax.adam(learning_rate).update(-gradient, optimizer)
    return logits + jnp.asarray(updates), optimizer
