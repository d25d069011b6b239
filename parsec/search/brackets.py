"""Successive halving in brackets: many short trainings, and the best of each rung are trained longer.

Hyperband (Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar 2018, JMLR 18, 1-52) with several objectives, as MO-BOHB
and MO-BANANAS of Izquierdo et al. 2021 (arXiv 2105.01015) have it: the best of a rung are the first by non-dominated
fronts, those of the last front that has no room for all of it by the hypervolume that they add. A bracket is a list of
rungs, of so many architectures each at its own fidelity. What is proposed for the first rung is the caller's affair;
everything else follows from what was asked and told, which is all that the state holds.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.search.contract import Info, Strategy
from parsec.search.front import directions


class Rung(NamedTuple):
    """So many architectures, trained alike: the index of their training in `Domain.fidelities`."""

    fidelity: int
    size: int


Bracket = tuple[Rung, ...]


class History(NamedTuple):
    """Everything asked for, n rows in order; grown on the host.

    Attributes:
      architectures: int32 [n, L].
      fidelity: int32 [n].
      bracket: which it was asked for, counted from 0, int32 [n].
      rung: which of that bracket, int32 [n].
      scores: float32 [n, M]; NaN where it failed or is under way.
      told: whether it is not under way, bool [n].
    """

    architectures: np.ndarray
    fidelity: np.ndarray
    bracket: np.ndarray
    rung: np.ndarray
    scores: np.ndarray
    told: np.ndarray

    def scored_at(self, fidelity: int) -> np.ndarray:
        """Which rows have finite scores of a fidelity, bool [n]."""
        return (self.fidelity == fidelity) & np.isfinite(self.scores).all(1)


# `propose(key, history, count) -> int32 [count, L]`: architectures for the first rung of a bracket.
Propose = Callable[[jax.Array, History, int], np.ndarray]


def hyperband(epochs: Sequence[int]) -> tuple[Bracket, ...]:
    """Returns Hyperband's brackets, from the one that begins with the shortest training to the one without any short.

    Every rung of bracket s, of s_max = F - 1 down to 0, takes about as many epochs as (s_max + 1) / (s + 1) of the
    longest trainings. Where each training is eta times as long as the one before, these are the published brackets.

    Args:
      epochs: of the F trainings, rising.
    """
    count = len(epochs)
    return tuple(
        halved(epochs, first, -(-count * epochs[-1] // ((count - first) * epochs[first]))) for first in range(count)
    )


def halved(epochs: Sequence[int], first: int, size: int) -> Bracket:
    """Returns the rungs of a bracket, each of about as many epochs as the one before, and of at least one architecture.

    Args:
      epochs: of the trainings, rising.
      first: the index of that which the bracket begins with.
      size: architectures that it begins with.
    """
    return tuple(Rung(at, max(1, size * epochs[first] // epochs[at])) for at in range(first, len(epochs)))


def play_brackets(
    domain: Domain, objectives: int, bracket_of: Callable[[int], Bracket], widest: int, propose: Propose
) -> Strategy:
    """Returns the strategy that goes through brackets one after another; it runs on the host, a rung for each ask.

    While the last rung asked for is under way another ask begins the next bracket.

    Args:
      domain: of several fidelities.
      objectives: M.
      bracket_of: the i-th bracket, from 0.
      widest: architectures of the largest rung; smaller ones are filled up with rows of -1.
      propose: what a bracket begins with.
    """
    length = len(domain.sizes)
    along = directions(objectives)

    def init(key: jax.Array) -> History:
        del key
        none = np.zeros(0, np.int32)
        scores = np.zeros((0, objectives), np.float32)
        return History(np.zeros((0, length), np.int32), none, none, none, scores, np.zeros(0, bool))

    def ask(key: jax.Array, state: History) -> tuple[np.ndarray, History]:
        due = _due(state, bracket_of, along)
        if due is None:
            number = int(state.bracket.max(initial=-1)) + 1
            rung, (fidelity, count) = 0, bracket_of(number)[0]
            architectures = np.asarray(propose(key, state, count), np.int32)
        else:
            number, rung, fidelity, architectures = due
        rows = len(architectures)
        under_way = History(
            architectures,
            *(np.full(rows, each, np.int32) for each in (fidelity, number, rung)),
            scores=np.full((rows, objectives), np.nan, np.float32),
            told=np.zeros(rows, bool),
        )
        state = History(*(np.concatenate(pair) for pair in zip(state, under_way, strict=True)))
        asked = np.full((widest, length + 1), -1, np.int32)
        asked[:rows, :-1], asked[:rows, -1] = architectures, fidelity
        return asked, state

    def tell(state: History, architectures: ArrayLike, scores: ArrayLike) -> tuple[History, Info]:
        values, told, failed = state.scores.copy(), state.told.copy(), 0
        for row, score in zip(np.asarray(architectures), np.asarray(scores, np.float32), strict=True):
            same = (state.architectures == row[:-1]).all(1) & (state.fidelity == row[-1]) & ~told
            if not same.any():
                continue
            at = int(np.argmax(same))
            told[at] = True
            failed += not np.isfinite(score[0])
            values[at] = score if np.isfinite(score).all() else np.nan
        return state._replace(scores=values, told=told), {"failed": failed}

    return Strategy(init, ask, tell, jittable=False)


def best_first(scores: np.ndarray, count: int, along: np.ndarray, chosen_before: np.ndarray) -> np.ndarray:
    """Returns the `count` best rows of finite scores float32 [n, M], the best first, int [min(count, n)].

    By non-dominated fronts, and within a front one after another the row that adds most hypervolume to those chosen
    before it (`parsec.search.front` says how it is measured); the largest by itself where none adds any.

    Args:
      scores: higher is better.
      count: rows wanted.
      along: directions float32 [D, M].
      chosen_before: scores of what is chosen already, float32 [k, M]: it is not worth as much to choose its like.
    """
    beats = (scores[:, None] >= scores[None]).all(2) & (scores[:, None] > scores[None]).any(2)
    volume = _volumes(scores, along)
    before = _volumes(chosen_before, along).max(0, initial=0.0)
    left, chosen = np.ones(len(scores), bool), []
    while left.any() and len(chosen) < count:
        front = np.flatnonzero(left & ~(beats & left[:, None]).any(0))
        left[front] = False
        reached = before
        while len(front) and len(chosen) < count:
            added = np.maximum(volume[front] - reached, 0).sum(1)
            at = int(np.argmax(added + 1e-6 * volume[front].sum(1)))
            chosen.append(front[at])
            reached = np.maximum(reached, volume[front[at]])
            front = np.delete(front, at)
    return np.array(chosen, np.int64)


def _volumes(scores: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Returns the volume up to each row in each direction, up to a constant, float32 [n, D]."""
    return (np.maximum(scores, 0)[:, None] / along).min(2) ** scores.shape[1]


