"""The end of a search by training: its candidates are trained once more, longer and all alike, and the best is found.

The best of many noisy scores is lucky more often than good, and what learns fast is not what learns most. A last
comparison on fresh weights answers both, as the last rung of successive halving does (Jamieson and Talwalkar 2016,
arXiv 1502.07943).
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from parsec import prior as priors
from parsec.cells import Space
from parsec.cells.domain import Domain, add_up
from parsec.evaluate.contract import Pause, no_pause
from parsec.evaluate.training import LIKELIHOOD, VALUE
from parsec.jobs.search.shared_out import Opened, evaluate_afresh
from parsec.jobs.search.strategy import Searched
from parsec.run.lines import numbers, plain, read_lines
from parsec.run.loop import timed
from parsec.run.progress import Progress
from parsec.run.signals import graceful_stop
from parsec.run.workdir import Claim, append

# What was trained at the end: candidates, and children that the found one is compared with.
COMPARED = "compared.jsonl"
# Of a prior where what is expected to be best costs more than is allowed.
_SAMPLES = 4096


class Watch(NamedTuple):
    """Who looks on while architectures are scored.

    Attributes:
      pause: called before and during evaluations; may raise.
      scored: called with the scores float64 [M] of each architecture as soon as they are known.
      note: shows a line of what happened to workers.
    """

    pause: Pause = no_pause
    scored: Callable[[np.ndarray], None] = lambda row: None
    note: Callable[[str], None] = print


NOBODY = Watch()


class FinalScores(Protocol):
    """Scores of a last comparison."""

    def __call__(self, architectures: np.ndarray, watch: Watch = NOBODY) -> np.ndarray:
        """Returns the scores of architectures int32 [N, L], float64 [N, M]; NaN where an evaluation failed."""
        ...


def choose_finalists(searched: Searched, names: Sequence[str], space: Space, domain: Domain, count: int) -> np.ndarray:
    """Returns the candidates for a last comparison, at most `count` different ones, int32 [F, L].

    They are the best evaluated architectures, after the one of which the strategy expects most, or the most probable
    of its prior: a model of all the scores may know of something better than whatever was tried. Where the domain
    does not hold that one, it is the best so of many samples of the prior within the domain, if any. Of those that
    were measured alike to the last bit, which are one network with different parts that nothing reads, the first is
    taken. Where what was told holds something that is known beforehand, the best by what was told and the best by
    what was measured take turns.

    Args:
      searched: what the search evaluated and learnt.
      names: of the evaluated scores' columns, of which the last two are measured.
      space: of the architectures.
      domain: what may be found.
      count: the most candidates.
    """
    evaluated = searched.evaluated
    finite = np.flatnonzero(np.isfinite(evaluated.scores[:, 0]))
    columns = [0, names.index(LIKELIHOOD)] if names[0] == VALUE else [0]
    orders = [finite[np.argsort(-evaluated.scores[finite, column], kind="stable")] for column in columns]
    order = np.stack(orders, 1).reshape(-1)
    ranked = evaluated.architectures[order][first_of_equals(evaluated.scores[order, -2:])]
    if searched.logits is not None:
        favourite = _favourite(searched.logits, searched.effects, space, domain)
        ranked = np.concatenate([favourite, ranked])
    return ranked[first_of_equals(ranked)[:count]]


def first_of_equals(rows: np.ndarray) -> np.ndarray:
    """Returns where each different row of [N, D] stands first, int [n], rising."""
    return np.sort(np.unique(rows, axis=0, return_index=True)[1])


def _favourite(logits: np.ndarray, effects: np.ndarray | None, space: Space, domain: Domain) -> np.ndarray:
    effects = logits if effects is None else effects
    best = np.asarray(priors.mode(effects, space.mask))[None]
    if np.asarray(domain.valid(best)).all():
        return best
    drawn = np.asarray(priors.sample(jax.random.key(0), jnp.asarray(logits), jnp.asarray(space.mask), _SAMPLES))
    drawn = drawn[np.asarray(domain.valid(drawn))]
    return drawn[np.argsort(-add_up(effects, drawn), kind="stable")[:1]]


def decide(run: Claim, finalists: np.ndarray, scores: FinalScores) -> np.ndarray:
    """Returns the best of the finalists int32 [F, L] by the first of their scores, int32 [L]; the first of equals.

    Raises:
      UserError, StoppedError: as of `train_again`.
    """
    known = train_again(run, finalists, scores)[:, 0]
    return finalists[int(np.nanargmax(known))] if np.isfinite(known).any() else finalists[0]


def train_again(run: Claim, finalists: np.ndarray, scores: FinalScores) -> np.ndarray:
    """Returns the scores of the finalists int32 [F, L], float64 [F, M]; NaN where a training failed.

    Raises:
      UserError: the file of earlier scores is damaged.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; what was trained is kept.
    """
    known: list[float] = []
    with (
        graceful_stop() as stop,
        timed(run, "final_seconds"),
        Progress(len(finalists), start=0, label="candidates trained again") as progress,
    ):

        def pause() -> None:
            stop.heed(len(known))

        def watch(row: np.ndarray) -> None:
            known.append(row[0])
            progress.update(len(known), {"best": max(filter(math.isfinite, known), default=math.nan)})

        return scores(finalists, Watch(pause, watch, progress.note))


def remembered(path: Path, opened: Opened) -> FinalScores:
    """Returns an evaluator's scores, each architecture evaluated once: the answers are kept in a file of lines.

    The evaluator is opened where there is something to evaluate.
    """
    known = dict(read_lines(path, _parse_scores, "an evaluation"))

    def scores(architectures: np.ndarray, watch: Watch = NOBODY) -> np.ndarray:
        names = list(dict.fromkeys(tuple(row.tolist()) for row in np.asarray(architectures)))
        missing = [name for name in names if name not in known]
        for name in names:
            if name in known:
                watch.scored(known[name])
        if missing:
            with opened() as (evaluator, workers):
                for first in range(0, len(missing), evaluator.together):
                    some = missing[first : first + evaluator.together]
                    watch.pause()
                    rows = np.array(some, np.int32)
                    found = evaluate_afresh(evaluator, workers, rows, watch.pause, watch.note)
                    for name, row in zip(some, found, strict=True):
                        told = plain(row)
                        append(path, json.dumps({"architecture": list(name), "scores": told}) + "\n")
                        known[name] = numbers(told)
                        watch.scored(known[name])
        return np.stack([known[tuple(row.tolist())] for row in np.asarray(architectures)])

    return scores


def _parse_scores(line: Any) -> tuple[tuple[int, ...], np.ndarray]:
    return tuple(map(int, line["architecture"])), numbers(line["scores"])
