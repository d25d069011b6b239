"""Q-learning over the decisions of an architecture, taken one after another.

In the manner of Baker, Gupta, Naik and Raskar, "Designing neural network architectures using reinforcement learning"
(ICLR 2017, arXiv 1611.02167), the baseline AlphaX compares with: a state is the place of the decision and the option
taken just before it, an epsilon-greedy agent takes the next option, and the score arrives at the end.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed, first_objective

# Share of the old averages of the scores kept when a new one is told.
_MOMENTUM = 0.95


@dataclass(frozen=True)
class Settings:
    """The options of Q-learning.

    With `trace` at 0 this is one-step Q-learning, which needs as many episodes as there are decisions before the first
    decision hears of a reward: within 200 queries of NAS-Bench-201 it is no better than random search.
    """

    learning_rate: float = option(0.1, "step of the value update", minimum=1e-9, maximum=1)
    epsilon: float = option(0.1, "final chance of a random option; it falls linearly from 1", minimum=0, maximum=1)
    anneal: int = option(50, "architectures over which it falls", minimum=1, maximum=1_000_000)
    trace: float = option(
        1.0,
        "lambda: a decision's target is lambda times the reward plus 1 - lambda times the best value of the next state",
        minimum=0,
        maximum=1,
    )


class QState(NamedTuple):
    """The agent.

    Attributes:
      values: Q(decision, option before, option), float32 [L, max(sizes), max(sizes)]; option 0 stands before the first.
      asked: architectures asked for, int32 [].
      average: moving average of the scores, uncorrected, float32 [].
      spread: that of their absolute distance from it, uncorrected, float32 [].
      weight: the sum of both averages' weights, float32 [].
    """

    values: jax.Array
    asked: jax.Array
    average: jax.Array
    spread: jax.Array
    weight: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns tabular Q-learning; one architecture per ask.

    A reward is the logistic function of a score's distance from the scores' moving average, in units of their moving
    mean absolute distance, so that neither the unit nor a few broken networks matter; values start at 0.5. In a domain
    with invalid combinations an invalid episode is replaced by a uniform sample, and that one is learnt from.
    """
    epsilon, trace = settings.epsilon, settings.trace
    mask = jnp.array(domain.mask)
    length, width = mask.shape

    def init(key: jax.Array) -> QState:
        del key
        zero = jnp.zeros((), jnp.float32)
        values = jnp.full((length, width, width), 0.5, jnp.float32)
        return QState(values, asked=jnp.zeros((), jnp.int32), average=zero, spread=zero, weight=zero)

    def ask(key: jax.Array, state: QState) -> tuple[jax.Array, QState]:
        spread, ties, rest = jax.random.split(key, 3)
        progress = jnp.minimum(state.asked.astype(jnp.float32) / settings.anneal, 1.0)
        chance = 1 - (1 - epsilon) * progress
        explore = jax.random.uniform(spread, (length,)) < chance
        # Noise far below any difference of values breaks ties evenly.
        greedy = state.values + 1e-6 * jax.random.uniform(ties, state.values.shape)
        uniform = jnp.asarray(domain.sample(rest, 1))[0]

        def decide(before: jax.Array, at: jax.Array) -> tuple[jax.Array, jax.Array]:
            best = jnp.argmax(jnp.where(mask[at], greedy[at, before], -jnp.inf)).astype(jnp.int32)
            option = jnp.where(explore[at], uniform[at], best)
            return option, option

        _, architecture = jax.lax.scan(decide, jnp.zeros((), jnp.int32), jnp.arange(length))
        valid = jnp.asarray(domain.valid(architecture[None, :]))[0]
        return jnp.where(valid, architecture, uniform)[None, :], state._replace(asked=state.asked + 1)

    def tell(state: QState, architectures: ArrayLike, scores: ArrayLike) -> tuple[QState, Info]:
        score = first_objective(scores)[0]
        scored = jnp.isfinite(score)
        weight = jnp.where(scored, _MOMENTUM * state.weight + 1 - _MOMENTUM, state.weight)
        average = jnp.where(scored, _MOMENTUM * state.average + (1 - _MOMENTUM) * score, state.average)
        distance = score - average / jnp.maximum(weight, 1e-12)
        spread = jnp.where(scored, _MOMENTUM * state.spread + (1 - _MOMENTUM) * jnp.abs(distance), state.spread)
        # Below a hundred-thousandth of the score a distance is float32's rounding and says nothing.
        unit = jnp.maximum(spread / jnp.maximum(weight, 1e-12), 1e-5 * jnp.abs(score) + 1e-12)
        reward = jax.nn.sigmoid(distance / unit)
        architecture = jnp.asarray(architectures)[0]
        at = jnp.arange(length)
        before = jnp.concatenate([jnp.zeros(1, jnp.int32), architecture[:-1]])
        best = jnp.where(mask, state.values[at, before], -jnp.inf).max(1)
        # All targets use the values before this episode; the last decision's target is the reward itself.
        target = trace * reward + (1 - trace) * jnp.concatenate([best[1:], reward[None]])
        step = jnp.where(scored, settings.learning_rate * (target - state.values[at, before, architecture]), 0.0)
        values = state.values.at[at, before, architecture].add(step)
        info = {"value": best[0], "failed": count_failed(architectures, scores)}
        return QState(values, state.asked, average, spread, weight), info

    return Strategy(init, ask, tell, domain.jittable)