def _due(
    state: History, bracket_of: Callable[[int], Bracket], along: np.ndarray
) -> tuple[int, int, int, np.ndarray] | None:
    """Returns bracket, rung, fidelity and architectures int32 [k, L] of the first rung that can begin, or None.

    A rung is told at once, so that one without any finite score is under way, or ends its bracket.
    """
    last: dict[int, int] = {}
    for number, rung in zip(state.bracket.tolist(), state.rung.tolist(), strict=True):
        last[number] = rung
    for number, rung in last.items():
        rungs = bracket_of(number)
        within = (state.bracket == number) & (state.rung == rung)
        if rung + 1 == len(rungs):
            continue
        rows = np.flatnonzero(within & np.isfinite(state.scores).all(1))
        if len(rows):
            fidelity, count = rungs[rung + 1]
            promoted = state.scores[_promoted(state, rungs[rung].fidelity)]
            best = rows[best_first(state.scores[rows], count, along, promoted)]
            return number, rung + 1, fidelity, state.architectures[best]
    return None


def _promoted(state: History, fidelity: int) -> np.ndarray:
    """Returns the rows of a fidelity that were trained longer afterwards, int [k]."""
    longer = {row.tobytes() for row in state.architectures[state.fidelity > fidelity]}
    rows = np.flatnonzero(state.scored_at(fidelity))
    return np.array([row for row in rows if state.architectures[row].tobytes() in longer], np.int64)


def widest_of(brackets: Sequence[Bracket]) -> int:
    """Returns the architectures of the largest rung."""
    return max(rung.size for bracket in brackets for rung in bracket)
