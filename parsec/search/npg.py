"""NPG: a policy gradient under a reward that moves, so that one run walks along the whole front.

"Multi-objective neural architecture search via non-stationary policy gradient" (NPG-NAS, arXiv 2001.08437): the reward
is either a desirability of accuracy and cost whose target for the cost is annealed from one end of the front to the
other (ADF), or asks whether anything known dominates the new architecture (ADC); the policy explores by a temperature
under a cosine with warm restarts (Loshchilov and Hutter 2017, arXiv 1608.03983).

The paper's formulas and constants are not public in the form of code; these are ours:
- policy: softmax of the logits divided by tau, from `hottest` to 1 under a cosine over `stage` tellings, again and
  again; gradients have a moving average of rewards as a baseline and a small bonus for entropy.
- ADF: in stage k of `stages` the cost's target T lies at the fraction k / (stages - 1) between the least and the
  largest cost seen; the reward is the accuracy times the desirability of the cost (Derringer and Suich 1980, Journal
  of Quality Technology 12, 214-219): 1 up to T, and from there ((largest - cost) / (largest - T))^w.
- ADC: 1 for what nothing in the archive of non-dominated scores dominates or equals, 0 for what equals a member, and
  else minus the share of members that dominate it.
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
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.factorised import draw_valid
from parsec.search.front import dominates, scored

# Non-dominated scores remembered by ADC; beyond that, new ones are rewarded but not remembered.
_ARCHIVE = 128


@dataclass(frozen=True)
class Settings:
    """The options of NPG."""

    reward: str = option("adc", "which reward, see the module", choices=("adf", "adc"))
    learning_rate: float = option(0.05, "of Adam on the logits", minimum=1e-9, maximum=1000)
    hottest: float = option(2.0, "temperature at each restart; it ends at 1", minimum=1, maximum=1e6)
    stage: int = option(100, "tellings from a restart of the temperature to the next", minimum=2, maximum=1_000_000)
    stages: int = option(10, "targets of ADF along the front, one a stage, over and over", minimum=2, maximum=10_000)
    exponent: float = option(1.0, "w of ADF's desirability", minimum=0, maximum=100)
    entropy: float = option(1e-3, "weight of the entropy's gradient", minimum=0, maximum=1000)
    momentum: float = option(0.9, "of the baseline, a moving average of the rewards", minimum=0, maximum=0.9999)


PRESETS = {"adc": Settings(), "adf": Settings(reward="adf")}


class Seen(NamedTuple):
    """What the rewards need to know of earlier scores.

    Attributes:
      front: non-dominated scores, float32 [A, M]; NaN where there is none.
      least: of the scaled costs, float32 []; +inf before the first.
      largest: likewise; -inf before the first.
    """

    front: jax.Array
    least: jax.Array
    largest: jax.Array


class NpgState(NamedTuple):
    """The policy.

    Attributes:
      logits: float32 [L, max(sizes)].
      optimizer: Adam's moments.
      average: uncorrected moving average of the rewards, float32 [].
      weight: the sum of the average's weights, float32 [].
      seen: what the rewards need.
      told: tellings so far, int32 [].
    """

    logits: jax.Array
    optimizer: optax.OptState
    average: jax.Array
    weight: jax.Array
    seen: Seen
    told: jax.Array


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns NPG on a factorised policy; one architecture per ask.

    In a domain with invalid combinations the policy is conditioned on validity.
    """
    mask, draw, adam = domain.mask, draw_valid(domain), optax.adam(settings.learning_rate)

    def init(key: jax.Array) -> NpgState:
        logits = 1e-3 * jax.random.normal(key, mask.shape)
        zero, far = jnp.zeros((), jnp.float32), jnp.array(jnp.inf, jnp.float32)
        seen = Seen(jnp.full((_ARCHIVE, objectives), jnp.nan, jnp.float32), far, -far)
        return NpgState(logits, adam.init(logits), zero, zero, seen, jnp.zeros((), jnp.int32))

    def ask(key: jax.Array, state: NpgState) -> tuple[jax.Array, NpgState]:
        return draw(key, state.logits / _temperature(state.told, settings), 1), state

    def tell(state: NpgState, architectures: ArrayLike, scores: ArrayLike) -> tuple[NpgState, Info]:
        told = jnp.asarray(scores)[0]
        tau = _temperature(state.told, settings)
        seen = _extend(state.seen, told)
        reward = _REWARDS[settings.reward](state, seen, told, settings)
        finite = jnp.isfinite(told).all()
        average = settings.momentum * state.average + (1 - settings.momentum) * reward
        weight = settings.momentum * state.weight + (1 - settings.momentum)
        share = prior.probabilities(state.logits / tau, mask)
        chosen = jax.nn.one_hot(jnp.asarray(architectures)[0], mask.shape[1], dtype=jnp.float32)
        # Of log p(architecture), and of the entropy, both of the softmax at this temperature.
        score = (reward - average / weight) * (chosen - share) / tau
        log_share = jnp.where(share > 0, jnp.log(jnp.maximum(share, 1e-30)), 0.0)
        spread = -share * (log_share - (share * log_share).sum(1, keepdims=True)) / tau
        # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer = adam.update(-(score + settings.entropy * spread), state.optimizer)
        learnt = NpgState(state.logits + jnp.asarray(updates), optimizer, average, weight, seen, state.told)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), learnt, state)
        info = {"reward": reward, "temperature": tau, "failed": count_failed(architectures, scores)}
        return kept._replace(told=state.told + 1), info

    return Strategy(init, ask, tell, domain.jittable)


