"""PARSEC with replay: the prior that all children so far make, weighted anew at every step; or one for each direction.

PARSEC (Casale, Gordon and Fusi 2019, arXiv 1902.05116) climbs the evidence of the children of a step, whose gradient is
sum_k w_k onehot(a_k) - pi with w = softmax(l), and forgets them. Here the children of all steps are weighted, and the
prior is the one at which that gradient vanishes under a Dirichlet: pi ~ S sum_k w_k onehot(a_k) + alpha, S being the
weights' effective sample size. The likelihood's temperature is the one that gives S, so that neither its unit nor the
number of children matters.

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
from parsec.search.factorised import draw_valid
from parsec.search.front import SLOPE, directions, scored
from parsec.search.told import Told, nothing_told, remember

# Log-likelihood between the best child and the worst at the lowest temperature.
_SHARPEST = 1e4


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

    Where the domain brings a prior, the Dirichlet is of that one. In a domain with invalid combinations the prior is
    conditioned on validity.

    Raises:
      UserError: if `capacity` is below `children`.
    """
    children, capacity, mask = settings.children, settings.capacity, jnp.asarray(domain.mask)
    if capacity < children:
        raise UserError(f"capacity={capacity} is out of range; it must be at least children={children}")
    draw, along = draw_valid(domain), jnp.asarray(directions(objectives))
    share = prior.probabilities(jnp.zeros(mask.shape) if domain.initial is None else domain.initial, mask)
    dirichlet = settings.smoothing * mask.sum(1, keepdims=True).astype(jnp.float32) * share

    def init(key: jax.Array) -> Told:
        del key
        return nothing_told(capacity, len(domain.sizes), objectives)

    def ask(key: jax.Array, state: Told) -> tuple[jax.Array, Told]:
        fresh, ways, draws = jax.random.split(key, 3)
        first = jnp.asarray(
            domain.sample(fresh, children) if domain.initial is None else draw(fresh, domain.initial, children)
        )
        ways = along[jax.random.randint(ways, (children,), 0, len(along))]
        logits = jax.vmap(lambda way: prior_along(state, way, settings.ess, dirichlet))(ways)
        drawn = jax.vmap(lambda key, logits: draw(key, logits, 1)[0])(jax.random.split(draws, children), logits)
        # With every score failed, there is nothing to be learnt from.
        ready = (state.asked >= settings.initial) & (scored(state.scores).sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, drawn, first), state._replace(asked=state.asked + children)

    def tell(state: Told, architectures: ArrayLike, scores: ArrayLike) -> tuple[Told, Info]:
        state = remember(state, jnp.asarray(architectures), jnp.asarray(scores)[:, :objectives])
        return state, {"failed": count_failed(architectures, scores)}

    def logits(key: jax.Array, state: Told) -> jax.Array:
        del key
        return prior_along(state, along[0], settings.ess, dirichlet)

    return Strategy(init, ask, tell, domain.jittable, logits=logits if objectives == 1 else None)


def prior_along(told: Told, way: jax.Array, ess: float, dirichlet: jax.Array) -> jax.Array:
    """Returns the logits, float32 [L, max(sizes)], of the prior that the children make of a direction.

    Args:
      told: the children and their scores.
      way: the direction, float32 [M].
      ess: of the children's weights; with fewer children, all weigh the same.
      dirichlet: children that each option has had besides, float32 [L, max(sizes)]; 0 for one that does not exist.
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
    chosen = one_hot(jnp.maximum(told.architectures, 0), dirichlet)
    met = effective_sample_size(weights) * jnp.einsum("n,nlo->lo", weights, chosen)
    return jnp.where(dirichlet > 0, jnp.log(met + dirichlet), 0.0)
