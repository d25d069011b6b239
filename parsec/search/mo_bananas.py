"""MO-BANANAS: an ensemble predicts every objective of mutations of the front, and random directions pick among them.

Izquierdo et al. 2021 (arXiv 2105.01015) carry BANANAS (arXiv 1910.11858) to several objectives: mutations of the best
architectures are ranked by Thompson samples of an ensemble's predictions. As in `parsec.search.bananas` a member is a
random layer with heads fitted in closed form, here one for each objective, to the logits of the scores' quantiles. One
Thompson sample of all objectives, turned back into scores, ranks the candidates: each architecture of an ask is the
one that reaches furthest along a random direction of its own (`parsec.search.front`). The parents are the best known
along random directions, where the paper sorts fronts by crowding, and every candidate is trained fully;
`parsec.search.sh_mo_bananas` has the halving.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.search.bananas import BananasState, hidden
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.front import SLOPE, directions, quantiles, scored
from parsec.search.moves import mutate_each


@dataclass(frozen=True)
class Settings:
    """The options of MO-BANANAS."""

    batch: int = option(10, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(10, "uniform samples before the predictor is used", minimum=1, maximum=1_000_000)
    parents: int = option(20, "architectures of the front whose mutations are candidates", minimum=1, maximum=1000)
    candidates: int = option(200, "mutations drawn, next to half as many uniform samples", minimum=2, maximum=10_000)
    members: int = option(5, "networks in the ensemble", minimum=2, maximum=100)
    hidden: int = option(64, "width of their random layer", minimum=1, maximum=4096)
    ridge: float = option(0.1, "squared penalty on their heads", minimum=1e-6, maximum=1e6)
    capacity: int = option(512, "evaluations remembered; older ones are forgotten", minimum=1, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MO-BANANAS; `batch` architectures per ask.

    They are uniform samples at first, then distinct ones that were not evaluated before.

    Raises:
      UserError: if `capacity` is below `batch`.
    """
    batch, capacity, length = settings.batch, settings.capacity, len(domain.sizes)
    if capacity < batch:
        raise UserError(f"mo_bananas.capacity={capacity} is out of range; it must be at least batch={batch}")
    along = jnp.asarray(directions(objectives))
    width = jnp.asarray(domain.features(jnp.asarray(domain.sample(jax.random.key(0), 1)))).shape[1]

    def init(key: jax.Array) -> BananasState:
        return BananasState(
            architectures=jnp.full((capacity, length), -1, jnp.int32),
            scores=jnp.full((capacity, objectives), jnp.nan, jnp.float32),
            told=jnp.zeros((), jnp.int32),
            asked=jnp.zeros((), jnp.int32),
            layers=jax.random.normal(key, (settings.members, width + 1, settings.hidden)) * jnp.sqrt(2.0 / length),
        )

    def ask(key: jax.Array, state: BananasState) -> tuple[jax.Array, BananasState]:
        fresh, breed, mutation, thompson, ways = jax.random.split(key, 5)
        uniform = jnp.asarray(domain.sample(fresh, batch + settings.candidates // 2))
        known = quantiles(state.scores)
        parents = _parents(breed, state, known, along, settings.parents)
        chosen = parents[jnp.arange(settings.candidates) % settings.parents]
        pool = jnp.concatenate([mutate_each(domain, mutation, chosen), uniform])
        mean, deviation = _predict(domain, state, known, pool, settings.ridge)
        seen = (pool[:, None, :] == state.architectures[None, :, :]).all(-1).any(1)
        drawn = jax.nn.sigmoid(mean + deviation * jax.random.normal(thompson, mean.shape))
        way = along[jax.random.randint(ways, (batch,), 0, len(along))]
        # Beyond the best known a quantile has no score, so that a little of it decides between equals.
        reach = (_scores_at(state.scores, drawn)[None] / way[:, None, :]).min(2) + SLOPE * drawn[None].sum(2)
        best = _distinct_best(pool, jnp.where(seen[None], -jnp.inf, reach))
        ready = (state.asked >= settings.initial) & (scored(state.scores).sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, best, uniform[:batch]), state._replace(asked=state.asked + batch)

    def tell(state: BananasState, architectures: ArrayLike, scores: ArrayLike) -> tuple[BananasState, Info]:
        told = jnp.asarray(scores)
        slots = (state.told + jnp.arange(told.shape[0])) % capacity
        state = state._replace(
            architectures=state.architectures.at[slots].set(jnp.asarray(architectures)),
            scores=state.scores.at[slots].set(jnp.where(scored(told)[:, None], told, jnp.nan)),
            told=state.told + told.shape[0],
        )
        return state, {"failed": count_failed(architectures, scores)}

    return Strategy(init, ask, tell, domain.jittable)


def _parents(key: jax.Array, state: BananasState, known: jax.Array, along: jax.Array, count: int) -> jax.Array:
    """Returns the best known architecture along each of `count` random directions, int32 [count, L]."""
    inside = jnp.where(scored(state.scores)[:, None], known, -1.0)
    picked = along[jax.random.randint(key, (count,), 0, len(along))]
    reach = (inside[None] / picked[:, None, :]).min(2) + SLOPE * inside[None].sum(2)
    return jnp.maximum(state.architectures[reach.argmax(1)], 0)


def _predict(
    domain: Domain, state: BananasState, known: jax.Array, pool: jax.Array, ridge: float
) -> tuple[jax.Array, jax.Array]:
    """Returns the ensemble's mean and deviation of every objective of the pool, float32 [P, M] each, as logits."""
    rows = scored(state.scores)[:, None]
    target = jnp.where(rows, jnp.log(known) - jnp.log1p(-known), 0.0)
    features = jnp.asarray(domain.features(jnp.maximum(state.architectures, 0)))
    asked = jnp.asarray(domain.features(pool))
    identity = jnp.eye(state.layers.shape[2], dtype=jnp.float32)

    def member(layer: jax.Array) -> jax.Array:
        inside = hidden(features, layer) * rows.astype(jnp.float32)
        heads = jax.scipy.linalg.solve(inside.T @ inside + ridge * identity, inside.T @ target, assume_a="pos")
        return hidden(asked, layer) @ heads

    predictions = jax.vmap(member)(state.layers)
    return predictions.mean(0), predictions.std(0, ddof=1)


def _scores_at(scores: jax.Array, share: jax.Array) -> jax.Array:
    """Returns the scores at quantiles float32 [P, M] of what is known, float32 [P, M]; the best for what is beyond."""
    finite = scored(scores)
    count = finite.sum(dtype=jnp.int32)
    # What is not finite is sorted to the front, at places below zero.
    ordered = jnp.sort(jnp.where(finite[:, None], scores, -jnp.inf), axis=0)
    place = jnp.arange(len(scores)) - (len(scores) - count)
    place = (place.astype(jnp.float32) + 0.5) / jnp.maximum(count, 1).astype(jnp.float32)
    lowest = jnp.where(jnp.isfinite(ordered), ordered, jnp.inf).min(0)
    known = jnp.where(jnp.isfinite(ordered), ordered, lowest[None])
    return jnp.stack([jnp.interp(share[:, m], place, known[:, m]) for m in range(scores.shape[1])], 1)


def _distinct_best(pool: jax.Array, reach: jax.Array) -> jax.Array:
    """Returns for each row of reach, float32 [B, P], its best architecture that no earlier row took, int32 [B, L]."""

    def pick(free: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        architecture = pool[jnp.argmax(jnp.where(free, row, -jnp.inf))]
        return free & ~(pool == architecture[None, :]).all(1), architecture

    return jax.lax.scan(pick, jnp.ones(pool.shape[0], bool), reach)[1]
