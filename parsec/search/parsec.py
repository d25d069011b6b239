"""PARSEC as a strategy: a factorised prior that climbs the evidence of the scores it is told.

Casale, Gordon and Fusi, "Probabilistic neural architecture search" (2019, arXiv 1902.05116). There the K children of a
step are weighted by their likelihood on a batch; here an evaluator's score takes the place of the log-likelihood,
l_k = score_k / T, with weights w = softmax(l) and the empirical-Bayes gradient sum_k w_k onehot(a_k) - softmax(logits).

The temperature T. An accuracy is no log-likelihood: its unit is anybody's, and divided by too small a T every weight
falls on one child. T is therefore `temperature` times the spread of the children seen lately (a moving average of their
mean absolute deviation), which makes the strategy blind to the score's unit and anneals T as the prior concentrates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec.errors import UserError
from parsec.search.contract import ArrayLike, Domain, Info, Strategy, count_failed, proposed
from parsec.search.factorised import ascend, draw_valid

# Share of the old spread kept when a new ask is told.
_SPREAD_MOMENTUM = 0.9


class ParsecState(NamedTuple):
    """The prior and what its update needs.

    Attributes:
      logits: float32 [L, max(sizes)].
      optimizer: Adam's moments.
      spread: uncorrected moving average of the children's mean absolute deviation, float32 [].
      weight: the sum of that average's weights, float32 [].
    """

    logits: jax.Array
    optimizer: optax.OptState
    spread: jax.Array
    weight: jax.Array


def make(domain: Domain, *, children: int = 8, learning_rate: float = 0.1, temperature: float = 0.5) -> Strategy:
    """Returns PARSEC with a fixed sample budget; `children` architectures per ask.

    Args:
      domain: the search space; in one with invalid combinations the prior is conditioned on validity.
      children: K, at least 2, because a single child always has weight one and nothing is learnt.
      learning_rate: of Adam on the logits.
      temperature: T in units of the children's recent mean absolute deviation.

    Raises:
      UserError: if an option is out of range.
    """
    check("parsec", learning_rate, temperature)
    if children < 2:
        raise UserError(f"option children of parsec is {children}; it must be at least 2")
    draw = draw_valid(domain)

    def init(key: jax.Array) -> ParsecState:
        del key
        return initial(domain, learning_rate)

    def ask(key: jax.Array, state: ParsecState) -> tuple[jax.Array, ParsecState]:
        return draw(key, state.logits, children), state

    def tell(state: ParsecState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ParsecState, Info]:
        return learn(state, architectures, scores, domain.mask, learning_rate, temperature)

    return Strategy(init, ask, tell, domain.jittable)


def check(name: str, learning_rate: float, temperature: float) -> None:
    """Raises `UserError` unless the learning rate and the temperature are positive."""
    if learning_rate <= 0 or temperature <= 0:
        raise UserError(
            f"options learning_rate and temperature of {name} are {learning_rate} and {temperature}; "
            "both must be above 0"
        )


def initial(domain: Domain, learning_rate: float) -> ParsecState:
    """Returns the state of a uniform prior."""
    logits = jnp.zeros(domain.mask.shape, jnp.float32)
    zero = jnp.zeros((), jnp.float32)
    return ParsecState(logits, optax.adam(learning_rate).init(logits), zero, zero)


def entropy(logits: jax.Array, mask: np.ndarray) -> jax.Array:
    """Returns the entropy of the factorised prior in nats, float32 []; logits float32 [L, max(sizes)], mask alike."""
    logp = jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf), axis=-1)
    return -jnp.where(mask, jnp.exp(logp) * logp, 0.0).sum()


def learn(
    state: ParsecState,
    architectures: ArrayLike,
    scores: ArrayLike,
    mask: np.ndarray,
    learning_rate: float,
    temperature: float,
) -> tuple[ParsecState, Info]:
    """Takes one empirical-Bayes step.

    Failed children and rows of -1 have weight zero; with fewer than two scored children nothing is learnt.

    Args:
      state: the prior so far.
      architectures: int32 [K, L].
      scores: float32 [K, M]; the first column is used.
      mask: which options exist, bool [L, max(sizes)].
      learning_rate: of Adam on the logits.
      temperature: in units of the children's recent mean absolute deviation.

    Returns:
      The new state and the effective sample size, the prior's entropy in nats and the count of failed children.
    """
    architectures, told = jnp.asarray(architectures), jnp.asarray(scores)[:, 0]
    scored = proposed(architectures) & jnp.isfinite(told)
    count = jnp.maximum(scored.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    # Centring first keeps float32's digits for the differences, which are all that matters.
    told = jnp.where(scored, told, 0.0)
    centred = jnp.where(scored, told - told.sum() / count, 0.0)
    spread = _SPREAD_MOMENTUM * state.spread + (1 - _SPREAD_MOMENTUM) * jnp.abs(centred).sum() / count
    weight = _SPREAD_MOMENTUM * state.weight + (1 - _SPREAD_MOMENTUM)
    scale = temperature * jnp.maximum(spread / weight, 1e-12)
    weights = jax.nn.softmax(jnp.where(scored, centred / scale, -1e30))

    prior = jax.nn.softmax(jnp.where(mask, state.logits, -jnp.inf), axis=-1)
    chosen = jax.nn.one_hot(architectures, mask.shape[1], dtype=jnp.float32)
    gradient = jnp.einsum("k,klo->lo", weights, chosen) - prior
    logits, optimizer = ascend(gradient, state.logits, state.optimizer, learning_rate)
    learnt = ParsecState(logits, optimizer, spread, weight)
    enough = scored.sum(dtype=jnp.int32) >= 2
    state = jax.tree.map(lambda new, old: jnp.where(enough, new, old), learnt, state)
    info = {
        "ess": 1 / jnp.square(weights).sum(),
        "entropy": entropy(state.logits, mask),
        "failed": count_failed(architectures, scores),
    }
    return state, info
