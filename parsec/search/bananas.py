"""Predictor-guided evolution in the manner of BANANAS: mutations, an ensemble to rank them, Thompson sampling.

White, Neiswanger and Savani, "BANANAS: Bayesian optimization with neural architectures for neural architecture search"
(AAAI 2021, arXiv 1910.11858): candidates are mutations of the best architectures so far, an ensemble of networks gives
each a mean and a deviation, and one independent draw from that normal ranks them (independent Thompson sampling).

Two departures keep it quick enough for thousands of seeds. A member is a network whose first layer is random and whose
head is fitted in closed form (random features; Rahimi and Recht, NeurIPS 2007), not trained by gradient descent. And it
is fitted to the logits of the scores' quantiles, so that neither the unit nor a few broken networks matter.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.moves import mutate_each


@dataclass(frozen=True)
class Settings:
    """The options of predictor-guided evolution."""

    batch: int = option(10, "architectures per ask, the best-ranked of the candidates", minimum=1, maximum=1000)
    initial: int = option(10, "uniform samples before the predictor is used", minimum=1, maximum=1_000_000)
    parents: int = option(10, "best architectures whose mutations are candidates", minimum=1, maximum=1000)
    candidates: int = option(100, "mutations drawn, next to half as many uniform samples", minimum=2, maximum=10_000)
    members: int = option(5, "networks in the ensemble", minimum=2, maximum=100)
    hidden: int = option(64, "width of their random layer", minimum=1, maximum=4096)
    ridge: float = option(0.1, "squared penalty on their heads", minimum=1e-6, maximum=1e6)
    capacity: int = option(512, "evaluations remembered; older ones are forgotten", minimum=1, maximum=10_000)


class BananasState(NamedTuple):
    """The evaluations remembered, in a ring, and the members' random first layers.

    Attributes:
      architectures: int32 [C, L]; -1 where nothing is stored.
      scores: float32 [C]; NaN for a failure or an empty slot.
      told: rows stored so far, int32 [].
      asked: architectures asked for, int32 [].
      layers: float32 [E, D + 1, H]; the last row is the bias.
    """

    architectures: jax.Array
    scores: jax.Array
    told: jax.Array
    asked: jax.Array
    layers: jax.Array


def make(domain: Domain, settings: Settings = Settings()) -> Strategy:
    """Returns predictor-guided evolution; `batch` architectures per ask.

    They are uniform samples at first, then distinct ones that were not evaluated before.

    Raises:
      UserError: if `capacity` is below `batch` or `parents`.
    """
    batch, parents, candidates, capacity = settings.batch, settings.parents, settings.candidates, settings.capacity
    if capacity < max(batch, parents):
        raise UserError(
            f"bananas.capacity={capacity} is out of range; it must be at least batch={batch} and parents={parents}"
        )
    length = len(domain.sizes)
    width = jnp.asarray(domain.features(jnp.asarray(domain.sample(jax.random.key(0), 1)))).shape[1]

    def init(key: jax.Array) -> BananasState:
        return BananasState(
            architectures=jnp.full((capacity, length), -1, jnp.int32),
            scores=jnp.full(capacity, jnp.nan, jnp.float32),
            told=jnp.zeros((), jnp.int32),
            asked=jnp.zeros((), jnp.int32),
            layers=jax.random.normal(key, (settings.members, width + 1, settings.hidden)) * jnp.sqrt(2.0 / length),
        )

    def ask(key: jax.Array, state: BananasState) -> tuple[jax.Array, BananasState]:
        fresh, mutation, thompson = jax.random.split(key, 3)
        uniform = jnp.asarray(domain.sample(fresh, batch + candidates // 2))
        pool = jnp.concatenate([_mutations(domain, mutation, state, parents, candidates), uniform])
        mean, deviation = _predict(domain, state, pool, settings.ridge)
        rank = mean + deviation * jax.random.normal(thompson, mean.shape)
        known = (pool[:, None, :] == state.architectures[None, :, :]).all(-1).any(1)
        best = _distinct_best(pool, jnp.where(known, -jnp.inf, rank), batch)
        # A predictor needs something to be fitted to; before that, and with every score failed, samples are uniform.
        ready = (state.asked >= settings.initial) & (jnp.isfinite(state.scores).sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, best, uniform[:batch]), state._replace(asked=state.asked + batch)

    def tell(state: BananasState, architectures: ArrayLike, scores: ArrayLike) -> tuple[BananasState, Info]:
        architectures = jnp.asarray(architectures)
        told = first_objective(scores)
        slots = (state.told + jnp.arange(told.shape[0])) % capacity
        state = state._replace(
            architectures=state.architectures.at[slots].set(architectures),
            scores=state.scores.at[slots].set(jnp.where(jnp.isfinite(told), told, jnp.nan)),
            told=state.told + told.shape[0],
        )
        best = jnp.nan_to_num(state.scores, nan=-jnp.inf).max()
        return state, {"best": best, "failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)


def _mutations(domain: Domain, key: jax.Array, state: BananasState, parents: int, candidates: int) -> jax.Array:
    """Returns mutations of the best architectures, int32 [candidates, L], evenly many of each."""
    _, best = jax.lax.top_k(jnp.nan_to_num(state.scores, nan=-jnp.inf), parents)
    # Early on the best `parents` include empty slots; the best of all takes their place.
    best = jnp.where(jnp.isfinite(state.scores[best]), best, best[0])
    chosen = jnp.maximum(state.architectures[best[jnp.arange(candidates) % parents]], 0)
    return mutate_each(domain, key, chosen)


def _predict(domain: Domain, state: BananasState, pool: jax.Array, ridge: float) -> tuple[jax.Array, jax.Array]:
    """Returns the ensemble's mean and deviation of every architecture of the pool, float32 [P] each."""
    scored = jnp.isfinite(state.scores)
    target = jnp.where(scored, _rank_logits(state.scores), 0.0)
    known = jnp.asarray(domain.features(jnp.maximum(state.architectures, 0)))
    asked = jnp.asarray(domain.features(pool))
    identity = jnp.eye(state.layers.shape[2], dtype=jnp.float32)

    def member(layer: jax.Array) -> jax.Array:
        inside = hidden(known, layer) * scored[:, None].astype(jnp.float32)
        head = jax.scipy.linalg.solve(inside.T @ inside + ridge * identity, inside.T @ target, assume_a="pos")
        return hidden(asked, layer) @ head

    predictions = jax.vmap(member)(state.layers)
    return predictions.mean(0), predictions.std(0, ddof=1)


