"""Q-learning over the decisions of an architecture, taken one after another.

In the manner of Baker, Gupta, Naik and Raskar, "Designing neural network architectures using reinforcement learning"
(ICLR 2017, arXiv 1611.02167), the baseline AlphaX compares with: a state is the place of the decision and the option
taken just before it, an epsilon-greedy agent takes the next option, and the score arrives at the end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.errors import UserError
from parsec.search.contract import ArrayLike, Domain, Info, Strategy, count_failed


class QState(NamedTuple):
    """The agent.

    Attributes:
      values: Q(decision, option before, option), float32 [L, max(sizes), max(sizes)]; option 0 stands before the first.
      asked: architectures asked for, int32 [].
      low: lowest score told, float32 [].
      high: highest score told, float32 [].
    """

    values: jax.Array
    asked: jax.Array
    low: jax.Array
    high: jax.Array


def make(
    domain: Domain, *, learning_rate: float = 0.1, epsilon: float = 0.1, anneal: int = 150, trace: float = 1.0
) -> Strategy:
    """Returns tabular Q-learning; one architecture per ask.

    Rewards are scores scaled to [0, 1] by the lowest and highest seen, so that no unit matters; values start at 0.5.
    In a domain with invalid combinations an invalid episode is replaced by a uniform sample, and that one is learnt
    from.

    Args:
      domain: the search space.
      learning_rate: step of the value update, in (0, 1].
      epsilon: final chance of a random option, in [0, 1]; it falls linearly from 1.
      anneal: architectures over which it falls.
      trace: lambda in [0, 1]: a decision's target is lambda times the reward plus 1 - lambda times the best value of
        the next state. At 0 this is one-step Q-learning, which needs as many episodes as there are decisions before the
        first decision hears of a reward: on NAS-Bench-201 it is no better than random search within 200 queries.

    Raises:
      UserError: if an option is out of range.
    """
    if not 0 < learning_rate <= 1 or not 0 <= epsilon <= 1 or anneal < 1 or not 0 <= trace <= 1:
        raise UserError(
            f"options learning_rate, epsilon, anneal and trace of q_learning are {learning_rate}, {epsilon}, {anneal} "
            f"and {trace}; they must lie in (0, 1], in [0, 1], at or above 1 and in [0, 1]"
        )
    mask = jnp.array(domain.mask)
    length, width = mask.shape

    def init(key: jax.Array) -> QState:
        del key
        return QState(
            values=jnp.full((length, width, width), 0.5, jnp.float32),
            asked=jnp.zeros((), jnp.int32),
            low=jnp.array(jnp.inf, jnp.float32),
            high=jnp.array(-jnp.inf, jnp.float32),
        )

    def ask(key: jax.Array, state: QState) -> tuple[jax.Array, QState]:
        spread, ties, rest = jax.random.split(key, 3)
        progress = jnp.minimum(state.asked.astype(jnp.float32) / anneal, 1.0)
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
        score = jnp.asarray(scores)[0, 0]
        scored = jnp.isfinite(score)
        low = jnp.where(scored, jnp.minimum(state.low, score), state.low)
        high = jnp.where(scored, jnp.maximum(state.high, score), state.high)
        reward = jnp.where(high > low, (score - low) / (high - low), 0.5)
        architecture = jnp.asarray(architectures)[0]
        at = jnp.arange(length)
        before = jnp.concatenate([jnp.zeros(1, jnp.int32), architecture[:-1]])
        rate = jnp.where(scored, learning_rate, 0.0)

        def learn(target: jax.Array, decision: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            row, chosen, options = decision
            row = row.at[chosen].add(rate * (target - row[chosen]))
            return jnp.where(options, row, -jnp.inf).max(), row

        # From the last decision to the first, so that one episode's reward reaches all of its decisions.
        value, rows = jax.lax.scan(learn, reward, (state.values[at, before], architecture, mask), reverse=True)
        values = state.values.at[at, before].set(rows)
        info = {"value": value, "failed": count_failed(architectures, scores)}
        return QState(values, state.asked, low, high), info

    return Strategy(init, ask, tell, domain.jittable)
