"""MONAS: a policy gradient whose reward is a mixture of accuracy and cost, or accuracy under a constraint.

Hsu et al. 2018, "MONAS: multi-objective neural architecture search using reinforcement learning" (arXiv 1806.10332):
alpha * accuracy - (1 - alpha) * cost, both scaled to [0, 1]; accuracy where the cost is below a limit, else nothing; or
the cost's saving where the accuracy is above a floor. A reward of nothing teaches nothing as long as nothing fits, so
that there is a soft limit too, in the manner of MnasNet (Tan et al. 2019, arXiv 1807.11626): accuracy times
(limit / cost)^w beyond the limit.

The first objective is the accuracy; the others are costs, whose scaled cost is 1 minus the score they are told as: 0
at the ideal, 1 at the reference point. The policy is REINFORCE's factorised one, with its moving average as a baseline,
or by `policy=lstm` the paper's controller.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, State, Strategy
from parsec.search.controller import lstm_policy
from parsec.search.front import largest_cost
from parsec.search.reinforce import Policy, factorised, follow


def _mixed(accuracy: jax.Array, cost: jax.Array, settings: "Settings") -> jax.Array:
    return settings.alpha * accuracy - (1 - settings.alpha) * cost


def _cost_limit(accuracy: jax.Array, cost: jax.Array, settings: "Settings") -> jax.Array:
    return jnp.where(cost < settings.limit, accuracy, 0.0)


def _soft_limit(accuracy: jax.Array, cost: jax.Array, settings: "Settings") -> jax.Array:
    return accuracy * jnp.minimum(1.0, settings.limit / jnp.maximum(cost, 1e-6)) ** settings.exponent


def _accuracy_floor(accuracy: jax.Array, cost: jax.Array, settings: "Settings") -> jax.Array:
    return jnp.where(accuracy >= settings.floor, 1 - cost, 0.0)


# `reward(accuracy float32 [B], scaled cost float32 [B], settings) -> float32 [B]`.
REWARDS: dict[str, Callable[[jax.Array, jax.Array, "Settings"], jax.Array]] = {
    "mixed": _mixed,
    "cost_limit": _cost_limit,
    "soft_limit": _soft_limit,
    "accuracy_floor": _accuracy_floor,
}
# `policy(domain, settings)`.
POLICIES: dict[str, Callable[[Domain, "Settings"], Policy]] = {
    "factorised": lambda domain, settings: factorised(domain),
    "lstm": lambda domain, settings: lstm_policy(domain, settings.units),
}


@dataclass(frozen=True)
class Settings:
    """The options of MONAS; accuracies and costs are scaled, see the module. `PRESETS` has the published rate."""

    reward: str = option("mixed", "which reward", choices=REWARDS)
    alpha: float = option(0.9, "weight of the accuracy in the mixed reward", minimum=0, maximum=1)
    limit: float = option(0.5, "of the largest scaled cost, of cost_limit and soft_limit", minimum=1e-6, maximum=1e6)
    exponent: float = option(1.0, "w of soft_limit", minimum=0, maximum=100)
    floor: float = option(0.9, "of the scaled accuracy, of accuracy_floor", minimum=-1e6, maximum=1e6)
    policy: str = option("factorised", "independent choices, or a controller that remembers them", choices=POLICIES)
    units: int = option(64, "of the controller", minimum=1, maximum=4096)
    learning_rate: float = option(0.01, "of Adam on the policy", minimum=1e-9, maximum=1000)
    momentum: float = option(0.9, "of the baseline, a moving average of the rewards", minimum=0, maximum=0.9999)


PRESETS = {"default": Settings(), "paper": Settings(alpha=0.5, policy="lstm", learning_rate=0.03)}


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MONAS; one architecture per ask."""
    del objectives
    policy = POLICIES[settings.policy](domain, settings)
    learner = follow(policy, domain, settings.learning_rate, settings.momentum)

    def tell(state: State, architectures: ArrayLike, scores: ArrayLike) -> tuple[State, Info]:
        reward = rewards(scores, settings)
        state, info = learner.tell(state, architectures, reward[:, None])
        return state, info | {"reward": reward.mean()}

    return learner._replace(tell=tell)


def rewards(scores: ArrayLike, settings: Settings) -> jax.Array:
    """Returns the reward of scores float32 [B, M], float32 [B]; NaN where an objective is not finite."""
    told = jnp.asarray(scores)
    reward = REWARDS[settings.reward](told[:, 0], largest_cost(told), settings)
    return jnp.where(jnp.isfinite(told).all(1), reward, jnp.nan)
