"""PARSEC as a strategy: a factorised prior that climbs the evidence of the scores it is told.

Casale, Gordon and Fusi, "Probabilistic neural architecture search" (2019, arXiv 1902.05116). There the K children of a
step are weighted by their likelihood on a batch; here an evaluator's score takes the place of the log-likelihood,
l_k = score_k / T, with weights w = softmax(l) and the empirical-Bayes gradient sum_k w_k onehot(a_k) - softmax(logits).

The temperature T. An accuracy is no log-likelihood: its unit is anybody's, and divided by too small a T every weight
falls on one child. T is therefore `temperature` times the spread of the children seen lately (a moving average of their
mean absolute deviation), which makes the strategy blind to the score's unit and anneals T as the prior concentrates.

The prior starts uniform, or where the domain's `initial` says, and a trust term may hold it near to that.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.search.contract import Info, Strategy, count_failed, first_objective, proposed
from parsec.search.factorised import draw_valid

# Share of the old spread kept when a new ask is told.
_SPREAD_MOMENTUM = 0.9


@dataclass(frozen=True)
class Settings:
    """The options of PARSEC. A single child always has weight one, so that nothing would be learnt from it."""

    children: int = option(8, "K, the architectures per ask", minimum=2, maximum=10_000)
    learning_rate: float = option(0.1, "of Adam on the logits", minimum=1e-9, maximum=1000)
    temperature: float = option(
        0.5, "T in units of the children's recent mean absolute deviation", minimum=1e-6, maximum=1e6
    )
    trust_radius: float | None = option(
        None, "strength of the trust term towards the initial prior: 0 keeps that fixed, inf (none) is free", minimum=0
    )


class ParsecState(NamedTuple):
    """The prior and what its update needs.

    Attributes:
      prior: its logits, float32 [L, max(sizes)], Adam's moments, and with a trust term the initial logits.
      spread: uncorrected moving average of the children's mean absolute deviation, float32 [].
      weight: the sum of that average's weights, float32 [].
    """

    prior: prior.PriorState
    spread: jax.Array
    weight: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns PARSEC with a fixed sample budget; `children` architectures per ask.

    In a domain with invalid combinations the prior is conditioned on validity.
    """
    draw = draw_valid(domain)
    update = make_update(domain, settings.learning_rate, settings.trust_radius)

    def init(key: jax.Array) -> ParsecState:
        del key
        return initial(domain, update)

    def ask(key: jax.Array, state: ParsecState) -> tuple[jax.Array, ParsecState]:
        return draw(key, state.prior.logits, settings.children), state

    def tell(state: ParsecState, architectures: ArrayLike, scores: ArrayLike) -> tuple[ParsecState, Info]:
        return learn(state, architectures, scores, domain.mask, update, settings.temperature)

    return Strategy(init, ask, tell, domain.jittable)


def make_update(domain: Domain, learning_rate: float, trust_radius: float | None) -> prior.PriorUpdate:
    """Returns Adam on the logits, with the trust term of `parsec.prior.update.trust_initial`."""
    return prior.trust_initial(prior.adam_update(domain.mask, learning_rate), learning_rate, trust_radius)


def initial(domain: Domain, update: prior.PriorUpdate) -> ParsecState:
    """Returns the state of the domain's initial prior, uniform where it has none."""
    zero = jnp.zeros((), jnp.float32)
    logits = np.zeros(domain.mask.shape, np.float32) if domain.initial is None else domain.initial
    return ParsecState(update.init(logits), zero, zero)


def learn(
    state: ParsecState,
    architectures: ArrayLike,
    scores: ArrayLike,
    mask: np.ndarray,
    update: prior.PriorUpdate,
    temperature: float,
) -> tuple[ParsecState, Info]:
    """Takes one empirical-Bayes step.

    Failed children and rows of -1 have weight zero; with fewer than two scored children nothing is learnt.

    Args:
      state: the prior so far.
      architectures: int32 [K, L].
      scores: float32 [K, M]; the first column is used.
      mask: which options exist, bool [L, max(sizes)].
      update: of the prior.
      temperature: in units of the children's recent mean absolute deviation.

    Returns:
      The new state and the effective sample size, the prior's entropy in nats and the count of failed children.
    """
    architectures, told = jnp.asarray(architectures), first_objective(scores)
    scored = proposed(architectures) & jnp.isfinite(told)
    count = jnp.maximum(scored.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    # Centring first keeps float32's digits for the differences, which are all that matters.
    told = jnp.where(scored, told, 0.0)
    centred = jnp.where(scored, told - told.sum() / count, 0.0)
    spread = _SPREAD_MOMENTUM * state.spread + (1 - _SPREAD_MOMENTUM) * jnp.abs(centred).sum() / count
    weight = _SPREAD_MOMENTUM * state.weight + (1 - _SPREAD_MOMENTUM)
    scale = temperature * jnp.maximum(spread / weight, 1e-12)
    # A single scored child has weight one whatever it is, so nothing can be learnt from it.
    enough = scored.sum(dtype=jnp.int32) >= 2
    weights = prior.importance_weights(centred / scale, scored & enough)
    learnt = update.update(state.prior, architectures, weights)
    state = ParsecState(
        learnt,
        jnp.where(enough, spread, state.spread),
        jnp.where(enough, weight, state.weight),
    )
    info = {
        "ess": prior.effective_sample_size(weights),
        "entropy": prior.entropy(learnt.logits, mask),
        "failed": count_failed(architectures, scores),
    }
    return state, info
