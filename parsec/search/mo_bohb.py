"""MO-BOHB: Parzen estimators of good and other architectures, in the brackets of Hyperband.

BOHB (Falkner, Klein and Hutter, ICML 2018, arXiv 1807.01774) for several objectives, as in Izquierdo et al. 2021
(arXiv 2105.01015). What was trained longest and often enough, more than 2 L + 1 times, is divided: the first `good` of
it by non-dominated fronts, the last front by hypervolume, and the others, as in Ozaki, Tanigaki, Watanabe and Onishi,
"Multiobjective tree-structured Parzen estimator for computationally expensive optimization problems" (GECCO 2020). Each
side has a density, a product over the choices of how often it took each option, and one more observation spread over
all options. Of some architectures drawn from the good ones' density, that with the largest ratio of the two is
proposed; a share of the proposals is uniform. The first architectures are uniform, and trained fully.
"""

from dataclasses import dataclass

import jax
import numpy as np

from parsec.cells.domain import Domain
from parsec.config import option
from parsec.search.brackets import Bracket, History, Rung, best_first, hyperband, play_brackets, widest_of
from parsec.search.contract import Strategy
from parsec.search.front import directions


@dataclass(frozen=True)
class Settings:
    """The options of MO-BOHB, as published."""

    initial: int = option(10, "uniform samples, trained fully, before the first bracket", minimum=1, maximum=10_000)
    good: float = option(0.1, "share of what is known that counts as good", minimum=0.001, maximum=0.999)
    candidates: int = option(24, "drawn for each proposal", minimum=1, maximum=10_000)
    uniform: float = option(1 / 6, "share of proposals that are uniform samples", minimum=0, maximum=1)


def make(domain: Domain, settings: Settings = Settings(), objectives: int = 1) -> Strategy:
    """Returns MO-BOHB, for a domain of several fidelities; a rung for each ask, filled up with rows of -1."""
    top = len(domain.fidelities) - 1
    first: Bracket = (Rung(top, settings.initial),)
    brackets = hyperband(domain.fidelities)
    along = directions(objectives)
    sample = jax.jit(domain.sample, static_argnums=1) if domain.jittable else domain.sample
    valid = jax.jit(domain.valid)

    def bracket_of(number: int) -> Bracket:
        return brackets[(number - 1) % len(brackets)] if number else first

    def propose(key: jax.Array, history: History, count: int) -> np.ndarray:
        fresh, draw = jax.random.split(key)
        uniform = np.asarray(sample(fresh, count))
        known = _longest_known(history, top, 2 * len(domain.sizes) + 1)
        if known is None:
            return uniform
        rng = np.random.default_rng(np.asarray(jax.random.key_data(draw)))
        good = np.zeros(len(known[0]), bool)
        good[best_first(known[1], int(np.ceil(settings.good * len(good))), along, known[1][:0])] = True
        better, other = _density(known[0][good], domain.mask), _density(known[0][~good], domain.mask)
        drawn = _draw(rng, np.where(domain.mask, better, 0.0), count * settings.candidates)
        ratio = np.log(better / other)[np.arange(drawn.shape[1]), drawn].sum(1)
        ratio[~np.asarray(valid(drawn))] = -np.inf
        asked = {row.tobytes() for row in history.architectures}
        proposed = []
        for at in range(count):
            chosen = uniform[at]
            if rng.random() >= settings.uniform:
                own = slice(at * settings.candidates, (at + 1) * settings.candidates)
                order = own.start + np.argsort(-ratio[own], kind="stable")
                new = [row for row in order if ratio[row] > -np.inf and drawn[row].tobytes() not in asked]
                # Where nothing new was drawn, the uniform sample stays.
                chosen = drawn[new[0]] if new else chosen
            asked.add(chosen.tobytes())
            proposed.append(chosen)
        return np.stack(proposed)

    return play_brackets(domain, objectives, bracket_of, widest_of((first, *brackets)), propose)


def _longest_known(history: History, top: int, least: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns architectures and scores of the highest fidelity that more than `least` rows have; None if none has."""
    for fidelity in range(top, -1, -1):
        rows = history.scored_at(fidelity)
        if rows.sum() > least:
            return history.architectures[rows], history.scores[rows]
    return None


def _density(architectures: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns how often each option of each choice is taken, one more taking all alike, float64 [L, O]; masked 1.

    Args:
      architectures: int32 [n, L].
      mask: which options exist, bool [L, O].
    """
    taken = (architectures[:, :, None] == np.arange(mask.shape[1])).sum(0)
    share = (taken + 1 / mask.sum(1, keepdims=True)) / (len(architectures) + 1)
    # What does not exist is in neither density, and has the ratio 1.
    return np.where(mask, share, 1.0)


def _draw(rng: np.random.Generator, density: np.ndarray, count: int) -> np.ndarray:
    """Returns architectures drawn from a density float64 [L, O], 0 where there is no option; int32 [count, L]."""
    edges = np.cumsum(density, axis=1)
    # So that rounding leaves nothing beyond the last option that there is.
    edges = np.where(edges >= edges[:, -1:] * (1 - 1e-12), 1.0, edges)
    return (rng.random((count, len(density), 1)) >= edges).sum(2).astype(np.int32)