def hidden(features: jax.Array, layer: jax.Array) -> jax.Array:
    """Returns what a member's random layer, float32 [D + 1, H], makes of features float32 [N, D]; float32 [N, H]."""
    outputs = jax.nn.relu(features @ layer[:-1] + layer[-1][None, :])
    return outputs / jnp.sqrt(float(layer.shape[1]))


def _rank_logits(scores: jax.Array) -> jax.Array:
    """Returns the logit of each score's quantile among the finite ones, float32 [C]; NaN scores give junk."""
    order = jnp.argsort(jnp.nan_to_num(scores, nan=jnp.inf))
    rank = jnp.zeros(scores.shape, jnp.float32).at[order].set(jnp.arange(scores.shape[0], dtype=jnp.float32))
    count = jnp.maximum(jnp.isfinite(scores).sum(dtype=jnp.int32), 1).astype(jnp.float32)
    quantile = jnp.minimum((rank + 0.5) / count, 1 - 0.5 / count)
    return jnp.log(quantile) - jnp.log1p(-quantile)


def _distinct_best(pool: jax.Array, rank: jax.Array, batch: int) -> jax.Array:
    """Returns the `batch` best-ranked distinct architectures of the pool, int32 [batch, L]."""

    def pick(rank: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        architecture = pool[jnp.argmax(rank)]
        return jnp.where((pool == architecture[None, :]).all(1), -jnp.inf, rank), architecture

    return jax.lax.scan(pick, rank, None, length=batch)[1]
