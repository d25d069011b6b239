"""Additive models of several objectives, and Thompson sampling of their fronts.

Each objective is a sum of effects (`parsec.search.additive_model`): a cost such as the parameters is one nearly exactly
and is known after some dozens of scores, an accuracy is one with noise. A draw of the effects of all objectives ranks
every architecture there is, and so has a front of its own; asked for is, as in Thompson sampling efficient
multi-objective optimisation (Bradford, Schweidtmann and Lapkin 2018, Journal of Global Optimization 71, 407-438), the
architecture that under the draw adds most hypervolume to what has been evaluated and asked for. What was evaluated
counts as the draw has it, not as it was told: the front of noisy scores is that of the lucky ones. Candidates are the
best sums of the objectives in many proportions, which for additive effects are found choice by choice, and samples
about these. Draws are nearer to the mean than the posterior is, as in `parsec.search.additive`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior
from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.prior.categorical import one_hot
from parsec.search.additive_model import (
    AdditiveState,
    Posterior,
    draw_effects,
    fit,
    make_basis,
    mean_effects,
    nothing_told,
    remember,
)
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.front import directions, lengths, scored

# Proportions of the objectives for which the best sum is a candidate, and samples about each.
_PROPORTIONS, _SAMPLES = 32, 4
# How peaked those are: in deviations of the sum over architectures.
_SHARPNESS = 8.0
# A front may take up a few degrees only.
_DIRECTIONS = 256


@dataclass(frozen=True)
class Settings:
    """The options of the additive models."""

    batch: int = option(8, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(24, "uniform samples before the models are used", minimum=1, maximum=1_000_000)
    exploration: float = option(
        0.5, "of the posterior's deviation from its mean, how much draws have; 1 is Thompson sampling", minimum=0
    )
    capacity: int = option(512, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns the additive models; `batch` architectures per ask, new ones as long as some are found.

    Raises:
      UserError: if `capacity` is below `batch`.
    """
    batch, capacity, length = settings.batch, settings.capacity, len(domain.sizes)
    if capacity < batch:
        raise UserError(f"additive_pareto.capacity={capacity} is out of range; it must be at least batch={batch}")
    mask, basis = domain.mask, make_basis(domain)
    along, proportions = directions(objectives, _DIRECTIONS), jnp.asarray(directions(objectives, _PROPORTIONS))

    def posteriors_of(state: AdditiveState) -> Posterior:
        return jax.vmap(lambda scores: fit(basis, mask, state.architectures, scores), in_axes=1)(state.scores)

    def init(key: jax.Array) -> AdditiveState:
        del key
        return nothing_told(capacity, length, objectives)

    def ask(key: jax.Array, state: AdditiveState) -> tuple[jax.Array, AdditiveState]:
        fresh, draws, around = jax.random.split(key, 3)
        spare = jnp.asarray(domain.sample(fresh, batch))
        there = scored(state.scores)[:, None]
        count = jnp.maximum(there.sum(dtype=jnp.float32), 1.0)
        center = jnp.where(there, state.scores, 0.0).sum(0) / count

        def effects_of_one(key: jax.Array, posterior: Posterior) -> jax.Array:
            drawn, mean = draw_effects(key, basis, mask, posterior, batch), mean_effects(basis, mask, posterior)
            return posterior.unit * (mean[None] + settings.exploration * (drawn - mean[None]))

        # [M, batch, L, O] to a draw of all objectives for each architecture asked for.
        effects = jax.vmap(effects_of_one)(jax.random.split(draws, objectives), posteriors_of(state)).swapaxes(0, 1)

        def pick(asked: jax.Array, drawn: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
            effects, key, spare, place = drawn

            def summed(architectures: jax.Array) -> jax.Array:
                return jnp.einsum("nlo,mlo->nm", one_hot(architectures, mask), effects)

            rows = jnp.concatenate([state.architectures, asked])
            counts = jnp.concatenate([there, asked[:, :1] >= 0])
            # Sums of effects are told from zero by what was scored on average.
            offset = center - jnp.where(there, summed(state.architectures), 0.0).sum(0) / count
            reached = lengths(jnp.where(counts, summed(rows) + offset[None], jnp.nan), along).max(0)
            near = jnp.concatenate([_candidates(key, effects, mask, proportions), spare[None]])
            possible = jnp.asarray(domain.valid(near)) & ~(near[:, None] == rows[None]).all(-1).any(1)
            gain = _gain(lengths(summed(near) + offset[None], along), reached, objectives)
            # The spare one is valid, and the last resort.
            gain = jnp.where(possible, gain, -jnp.inf).at[-1].set(jnp.where(possible[-1], gain[-1], -1e30))
            chosen = near[gain.argmax()]
            return asked.at[place].set(chosen), chosen

        nobody = jnp.full((batch, length), -1, jnp.int32)
        each = (effects, jax.random.split(around, batch), spare, jnp.arange(batch, dtype=jnp.int32))
        _, chosen = jax.lax.scan(pick, nobody, each)
        # With every score failed, there is nothing to be fitted to.
        ready = (state.asked >= settings.initial) & (count >= 2)
        return jnp.where(ready, chosen, spare), state._replace(asked=state.asked + batch)

    def tell(state: AdditiveState, architectures: ArrayLike, scores: ArrayLike) -> tuple[AdditiveState, Info]:
        state = remember(state, jnp.asarray(architectures), jnp.asarray(scores))
        best = jnp.nan_to_num(first_objective(state.scores), nan=-jnp.inf).max()
        return state, {"best": best, "failed": count_failed(architectures, scores)}

    def effects(state: AdditiveState) -> jax.Array:
        first = fit(basis, mask, state.architectures, first_objective(state.scores))
        return first.unit * mean_effects(basis, mask, first)

    return Strategy(init, ask, tell, domain.jittable, effects=effects)


def _candidates(key: jax.Array, effects: jax.Array, mask: np.ndarray, proportions: jax.Array) -> jax.Array:
    """Returns architectures near the front of effects [M, L, O], int32 [N, L]: best sums, and samples about them."""
    chance = (mask / mask.sum(1, keepdims=True)).astype(np.float32)
    deviation = jnp.sqrt(jnp.maximum((effects**2 * chance[None]).sum((1, 2)), 1e-12))
    sums = jnp.einsum("pm,mlo->plo", proportions, effects / deviation[:, None, None])
    best = jax.vmap(lambda each: prior.mode(each, mask))(sums)
    keys = jax.random.split(key, len(sums))
    near = jax.vmap(lambda key, each: prior.sample(key, each * _SHARPNESS, mask, _SAMPLES))(keys, sums)
    return jnp.concatenate([best, near.reshape(-1, len(mask))])


def _gain(length: jax.Array, reached: jax.Array, objectives: int) -> jax.Array:
    """Returns the hypervolume that points of lengths [N, D] add to what has reached [D], float32 [N], to a constant.

    Where nothing is added it is below zero: by how much a point falls short in the direction where it does so least.
    """
    volume = jnp.maximum(length**objectives - reached[None] ** objectives, 0.0).mean(1)
    return jnp.where(volume > 0, volume, (length - reached[None]).max(1))
