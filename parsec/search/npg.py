"""NPG: a policy gradient under a reward that moves, so that one run walks along the whole front.

"Multi-objective neural architecture search via non-stationary policy gradient" (NPG-NAS, arXiv 2001.08437): the reward
is either a desirability of accuracy and cost whose target for the cost is annealed from one end of the front to the
other (ADF), or asks whether anything known dominates the architecture (ADC); the policy explores by a temperature
under a cosine with warm restarts (Loshchilov and Hutter 2017, arXiv 1608.03983).

The paper's formulas and constants are not public in the form of code; these are ours:
- policy: softmax of the logits divided by tau, from `hottest` to 1 under a cosine over `stage` tellings, again and
  again.
- gradient: a score outlives its reward, so all that is remembered is rewarded anew at every telling and weighted by
  the policy's own probabilities, which makes it the exact gradient on what has been seen, with the weighted mean as the
  baseline. An entropy bonus keeps the policy open.
- ADF: in stage k of `stages` the cost's target T lies at the fraction k / (stages - 1) between the least and the
  largest cost seen; the reward is the accuracy times the desirability of the cost (Derringer and Suich 1980, Journal
  of Quality Technology 12, 214-219): 1 up to T, and from there ((largest - cost) / (largest - T))^w.
- ADC: 1 for what nothing told so far dominates, and else minus the share of the front that dominates it. The front is
  remembered by itself, up to 128 scores of it.
The first objective is the accuracy, the largest of the others' scaled costs (1 minus the score) the cost. On a table
there is no shared model to be fine-tuned as it goes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.prior.categorical import one_hot
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.factorised import draw_valid
from parsec.search.front import dominates, largest_cost, scored
from parsec.search.told import Told, nothing_told, remember

# Non-dominated scores that ADC compares with; beyond that, new ones are rewarded and join no front.
_ARCHIVE = 128


@dataclass(frozen=True)
class Settings:
    """The options of NPG."""

    reward: str = option("adc", "which reward, see the module", choices=("adf", "adc"))
    learning_rate: float = option(0.1, "of Adam on the logits", minimum=1e-9, maximum=1000)
    hottest: float = option(2.0, "temperature at each restart; it ends at 1", minimum=1, maximum=1e6)
    stage: int = option(20, "tellings from a restart of the temperature to the next", minimum=2, maximum=1_000_000)
    stages: int = option(10, "targets of ADF along the front, one a stage, over and over", minimum=2, maximum=10_000)
    exponent: float = option(0.1, "w of ADF's desirability", minimum=0, maximum=100)
    entropy: float = option(0.2, "weight of the entropy's gradient", minimum=0, maximum=1000)
    capacity: int = option(256, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


PRESETS = {"adc": Settings(), "adf": Settings(reward="adf", entropy=0.02)}


class NpgState(NamedTuple):
    """The policy.

    Attributes:
      logits: float32 [L, max(sizes)].
      optimizer: Adam's moments.
      told: what is remembered.
      front: non-dominated scores of all told, float32 [A, M]; NaN where there is none.
      tellings: so far, int32 [].
    """

    logits: jax.Array
    optimizer: optax.OptState
    told: Told
    front: jax.Array
    tellings: jax.Array


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns NPG on a factorised policy; one architecture per ask.

    In a domain with invalid combinations the policy is conditioned on validity.
    """
    mask, draw, adam = domain.mask, draw_valid(domain), optax.adam(settings.learning_rate)
    rewards = REWARDS[settings.reward]

    def init(key: jax.Array) -> NpgState:
        logits = 1e-3 * jax.random.normal(key, mask.shape)
        told = nothing_told(settings.capacity, len(domain.sizes), objectives)
        front = jnp.full((_ARCHIVE, objectives), jnp.nan, jnp.float32)
        return NpgState(logits, adam.init(logits), told, front, jnp.zeros((), jnp.int32))

    def ask(key: jax.Array, state: NpgState) -> tuple[jax.Array, NpgState]:
        return draw(key, state.logits / _temperature(state.tellings, settings), 1), state

    def tell(state: NpgState, architectures: ArrayLike, scores: ArrayLike) -> tuple[NpgState, Info]:
        told = remember(state.told, jnp.asarray(architectures), jnp.asarray(scores))
        front = _extend(state.front, jnp.asarray(scores)[0])
        tau = _temperature(state.tellings, settings)
        reward = rewards(told.scores, front, state.tellings, settings)
        gradient = policy_gradient(state.logits / tau, mask, told, reward, settings.entropy) / tau
        # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer = adam.update(-gradient, state.optimizer)
        logits = state.logits + jnp.asarray(updates)
        info = {"temperature": tau, "failed": count_failed(architectures, scores)}
        return NpgState(logits, optimizer, told, front, state.tellings + 1), info

    return Strategy(init, ask, tell, domain.jittable)


