"""TSEMO: Thompson samples of Gaussian processes, one for each objective, have fronts, and these are asked for.

Bradford, Schweidtmann and Lapkin 2018, "Efficient multiobjective optimization employing Gaussian processes, spectral
sampling and a genetic algorithm" (Journal of Global Optimization 71, 407-438). For each architecture of an ask all
objectives are drawn together from their posteriors (`parsec.search.gaussian_process`), and asked for is the one that
under the draw adds most hypervolume to what has been evaluated and asked for. What was evaluated counts as the draw has
it, not as it was told: the front of noisy scores is that of the lucky ones. The draw is of the architectures at hand,
mutations of the expected front's and uniform ones, so that no spectral samples are needed where the paper's genetic
algorithm wants a function; and nearer to the mean than the posterior is (reshaped, Chapelle and Li 2011, NeurIPS 24).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.front import directions, gains, lengths, scored
from parsec.search.gaussian_process import Process, fit, make_features, predict
from parsec.search.moves import mutate_each
from parsec.search.told import Told, nothing_told, remember

# A front may take up a few degrees only.
_DIRECTIONS = 256
# Of candidates that were mutated, the share that is once more, so many times.
_AGAIN, _TIMES = 0.5, 2


@dataclass(frozen=True)
class Settings:
    """The options of TSEMO."""

    batch: int = option(8, "architectures per ask", minimum=1, maximum=1000)
    initial: int = option(24, "uniform samples before the processes are used", minimum=1, maximum=1_000_000)
    exploration: float = option(
        0.5, "of the posterior's deviation from its mean, how much draws have; 1 is Thompson sampling", minimum=0
    )
    candidates: int = option(200, "mutations drawn, next to half as many uniform samples", minimum=2, maximum=10_000)
    capacity: int = option(256, "scores remembered; older ones are forgotten", minimum=2, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns TSEMO; `batch` architectures per ask, uniform at first, then ones that are new as far as it remembers.

    Raises:
      UserError: if `capacity` is below `batch`.
    """
    batch, capacity = settings.batch, settings.capacity
    if capacity < batch:
        raise UserError(f"tsemo.capacity={capacity} is out of range; it must be at least batch={batch}")
    features = make_features(domain)
    along = directions(objectives, _DIRECTIONS)

    def init(key: jax.Array) -> Told:
        del key
        return nothing_told(capacity, len(domain.sizes), objectives)

    def fit_all(state: Told) -> Process:
        return jax.vmap(lambda scores: fit(features, state.architectures, scores), in_axes=1)(state.scores)

    def predict_all(state: Told, processes: Process, asked: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns means float32 [N, M] and factors of covariances float32 [M, N, N]."""
        there = scored(state.scores)

        def one(process: Process) -> tuple[jax.Array, jax.Array]:
            return predict(features, process, state.architectures, there, asked)

        return jax.vmap(one, out_axes=(1, 0))(processes)

    def reach(scores: jax.Array) -> jax.Array:
        """Returns how far scores [N, M] reach in each direction; of one objective, which has no front, the score."""
        return jnp.where(scored(scores)[:, None], scores, -jnp.inf) if objectives == 1 else lengths(scores, along)

    def ask(key: jax.Array, state: Told) -> tuple[jax.Array, Told]:
        fresh, breed, change, draws = jax.random.split(key, 4)
        uniform = jnp.asarray(domain.sample(fresh, batch + settings.candidates // 2))
        there = scored(state.scores)
        processes = fit_all(state)
        told, _ = predict_all(state, processes, state.architectures)
        best = reach(jnp.where(there[:, None], told, jnp.nan)).argmax(0)
        parents = jnp.maximum(state.architectures, 0)[best]
        picked = parents[jax.random.randint(breed, (settings.candidates,), 0, len(parents))]
        pool = jnp.concatenate([_mutated(domain, change, picked), uniform])
        rows = jnp.concatenate([state.architectures, pool])
        mean, factor = predict_all(state, processes, rows)
        luck = jax.random.normal(draws, (batch, objectives, len(rows)))
        drawn = mean[None] + settings.exploration * jnp.einsum("mij,bmj->bim", factor, luck)
        seen = (pool[:, None] == state.architectures[None]).all(-1).any(1)
        counts = jnp.concatenate([there, jnp.zeros(len(pool), bool)])

        def pick(counts: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
            length = reach(scores)
            gain = gains(length[capacity:], jnp.where(counts[:, None], length, -jnp.inf).max(0), objectives)
            chosen = jnp.where(seen | counts[capacity:], -jnp.inf, gain).argmax()
            same = (pool == pool[chosen][None]).all(1)
            return counts.at[capacity:].set(counts[capacity:] | same), pool[chosen]

        _, chosen = jax.lax.scan(pick, counts, drawn)
        # With every score failed, there is nothing to be fitted to.
        ready = (state.asked >= settings.initial) & (there.sum(dtype=jnp.int32) >= 2)
        return jnp.where(ready, chosen, uniform[:batch]), state._replace(asked=state.asked + batch)

    def tell(state: Told, architectures: ArrayLike, scores: ArrayLike) -> tuple[Told, Info]:
        state = remember(state, jnp.asarray(architectures), jnp.asarray(scores))
        best = jnp.nan_to_num(first_objective(state.scores), nan=-jnp.inf).max()
        return state, {"best": best, "failed": count_failed(architectures, scores)}

    def expect(state: Told, architectures: ArrayLike) -> jax.Array:
        return predict_all(state, fit_all(state), jnp.asarray(architectures))[0][:, 0]

    return Strategy(init, ask, tell, domain.jittable, expect=expect)


def _mutated(domain: Domain, key: jax.Array, architectures: jax.Array) -> jax.Array:
    """Returns each architecture int32 [N, L] after one mutation or more."""
    first, *others = jax.random.split(key, 1 + _TIMES)
    architectures = mutate_each(domain, first, architectures)
    for other in others:
        change, coin = jax.random.split(other)
        again = jax.random.bernoulli(coin, _AGAIN, (len(architectures), 1))
        architectures = jnp.where(again, mutate_each(domain, change, architectures), architectures)
    return architectures
