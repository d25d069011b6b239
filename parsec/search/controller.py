"""An LSTM controller: a policy that takes the decisions one after another and remembers them.

Zoph and Le 2017, "Neural architecture search with reinforcement learning" (arXiv 1611.01578), which MONAS follows (Hsu
et al. 2018, arXiv 1806.10332). A layer of LSTM reads the option that was taken last, and a softmax of its own for each
choice takes the next. Heads start at zero, so that the first architectures are uniform.

A factorised policy settles on one option of each choice by itself; this one can keep two architectures that share no
option, and none of those between them.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import Domain
from parsec.keys import fold
from parsec.search.factorised import DRAWS, first_valid, is_product
from parsec.search.reinforce import Params, Policy


def lstm_policy(domain: Domain, units: int) -> Policy:
    """Returns the policy of an LSTM of so many units; in a domain with invalid combinations conditioned on validity."""
    mask, cell = jnp.asarray(domain.mask), nn.OptimizedLSTMCell(units)
    length, options = domain.mask.shape
    draws = 1 if is_product(domain) else DRAWS

    def init(key: jax.Array) -> Params:
        nothing = jnp.zeros(units, jnp.float32)
        carry = cell.initialize_carry(fold(key, "carry"), (units,))
        return {
            # Of the option taken before; the last row of a choice is what the first reads.
            "taken": jax.random.normal(fold(key, "taken"), (length, options + 1, units)) / np.sqrt(units),
            "cell": cell.init(fold(key, "cell"), carry, nothing),
            "heads": jnp.zeros((length, units, options), jnp.float32),
        }

    def begin(params: Params) -> tuple[Any, jax.Array]:
        return cell.initialize_carry(jax.random.key(0), (units,)), params["taken"][0, options]

    def step(params: Params, carry: Any, read: jax.Array, at: jax.Array) -> tuple[Any, jax.Array]:
        """Returns the carry and the log-probabilities of a choice's options, float32 [O]; read is float32 [units]."""
        carry, out = cell.apply(params["cell"], carry, read)
        return carry, jax.nn.log_softmax(jnp.where(mask[at], out @ params["heads"][at], -jnp.inf))

    def drawn(key: jax.Array, params: Params) -> jax.Array:
        def decide(state: tuple[Any, jax.Array], given: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            at, key = given
            carry, log_share = step(params, *state, at)
            option = jax.random.categorical(key, log_share).astype(jnp.int32)
            return (carry, params["taken"][at, option]), option

        given = jnp.arange(length), jax.random.split(key, length)
        return jax.lax.scan(decide, begin(params), given)[1]

    def draw(key: jax.Array, params: Params) -> jax.Array:
        several = jax.vmap(drawn, (0, None))(jax.random.split(fold(key, "policy"), draws), params)
        return first_valid(fold(key, "domain"), domain, several[None])

    def log_probability(params: Params, architecture: jax.Array) -> jax.Array:
        def decide(state: tuple[Any, jax.Array], given: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
            at, option = given
            carry, log_share = step(params, *state, at)
            return (carry, params["taken"][at, option]), log_share[option]

        return jax.lax.scan(decide, begin(params), (jnp.arange(length), architecture))[1].sum()

    return Policy(init, draw, jax.grad(log_probability))