def policy_gradient(logits: jax.Array, mask: ArrayLike, told: Told, reward: jax.Array, entropy: float) -> jax.Array:
    """Returns the gradient by the logits, float32 [L, max(sizes)], of the expected reward and the entropy's bonus.

    Args:
      logits: of the policy, float32 [L, max(sizes)].
      mask: which options exist, bool [L, max(sizes)].
      told: what is remembered, C architectures; the expectation is under the policy conditioned on being one of them.
      reward: of each, float32 [C]; NaN where there is none.
      entropy: weight of the policy's entropy.
    """
    there = jnp.isfinite(reward)
    reward = jnp.where(there, reward, 0.0)
    architectures = jnp.maximum(told.architectures, 0)
    share = prior.probabilities(logits, mask)
    weights = prior.importance_weights(prior.log_probability(logits, mask, architectures), there)
    advantage = reward - (weights * reward).sum()
    chosen = one_hot(architectures, mask)
    climb = jnp.einsum("n,nlo->lo", weights * advantage, chosen - share[None])
    log_share = jnp.where(share > 0, jnp.log(jnp.maximum(share, 1e-30)), 0.0)
    spread = -share * (log_share - (share * log_share).sum(1, keepdims=True))
    return climb + entropy * spread


def _temperature(tellings: jax.Array, settings: Settings) -> jax.Array:
    phase = (tellings % settings.stage).astype(jnp.float32) / float(settings.stage)
    return 1 + 0.5 * (settings.hottest - 1) * (1 + jnp.cos(jnp.pi * phase))


def _extend(front: jax.Array, told: jax.Array) -> jax.Array:
    """Returns the front with one more score, float32 [M]."""
    worse = dominates(told[None], front)[0]
    front = jnp.where(worse[:, None], jnp.nan, front)
    kept = scored(front)
    beaten = (kept[:, None] & (front >= told[None])).all(1).any() | ~jnp.isfinite(told).all()
    free = jnp.argmin(kept)
    return front.at[free].set(jnp.where(beaten | kept[free], front[free], told))


def _adf(scores: jax.Array, front: jax.Array, tellings: jax.Array, settings: Settings) -> jax.Array:
    del front
    there = scored(scores)
    cost = largest_cost(scores)
    least, largest = jnp.where(there, cost, jnp.inf).min(), jnp.where(there, cost, -jnp.inf).max()
    stage = (tellings // settings.stage % settings.stages).astype(jnp.float32)
    last = float(settings.stages - 1)
    # In the last stage all are within it, whatever rounding says.
    target = jnp.where(stage == last, largest, least + (largest - least) * stage / last)
    left = (largest - cost) / jnp.maximum(largest - target, 1e-6)
    desired = jnp.where(cost <= target, 1.0, jnp.clip(left, 0.0, 1.0) ** settings.exponent)
    return jnp.where(there, scores[:, 0] * desired, jnp.nan)


def _adc(scores: jax.Array, front: jax.Array, tellings: jax.Array, settings: Settings) -> jax.Array:
    del tellings, settings
    beaten = dominates(front, scores).sum(0, dtype=jnp.int32).astype(jnp.float32)
    members = jnp.maximum(scored(front).sum(dtype=jnp.int32), 1).astype(jnp.float32)
    return jnp.where(scored(scores), jnp.where(beaten > 0, -beaten / members, 1.0), jnp.nan)


# `rewards(scores float32 [C, M], front float32 [A, M], tellings, settings) -> float32 [C]`.
REWARDS: dict[str, Callable[[jax.Array, jax.Array, jax.Array, Settings], jax.Array]] = {"adf": _adf, "adc": _adc}
