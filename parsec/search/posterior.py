"""What Gaussian processes of all objectives say of the architectures at hand: TSEMO and MS-EHVI choose by it.

One process for each objective (`parsec.search.gaussian_process`) is fitted to all that is remembered. The architectures
at hand are mutations of the expected front's, and uniform ones, so that the posterior is wanted at a list of
architectures and no function has to be maximised. What was evaluated is predicted along with them: the front of noisy
scores is that of the lucky ones.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from parsec.cells.domain import ArrayLike, Domain
from parsec.errors import UserError
from parsec.search.contract import Info, Strategy, count_failed, first_objective
from parsec.search.front import directions, lengths, scored
from parsec.search.gaussian_process import Process, fit, make_features, predict
from parsec.search.moves import mutate_each
from parsec.search.told import Told, nothing_told, remember

# Of candidates that were mutated, the share that is once more, so many times.
_AGAIN, _TIMES = 0.5, 2


class PosteriorSettings(Protocol):
    """The options that strategies which choose by the posterior have in common."""

    @property
    def batch(self) -> int:
        """Architectures per ask, B."""
        ...

    @property
    def initial(self) -> int:
        """Uniform samples asked for before the processes are used."""
        ...

    @property
    def candidates(self) -> int:
        """Mutations at hand, next to half as many uniform samples."""
        ...

    @property
    def capacity(self) -> int:
        """Scores remembered."""
        ...


class AtHand(NamedTuple):
    """Architectures, and the joint posterior of their scores and of those of what was evaluated.

    Attributes:
      pool: those that may be asked for, int32 [P, L].
      new: which of them are not remembered, bool [P].
      mean: of what is remembered, C rows, then of the pool, float32 [C + P, M].
      factor: of the covariance of each objective, float32 [M, C + P, C + P].
      there: which remembered rows have scores, bool [C].
    """

    pool: jax.Array
    new: jax.Array
    mean: jax.Array
    factor: jax.Array
    there: jax.Array

    def draw(self, key: jax.Array, count: int, spread: float = 1.0) -> jax.Array:
        """Returns scores of all rows drawn together, float32 [count, C + P, M]; `spread` scales the deviation."""
        luck = jax.random.normal(key, (count, *self.factor.shape[:2]))
        return self.mean[None] + spread * jnp.einsum("mij,bmj->bim", self.factor, luck)


# `reach(scores float32 [N, M]) -> float32 [N, D]`: how far scores reach in each direction.
Reach = Callable[[jax.Array], jax.Array]
# `choose(key, what is at hand, reach) -> int32 [B]`, rows of the pool.
Choose = Callable[[jax.Array, AtHand, Reach], jax.Array]


def posterior_strategy(
    name: str,
    domain: Domain,
    settings: PosteriorSettings,
    objectives: int,
    choose: Choose,
    ways: int,
) -> Strategy:
    """Returns a strategy that asks for what `choose` picks of what is at hand.

    Args:
      name: of the strategy, for the error.
      domain: the search space.
      settings: its options.
      objectives: M.
      choose: from the posterior to the B rows of the pool that are asked for.
      ways: directions in which scores reach; a front may take up a few degrees only.

    Raises:
      UserError: if `capacity` is below `batch`.
    """
    batch, capacity = settings.batch, settings.capacity
    if capacity < batch:
        raise UserError(f"{name}.capacity={capacity} is out of range; it must be at least batch={batch}")
    features = make_features(domain)
    along = directions(objectives, ways)

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
        # A single objective has no front: what reaches farthest is the best, below zero too.
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
        mean, factor = predict_all(state, processes, jnp.concatenate([state.architectures, pool]))
        seen = (pool[:, None] == state.architectures[None]).all(-1).any(1)
        chosen = pool[choose(draws, AtHand(pool, ~seen, mean, factor, there), reach)]
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
