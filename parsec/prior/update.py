"""Updates of the prior by the empirical-Bayes gradient, and the number of children that estimate it.

For logits theta with pi = softmax(theta), the gradient of log p(y | theta) is estimated as
sum_k w_k grad log p(a_k | theta) = sum_k w_k onehot(a_k) - pi (Casale, Gordon, Fusi 2019, arXiv 1902.05116). It is
climbed by Adam, or by the natural gradient: a step of pi toward the weighted frequencies, the M-step of
expectation-maximisation taken in part. A prior that was carried over from another search may be held near to what it
was by a trust term, -KL(pi || initial) / radius, beside the evidence. The adaptive budget is FP-NAS's (Yan et al. 2021,
arXiv 2011.10949).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from parsec.prior.categorical import ArrayLike, entropy, one_hot, probabilities

# A probability below this is raised to it: an option that is hardly ever drawn must stay possible.
_LEAST_PROBABILITY = 1e-6


class PriorState(NamedTuple):
    """The prior's logits float32 [L, O], and the state of what updates them."""

    logits: jax.Array
    optimizer: Any


class PriorUpdate(NamedTuple):
    """How a prior learns.

    Attributes:
      init: `init(logits) -> PriorState`.
      update: `update(state, architectures int32 [K, L], weights float32 [K]) -> PriorState`; weights that are all zero
        leave the state as it was.
    """

    init: Callable[[ArrayLike], PriorState]
    update: Callable[[PriorState, jax.Array, jax.Array], PriorState]


def empirical_bayes_gradient(
    logits: ArrayLike, mask: ArrayLike, architectures: ArrayLike, weights: jax.Array
) -> jax.Array:
    """Returns the estimated gradient of log p(y | logits), float32 [L, O]; zero where masked, rows sum to zero.

    Args:
      logits: float32 [L, O].
      mask: bool [L, O].
      architectures: int32 [K, L].
      weights: float32 [K]; they sum to one, or to zero, which gives a zero gradient.
    """
    frequencies = jnp.einsum("k,klo->lo", weights, one_hot(architectures, mask))
    return frequencies - weights.sum() * probabilities(logits, mask)


def adam_update(mask: np.ndarray, learning_rate: float, *, b1: float = 0.9, b2: float = 0.999) -> PriorUpdate:
    """Returns the update that climbs the gradient by Adam on the logits."""
    optimizer = optax.adam(learning_rate, b1=b1, b2=b2)

    def init(logits: ArrayLike) -> PriorState:
        return PriorState(jnp.asarray(logits), optimizer.init(jnp.asarray(logits)))

    def update(state: PriorState, architectures: jax.Array, weights: jax.Array) -> PriorState:
        gradient = empirical_bayes_gradient(state.logits, mask, architectures, weights)
        # Optax multiplies Python floats by its int32 step count, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            change, moments = optimizer.update(-gradient, state.optimizer)
        moved = PriorState(state.logits + jnp.asarray(change), moments)
        return jax.tree.map(lambda new, old: jnp.where(weights.sum() > 0, new, old), moved, state)

    return PriorUpdate(init, update)


def natural_update(mask: np.ndarray, step_size: float) -> PriorUpdate:
    """Returns the natural-gradient step pi <- (1 - step_size) pi + step_size * sum_k w_k onehot(a_k).

    Probabilities that end below 1e-6 are raised to it, before each choice is normalised.
    """

    def init(logits: ArrayLike) -> PriorState:
        return PriorState(jnp.asarray(logits), ())

    def update(state: PriorState, architectures: jax.Array, weights: jax.Array) -> PriorState:
        gradient = empirical_bayes_gradient(state.logits, mask, architectures, weights)
        moved = probabilities(state.logits, mask) + step_size * gradient
        logits = jnp.where(jnp.asarray(mask), jnp.log(jnp.maximum(moved, _LEAST_PROBABILITY)), 0.0)
        return PriorState(jnp.where(weights.sum() > 0, logits, state.logits), ())

    return PriorUpdate(init, update)


class Anchored(NamedTuple):
    """The state of an update with a trust term: the inner update's own, and the initial logits, float32 [L, O]."""

    inner: Any
    initial: jax.Array


def trust_initial(update: PriorUpdate, learning_rate: float, radius: float | None) -> PriorUpdate:
    """Returns an update that also climbs -KL(pi || initial) / radius, `initial` being what `init` is given.

    The term is taken by its proximal step, which is exact for any radius (composite mirror descent, Duchi et al. 2010,
    COLT): after the inner step the new prior minimises KL(pi || moved) + learning_rate / radius * KL(pi || initial),
    whose solution is the geometric mean, logits = initial + share * (moved - initial) with
    share = radius / (radius + learning_rate). Adam's steps being about as long as its learning rate, its logits then
    stay within about `radius` of the initial ones.

    Args:
      update: climbs the evidence.
      learning_rate: of that update.
      radius: the trust term's strength, at least 0: 0 leaves the initial logits exactly as they are, None stands for
        infinity and returns the update itself.
    """
    if radius is None:
        return update
    share = radius / (radius + learning_rate) if radius > 0 else 0.0

    def init(logits: ArrayLike) -> PriorState:
        inner = update.init(logits)
        # A copy: whoever donates a state's memory may not be given the same twice.
        return PriorState(inner.logits, Anchored(inner.optimizer, jnp.array(logits)))

    def step(state: PriorState, architectures: jax.Array, weights: jax.Array) -> PriorState:
        inner, initial = state.optimizer
        moved = update.update(PriorState(state.logits, inner), architectures, weights)
        held = initial + share * (moved.logits - initial)
        # Where nothing was learnt nothing is drawn back either.
        return PriorState(jnp.where(weights.sum() > 0, held, state.logits), Anchored(moved.optimizer, initial))

    return PriorUpdate(init, step)


def adaptive_count(logits: ArrayLike, mask: ArrayLike, children_per_nat: float, largest: int) -> jax.Array:
    """Returns K = max(2, ceil(children_per_nat * entropy)), at most `largest`, int32 []."""
    count = jnp.ceil(children_per_nat * entropy(logits, mask)).astype(jnp.int32)
    return jnp.clip(count, 2, largest)
