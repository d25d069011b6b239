"""MO-BANANAS with successive halving: what its predictor proposes is trained briefly, and the best of it longer.

Izquierdo et al. 2021 (arXiv 2105.01015): every batch of ten goes through the rungs of `parsec.search.brackets`, from
the shortest training on; of ten at 9 epochs, as published, three go on to 25. The predictor is that of
`parsec.search.mo_bananas`; it learns from the longest trainings alone, so that what a short one says of an architecture
only chooses among proposals.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import Domain
from parsec.config import option
from parsec.errors import UserError
from parsec.search import mo_bananas
from parsec.search.bananas import BananasState
from parsec.search.brackets import Bracket, History, Rung, halved, play_brackets, widest_of
from parsec.search.contract import Strategy
from parsec.search.mo_bananas import Settings as Predictor


@dataclass(frozen=True)
class Settings:
    """The options of MO-BANANAS with halving; the predictor has the defaults of mo_bananas."""

    initial: int = option(10, "uniform samples, trained fully, before the predictor is used", minimum=2, maximum=10_000)
    batch: int = option(10, "architectures that begin with the shortest training", minimum=1, maximum=1000)
    parents: int = option(20, "architectures of the front whose mutations are candidates", minimum=1, maximum=1000)
    candidates: int = option(200, "mutations drawn, next to half as many uniform samples", minimum=2, maximum=10_000)
    capacity: int = option(512, "architectures remembered, the longest trained first", minimum=1, maximum=10_000)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MO-BANANAS with halving, for a domain of several fidelities; a rung for each ask.

    Raises:
      UserError: if `capacity` is below `batch`.
    """
    if settings.capacity < settings.batch:
        raise UserError(
            f"sh_mo_bananas.capacity={settings.capacity} is out of range; it must be at least batch={settings.batch}"
        )
    top, length = len(domain.fidelities) - 1, len(domain.sizes)
    first: Bracket = (Rung(top, settings.initial),)
    bracket = halved(domain.fidelities, 0, settings.batch)
    within = mo_bananas.make(
        domain,
        Predictor(
            batch=settings.batch,
            initial=1,
            parents=settings.parents,
            candidates=settings.candidates,
            capacity=settings.capacity,
        ),
        objectives,
    )
    ask = jax.jit(within.ask) if within.jittable else within.ask

    def propose(key: jax.Array, history: History, count: int) -> np.ndarray:
        layers, fresh, predict = jax.random.split(key, 3)
        if not len(history.told):
            return np.asarray(domain.sample(fresh, count))
        # The longest trained come last, so that they are kept; all others are remembered as seen, without a score.
        order = np.argsort(history.scored_at(top), kind="stable")[-settings.capacity :]
        architectures = np.full((settings.capacity, length), -1, np.int32)
        scores = np.full((settings.capacity, objectives), np.nan, np.float32)
        architectures[: len(order)] = history.architectures[order]
        known = np.where(history.scored_at(top)[:, None], history.scores, np.nan)
        scores[: len(order)] = known[order]
        told = jnp.asarray(len(order), jnp.int32)
        state = BananasState(jnp.asarray(architectures), jnp.asarray(scores), told, told, within.init(layers).layers)
        return np.asarray(ask(predict, state)[0])

    return play_brackets(
        domain, objectives, lambda number: bracket if number else first, widest_of((first, bracket)), propose
    )
