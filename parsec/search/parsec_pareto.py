"""PARSEC for a front: for each child a direction of the front, and the prior that all children so far make of it.

PARSEC (Casale, Gordon and Fusi 2019, arXiv 1902.05116) climbs the evidence of the children of a step, whose gradient is
sum_k w_k onehot(a_k) - pi with w = softmax(l), and forgets them. Here the children of all steps are weighted anew, by
how far each reaches along a direction drawn at random (`parsec.search.front`, ParEGO's way: Knowles 2006, IEEE
Transactions on Evolutionary Computation 10, 50-66), and the prior is the one at which that gradient vanishes under a
Dirichlet: pi ~ S sum_k w_k onehot(a_k) + alpha, S being the weights' effective sample size. The likelihood's
temperature is the one that gives S, so that neither its unit nor the number of children matters. So one set of children
serves all directions, where a single prior settles on one part of the front.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.prior.categorical import one_hot
from parsec.prior.importance import cooling, effective_sample_size, importance_weights
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.factorised import draw_valid
from parsec.search.front import SLOPE, directions, scored
from parsec.search.told import Told, nothing_told, remember

# Log-likelihood between the best child and the worst at the lowest temperature.
_SHARPEST = 1e4


@dataclass(frozen=True)
class Settings:
    """The options of PARSEC for a front."""

    children: int = option(
        8, "K, the architectures per ask, each along a direction of its own", minimum=1, maximum=1000
    )
    initial: int = option(32, "uniform samples before there are priors", minimum=2, maximum=1_000_000)
    ess: float = option(8.0, "S, the effective sample size of the children's weights", minimum=1, maximum=10_000)
    smoothing: float = option(0.2, "alpha, children that every option has had besides", minimum=1e-6, maximum=1e6)
    capacity: int = option(512, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns PARSEC for a front; `children` architectures per ask.

    In a domain with invalid combinations the priors are conditioned on validity.

    Raises:
      UserError: if `capacity` is below `children`.
    """
    children, capacity, mask = settings.children, settings.capacity, jnp.asarray(domain.mask)
    if capacity < children:
        raise UserError(f"parsec_pareto.capacity={capacity} is out of range; it must be at least children={children}")
    draw, along = draw_valid(domain), jnp.asarray(directions(objectives))

    def init(key: jax.Array) -> Told:
        del key
        return nothing_told(capacity, len(domain.sizes), objectives)

    def ask(key: jax.Array, state: Told) -> tuple[jax.Array, Told]:
        fresh, ways, draws = jax.random.split(key, 3)
        uniform = jnp.asarray(domain.sample(fresh, children))
        ways = along[jax.random.randint(ways, (children,), 0, len(along))]
        logits = jax.vmap(lambda way: prior_along(state, way, mask, settings.ess, settings.smoothing))(ways)
        drawn = jax.vmap(lambda key, logits: draw(key, logits, 1)[0])(jax.random.split(draws, children), logits)
        # With every score failed, there is nothing to be learnt from.
        ready = (state.asked >= settings.initial) & (scored(state.scores).sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, drawn, uniform), state._replace(asked=state.asked + children)

    def tell(state: Told, architectures: ArrayLike, scores: ArrayLike) -> tuple[Told, Info]:
        state = remember(state, jnp.asarray(architectures), jnp.asarray(scores))
        return state, {"failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)


def prior_along(told: Told, way: jax.Array, mask: jax.Array, ess: float, smoothing: float) -> jax.Array:
    """Returns the logits, float32 [L, max(sizes)], of the prior that the children make of a direction.

    Args:
      told: the children and their scores.
      way: the direction, float32 [M].
      mask: which options exist, bool [L, max(sizes)].
      ess: of the children's weights; with fewer children, all weigh the same.
      smoothing: children that every option has had besides.
    """
    there = scored(told.scores)
    scores = jnp.where(there[:, None], told.scores, 0.0)
    # Of one objective, which has no front, the score; what is below the reference point reaches nowhere.
    inside = scores if scores.shape[1] == 1 else jnp.maximum(scores, 0.0)
    reach = jnp.where(there, (inside / way[None]).min(1) + SLOPE * inside.sum(1), jnp.nan)
    span = jnp.maximum(jnp.nanmax(reach) - jnp.nanmin(reach), 1e-12)
    likelihood = jnp.where(there, _SHARPEST * (reach - jnp.nanmax(reach)) / span, -jnp.inf)
    count = there.sum(dtype=jnp.int32).astype(jnp.float32)
    likelihood = likelihood * cooling(likelihood, jnp.minimum(ess, count), there)
    weights = importance_weights(likelihood, there)
    chosen = one_hot(jnp.maximum(told.architectures, 0), mask)
    met = effective_sample_size(weights) * jnp.einsum("n,nlo->lo", weights, chosen)
    return jnp.where(mask, jnp.log(met + smoothing), 0.0)
