"""A strategy of one objective that searches for a front: before every ask it is told all that is known, anew.

ParEGO's way (Knowles 2006, IEEE Transactions on Evolutionary Computation 10, 50-66): each ask draws a direction of the
front at random and scores everything evaluated so far along it. The scores are lengths (`parsec.search.front`).
The strategy begins again each time, so that this is for those
which learn everything from what they are told, such as LaNAS, and not for those which learn a little each time. What
was asked for and not told yet is told as a failure, so that it is not asked for again.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.keys import fold
from parsec.search.contract import Info, Strategy, count_failed
from parsec.search.front import directions, reach


class RetoldState(NamedTuple):
    """Everything evaluated and asked for.

    Attributes:
      architectures: int32 [n, L], in the order in which they were asked for.
      scores: float32 [n, M]; NaN for those that failed or are under way.
    """

    architectures: np.ndarray
    scores: np.ndarray


def adapt(strategy: Strategy, domain: Domain, objectives: int) -> Strategy:
    """Returns the strategy, begun afresh along a random direction at every ask; it runs on the host."""
    along, length = directions(objectives), len(domain.sizes)

    def init(key: jax.Array) -> RetoldState:
        del key
        return RetoldState(np.zeros((0, length), np.int32), np.zeros((0, objectives), np.float32))

    def ask(key: jax.Array, state: RetoldState) -> tuple[np.ndarray, RetoldState]:
        way = along[int(jax.random.randint(fold(key, "direction"), (), 0, len(along)))]
        within = strategy.init(fold(key, "init"))
        if len(state.scores):
            within, _ = strategy.tell(within, state.architectures, reach(state.scores, way)[:, None])
        asked = np.asarray(strategy.ask(fold(key, "ask"), within)[0], np.int32)
        nothing = np.full((len(asked), objectives), np.nan, np.float32)
        return asked, RetoldState(np.concatenate([state.architectures, asked]), np.concatenate([state.scores, nothing]))

    def tell(state: RetoldState, architectures: ArrayLike, scores: ArrayLike) -> tuple[RetoldState, Info]:
        told, values = np.asarray(scores, np.float32), state.scores.copy()
        for architecture, score in zip(np.asarray(architectures), told, strict=True):
            same = (state.architectures == architecture).all(1)
            values[same] = score if np.isfinite(score).all() else np.nan
        return state._replace(scores=values), {"failed": int(jnp.asarray(count_failed(architectures, scores)))}

    return Strategy(init, ask, tell, jittable=False)
