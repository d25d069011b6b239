"""An additive model of the scores, whose posterior is a factorised prior: empirical Bayes where children are few.

Scores that cost a training each are too dear for the hundreds of weighted children that a gradient on the prior needs.
An additive log-likelihood (`parsec.search.additive_model`) makes the posterior over architectures a product of
categoricals, the form of PARSEC's prior (Casale, Gordon, Fusi 2019, arXiv 1902.05116): its logits are the means of the
learnt effects in units of what is not known of them, so that an option is about as probable as it is likely to be its
choice's best; where scores are noise it stays uniform. Children are asked for by Thompson sampling (Thompson 1933,
Biometrika 25, 285-294): each is the best architecture under a draw of the effects, what is known of them included, so
that what is not known yet is tried. With as many effects as scores, most of a draw would be what is not known, and its
best architecture hardly better than a random one: draws are nearer to the mean than the posterior is (reshaped,
Chapelle and Li 2011, "An Empirical Evaluation of Thompson Sampling", NeurIPS 24).

With a prior that another search learnt the first architectures are drawn from it instead of uniformly.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.prior.categorical import one_hot
from parsec.search.additive_model import Posterior, draw_effects, effects_of, fit, make_basis, mean_effects
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.factorised import draw_valid
from parsec.search.told import Told, nothing_told, remember

# Architectures tried for each draw of the effects where the best options together are not valid or known already.
_CANDIDATES = 64
# How peaked those architectures are about the draw's best: in deviations of the scores.
_SHARPNESS = 8.0


@dataclass(frozen=True)
class Settings:
    """The options of the additive model."""

    batch: int = option(8, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(24, "uniform samples before the model is used", minimum=1, maximum=1_000_000)
    exploration: float = option(
        0.25, "of the posterior's deviation from its mean, how much draws have; 1 is Thompson sampling", minimum=0
    )
    capacity: int = option(512, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns the additive model; `batch` architectures per ask, new ones as long as some are found.

    Raises:
      UserError: if `capacity` is below `batch`.
    """
    batch, capacity, initial = settings.batch, settings.capacity, domain.initial
    if capacity < batch:
        raise UserError(f"additive.capacity={capacity} is out of range; it must be at least batch={batch}")
    mask, basis = domain.mask, make_basis(domain)
    carried = jnp.zeros(mask.shape, jnp.float32) if initial is None else jnp.asarray(initial)
    known = jnp.zeros(mask.shape, jnp.float32) if domain.known is None else jnp.asarray(domain.known)
    draw = draw_valid(domain)

    def posterior_of(state: Told) -> Posterior:
        return fit(basis, mask, state.architectures, first_objective(state.scores), known)

    def init(key: jax.Array) -> Told:
        del key
        return nothing_told(capacity, len(domain.sizes))

    def ask(key: jax.Array, state: Told) -> tuple[jax.Array, Told]:
        fresh, draws, around = jax.random.split(key, 3)
        spare = jnp.asarray(domain.sample(fresh, batch) if initial is None else draw(fresh, carried, batch))
        posterior = posterior_of(state)
        drawn = draw_effects(draws, basis, mask, posterior, batch)
        mean = mean_effects(basis, mask, posterior)
        effects = (1 - settings.exploration) * mean[None] + settings.exploration * drawn + known[None] / posterior.unit

        def pick(proposed: jax.Array, drawn: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            effect, key, spare, place = drawn
            best = prior.mode(effect, mask)[None]
            near = jnp.concatenate([best, prior.sample(key, effect * _SHARPNESS, mask, _CANDIDATES), spare[None]])
            seen = (near[:, None] == proposed[None]).all(-1).any(1)
            possible = jnp.asarray(domain.valid(near)) & ~seen
            value = jnp.einsum("klo,lo->k", one_hot(near, mask), jnp.where(mask, effect, 0.0))
            # The spare one is valid, and the last resort.
            value = jnp.where(possible, value, -jnp.inf).at[-1].set(jnp.where(possible[-1], value[-1], -1e30))
            chosen = near[value.argmax()]
            return proposed.at[place].set(chosen), chosen

        before = jnp.concatenate([state.architectures, jnp.full((batch, len(domain.sizes)), -1, jnp.int32)])
        places = capacity + jnp.arange(batch, dtype=jnp.int32)
        _, chosen = jax.lax.scan(pick, before, (effects, jax.random.split(around, batch), spare, places))
        # With every score failed, or alike, there is nothing to be fitted to.
        finite = jnp.isfinite(state.scores)
        ready = (state.asked >= settings.initial) & (finite.sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, chosen, spare), state._replace(asked=state.asked + batch)

    def tell(state: Told, architectures: ArrayLike, scores: ArrayLike) -> tuple[Told, Info]:
        state = remember(state, jnp.asarray(architectures), first_objective(scores)[:, None])
        best = jnp.nan_to_num(state.scores, nan=-jnp.inf).max()
        return state, {"best": best, "failed": count_failed(architectures, scores)}

    def logits(key: jax.Array, state: Told) -> jax.Array:
        del key
        posterior = posterior_of(state)
        chance, mean = posterior.chance, effects_of(basis, mask, posterior.mean[:-1])
        within = ((basis.columns @ posterior.factor[:-1]) ** 2).sum()
        # Of a mixture: what is not known if there is a signal, and whether there is.
        variance = chance * within + chance * (1 - chance) * (mean * mean).sum()
        spread = jnp.sqrt(jnp.maximum(variance, 1e-12) / float(mask.sum()))
        return chance * mean / spread + (1 - chance) * carried

    def effects(state: Told) -> jax.Array:
        posterior = posterior_of(state)
        return posterior.unit * mean_effects(basis, mask, posterior) + known

    return Strategy(init, ask, tell, domain.jittable, logits, effects)
