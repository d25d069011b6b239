"""REINFORCE: a policy over architectures trained by the score-function gradient (Williams 1992).

The factorised policy and the constants are those of the NAS-Bench-201 baseline (Dong and Yang, ICLR 2020): logits from
1e-3 N(0, 1), Adam at 0.01, and as baseline a bias-corrected moving average of the rewards, the present one included.
Any other policy takes its place in `follow`; `parsec.search.controller` has an LSTM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.factorised import draw_valid

# The parameters of a policy.
Params = Any


@dataclass(frozen=True)
class Settings:
    """The options of REINFORCE."""

    learning_rate: float = option(0.01, "of Adam on the logits", minimum=1e-9, maximum=1000)
    momentum: float = option(0.9, "of the baseline, a moving average of the rewards", minimum=0, maximum=0.9999)


class Policy(NamedTuple):
    """A distribution over architectures whose parameters are learnt.

    Attributes:
      init: `init(key) -> params`.
      draw: `draw(key, params) -> int32 [1, L]`, a valid architecture.
      score: `score(params, architecture int32 [L])`: the gradient of its log-probability, like the parameters.
    """

    init: Callable[[jax.Array], Params]
    draw: Callable[[jax.Array, Params], jax.Array]
    score: Callable[[Params, jax.Array], Params]


class ReinforceState(NamedTuple):
    """What has been learnt.

    Attributes:
      params: of the policy; of the factorised one its logits, float32 [L, max(sizes)].
      optimizer: Adam's moments.
      average: uncorrected moving average of the rewards, float32 [].
      weight: the sum of the average's weights, float32 [].
    """

    params: Params
    optimizer: optax.OptState
    average: jax.Array
    weight: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns REINFORCE on a factorised softmax; one architecture per ask.

    In a domain with invalid combinations the policy is conditioned on validity.
    """
    return follow(factorised(domain), domain, settings.learning_rate, settings.momentum)


def factorised(domain: Domain) -> Policy:
    """Returns the policy of independent categoricals."""
    mask, draw = domain.mask, draw_valid(domain)

    def score(logits: jax.Array, architecture: jax.Array) -> jax.Array:
        chosen = jax.nn.one_hot(architecture, mask.shape[1], dtype=jnp.float32)
        return chosen - prior.probabilities(logits, mask)

    return Policy(
        init=lambda key: 1e-3 * jax.random.normal(key, mask.shape),
        draw=lambda key, logits: draw(key, logits, 1),
        score=score,
    )


def follow(policy: Policy, domain: Domain, learning_rate: float, momentum: float) -> Strategy:
    """Returns REINFORCE on a policy; one architecture per ask.

    Args:
      policy: see `Policy`.
      domain: of the architectures.
      learning_rate: of Adam on its parameters.
      momentum: of the baseline.
    """
    adam = optax.adam(learning_rate)

    def init(key: jax.Array) -> ReinforceState:
        params, zero = policy.init(key), jnp.zeros((), jnp.float32)
        return ReinforceState(params, adam.init(params), zero, zero)

    def ask(key: jax.Array, state: ReinforceState) -> tuple[jax.Array, ReinforceState]:
        return policy.draw(key, state.params), state

    def tell(state: ReinforceState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ReinforceState, Info]:
        reward = first_objective(scores)[0]
        scored = jnp.isfinite(reward)
        average = momentum * state.average + (1 - momentum) * reward
        weight = momentum * state.weight + (1 - momentum)
        advantage = jnp.where(scored, reward - average / weight, 0.0)
        score = policy.score(state.params, jnp.asarray(architectures)[0])
        # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer = adam.update(jax.tree.map(lambda each: -advantage * each, score), state.optimizer)
        params = jax.tree.map(lambda old, update: old + jnp.asarray(update), state.params, updates)
        learnt = ReinforceState(params, optimizer, average, weight)
        state = jax.tree.map(lambda new, old: jnp.where(scored, new, old), learnt, state)
        return state, {"advantage": advantage, "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)
