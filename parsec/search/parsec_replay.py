"""PARSEC with replay: the prior that all children so far make, weighted anew at every step; or one for each direction.

PARSEC (Casale, Gordon and Fusi 2019, arXiv 1902.05116) climbs the evidence of the children of a step, whose gradient is
sum_k w_k onehot(a_k) - pi with w = softmax(l), and forgets them. Here the children of all steps are weighted, and the
prior is the one at which that gradient vanishes under a Dirichlet: pi ~ S sum_k w_k onehot(a_k) + alpha, S being the
weights' effective sample size. The likelihood's temperature is the lowest at which S is what the
options ask for, so that neither its unit nor the number of children matters.

With several objectives the likelihood is how far a child reaches along a direction of the front, drawn at random for
each child of an ask (`parsec.search.front`; ParEGO's way: Knowles 2006, IEEE Transactions on Evolutionary Computation
10, 50-66). So one set of children serves all directions, where a single prior settles on one part of the front.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.prior.categorical import one_hot
from parsec.prior.importance import cooling, effective_sample_size, importance_weights
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.factorised import draw_each
from parsec.search.front import directions, reach, scored
from parsec.search.told import Told, nothing_told, remember

# Log-likelihood between the best child and one that is a mean gap behind, at the lowest temperature.
_SHARPEST = 1e4
# Of an option that a carried prior has excluded.
_LEAST = 1e-30


@dataclass(frozen=True)
class Settings:
    """The options of PARSEC with replay."""

    children: int = option(8, "K, the architectures per ask", minimum=1, maximum=1000)
    initial: int = option(32, "samples of the initial prior before anything is learnt", minimum=2, maximum=1_000_000)
    ess: float = option(8.0, "S, the effective sample size of the children's weights", minimum=1, maximum=10_000)
    smoothing: float = option(
        0.2,
        "alpha, of the Dirichlet: children that each option has had besides, in the mean",
        minimum=1e-6,
        maximum=1e6,
    )
    capacity: int = option(512, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns PARSEC with replay; `children` architectures per ask.

    Where the domain brings a prior and there is one objective, the Dirichlet is of that prior. In a domain with invalid
    combinations the prior is conditioned on validity.

    Raises:
      UserError: if `capacity` is below `children`.
    """
    children, capacity, mask = settings.children, settings.capacity, jnp.asarray(domain.mask)
    if capacity < children:
        name = "parsec_replay" if objectives == 1 else "parsec_pareto"
        raise UserError(f"{name}.capacity={capacity} is out of range; it must be at least children={children}")
    draw, along = draw_each(domain), jnp.asarray(directions(objectives))
    initial = None if domain.initial is None or objectives > 1 else jnp.asarray(domain.initial)
    share = prior.probabilities(jnp.zeros(mask.shape) if initial is None else initial, mask)
    dirichlet = settings.smoothing * mask.sum(1, keepdims=True).astype(jnp.float32) * share

    def init(key: jax.Array) -> Told:
        del key
        return nothing_told(capacity, len(domain.sizes), objectives)

    def ask(key: jax.Array, state: Told) -> tuple[jax.Array, Told]:
        fresh, ways, draws = jax.random.split(key, 3)
        if initial is None:
            first = jnp.asarray(domain.sample(fresh, children))
        else:
            first = draw(fresh, jnp.broadcast_to(initial, (children, *mask.shape)))
        # Of one objective there is one direction, and one prior for all children.
        chosen = along if len(along) == 1 else along[jax.random.randint(ways, (children,), 0, len(along))]
        priors = jax.vmap(lambda way: prior_along(state, way, settings.ess, mask, dirichlet))(chosen)
        drawn = draw(draws, jnp.broadcast_to(priors, (children, *mask.shape)))
        # With every score failed, there is nothing to be learnt from.
        ready = (state.asked >= settings.initial) & (scored(state.scores).sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, drawn, first), state._replace(asked=state.asked + children)

    def tell(state: Told, architectures: ArrayLike, scores: ArrayLike) -> tuple[Told, Info]:
        state = remember(state, jnp.asarray(architectures), jnp.asarray(scores)[:, :objectives])
        return state, {"failed": count_failed(architectures, scores)}

    def logits(key: jax.Array, state: Told) -> jax.Array:
        del key
        return prior_along(state, along[0], settings.ess, mask, dirichlet)

    return Strategy(init, ask, tell, domain.jittable, logits=logits if objectives == 1 else None)


def prior_along(told: Told, way: jax.Array, ess: float, mask: jax.Array, dirichlet: jax.Array) -> jax.Array:
    """Returns the logits, float32 [L, max(sizes)], of the prior that the children make of a direction.

    Args:
      told: the children and their scores.
      way: the direction, float32 [M].
      ess: the least effective sample size of the children's weights; with fewer children, all weigh the same.
      mask: which options exist, bool [L, max(sizes)].
      dirichlet: children that each option has had besides, float32 [L, max(sizes)].
    """
    there = scored(told.scores)
    far = jnp.where(there, reach(told.scores, way), jnp.nan)
    gap = jnp.where(there, jnp.nanmax(far) - far, 0.0)
    # In units of their geometric mean, lest a single diverged network make all others look alike.
    behind = gap > 0
    mean = jnp.where(behind, jnp.log(jnp.where(behind, gap, 1.0)), 0.0).sum()
    unit = jnp.exp(mean / jnp.maximum(behind.sum(dtype=jnp.int32), 1).astype(jnp.float32))
    likelihood = jnp.where(there, -_SHARPEST * gap / unit, -jnp.inf)
    count = there.sum(dtype=jnp.int32).astype(jnp.float32)
    likelihood = likelihood * cooling(likelihood, jnp.minimum(ess, count), there)
    weights = importance_weights(likelihood, there)
    chosen = one_hot(jnp.maximum(told.architectures, 0), mask)
    met = effective_sample_size(weights) * jnp.einsum("n,nlo->lo", weights, chosen)
    return jnp.where(mask, jnp.log(jnp.maximum(met + dirichlet, _LEAST)), 0.0)