def _temperature(told: jax.Array, settings: Settings) -> jax.Array:
    phase = (told % settings.stage).astype(jnp.float32) / float(settings.stage)
    return 1 + 0.5 * (settings.hottest - 1) * (1 + jnp.cos(jnp.pi * phase))


def _cost(told: jax.Array) -> jax.Array:
    return (1 - told[1:]).max() if told.shape[0] > 1 else jnp.zeros((), jnp.float32)


def _extend(seen: Seen, told: jax.Array) -> Seen:
    """Returns what is known with one more score, float32 [M]."""
    new, cost = told[None], _cost(told)
    worse = dominates(new, seen.front)[0]
    front = jnp.where(worse[:, None], jnp.nan, seen.front)
    kept = scored(front)
    beaten = (kept[:, None] & (front >= new)).all(1).any()
    free = jnp.argmin(kept)
    front = front.at[free].set(jnp.where(beaten | kept[free], front[free], told))
    return Seen(front, jnp.minimum(seen.least, cost), jnp.maximum(seen.largest, cost))


def _adf(state: NpgState, seen: Seen, told: jax.Array, settings: Settings) -> jax.Array:
    stage = (state.told // settings.stage % settings.stages).astype(jnp.float32)
    last = float(settings.stages - 1)
    # In the last stage all are within it, whatever rounding says.
    target = jnp.where(stage == last, seen.largest, seen.least + (seen.largest - seen.least) * stage / last)
    left = (seen.largest - _cost(told)) / jnp.maximum(seen.largest - target, 1e-6)
    return told[0] * jnp.where(_cost(told) <= target, 1.0, jnp.clip(left, 0.0, 1.0) ** settings.exponent)


def _adc(state: NpgState, seen: Seen, told: jax.Array, settings: Settings) -> jax.Array:
    del seen, settings
    front = state.seen.front
    kept = scored(front)
    beaten = dominates(front, told[None])[:, 0].sum(dtype=jnp.int32).astype(jnp.float32)
    equal = (kept[:, None] & (front == told[None])).all(1).any()
    members = jnp.maximum(kept.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    return jnp.where(beaten > 0, -beaten / members, jnp.where(equal, 0.0, 1.0))


_REWARDS: dict[str, Callable[[NpgState, Seen, jax.Array, Settings], jax.Array]] = {"adf": _adf, "adc": _adc}
