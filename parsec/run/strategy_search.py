"""A search by any strategy on any evaluator: ask, evaluate, tell, until the budget is spent.

Every evaluation is a line of evaluations.jsonl, written before the strategy is told of it. A strategy is deterministic
from its key, so a resumed run asks the same questions again, answers them from the file, and goes on where the file
ends: a run that was killed loses the evaluation under way and nothing else, and the strategy's state needs no
checkpoint.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from parsec.cells import Space
from parsec.cells.domain import product_domain
from parsec.errors import UserError
from parsec.evaluate.train import Evaluate, Evaluated
from parsec.run.metrics import MetricsFile, truncate_after
from parsec.run.progress import Progress
from parsec.run.settings import StrategySettings
from parsec.run.signals import Stop, StoppedError, graceful_stop
from parsec.run.workdir import TIMING, Claim, append, read_json, write_json_atomic, write_text_atomic
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy

EVALUATIONS = "evaluations.jsonl"
# The children that the found one is compared with at the end, where comparing them costs a training each.
COMPARED = "compared.jsonl"
# Proposals for each evaluation of the budget after which a strategy that only repeats itself is left as it stands.
_PROPOSALS_PER_EVALUATION = 10


def check_strategy(settings: StrategySettings, space: Space) -> None:
    """Raises `UserError` where the budget is larger than the space, or an option is not the strategy's."""
    if settings.evaluations > space.cardinality:
        raise UserError(
            f"config.strategy.evaluations={settings.evaluations} is more than the {space.cardinality} architectures of "
            f"{space.name}"
        )
    _make(settings, space)


def run_strategy(
    run: Claim, settings: StrategySettings, space: Space, seed: int, evaluate: Evaluate, *, after: int = 0
) -> Evaluated:
    """Returns every evaluation of a search, resuming where evaluations.jsonl ends.

    Only an architecture's first proposal is evaluated and counted; a repeated one is told its score again.

    Args:
      run: the claimed run directory.
      settings: the strategy's name and its budget.
      space: whose every vector of options is an architecture.
      seed: of the strategy's key.
      evaluate: scores one architecture.
      after: steps that metrics.jsonl has lines of already; the n-th evaluation is its step `after` + n.

    Raises:
      UserError: the strategy does not fit the space, the file is damaged or holds other evaluations than this run's,
        something cannot be written, or every evaluation failed.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; everything evaluated is in the file.
    """
    strategy = _make(settings, space)
    ask, tell = (jax.jit(strategy.ask), jax.jit(strategy.tell)) if strategy.jittable else (strategy.ask, strategy.tell)
    key = jax.random.fold_in(jax.random.key(seed), 2)
    path = run.path / EVALUATIONS
    recorded = read_evaluations(path)
    truncate_after(run.path, after)
    metrics = MetricsFile(run.path)
    scores: dict[tuple[int, ...], float] = {}
    proposals = asks = 0

    def score_new(architecture: np.ndarray, pause: Callable[[], None]) -> float:
        done = len(scores)
        if done < len(recorded.scores):
            if not np.array_equal(recorded.architectures[done], architecture):
                raise UserError(f"line {done + 1} of {path} is not what this run evaluates; choose another --workdir")
            return float(recorded.scores[done])
        pause()
        score = evaluate(architecture, _evaluated(scores, space), pause)
        append(path, format_evaluation(architecture, score))
        return score

    state = strategy.init(jax.random.fold_in(key, 0))
    with graceful_stop() as stop, _timed(run), _progress(settings, recorded) as progress:
        if len(recorded.scores):
            progress.note(f"{len(recorded.scores)} of {settings.evaluations} evaluations are in {EVALUATIONS}")
        while True:
            asks += 1
            asked, state = ask(jax.random.fold_in(key, asks), state)
            architectures = np.asarray(asked, np.int32)
            offered = np.flatnonzero(architectures[:, 0] >= 0)
            told = np.full((len(architectures), 1), np.nan, np.float32)
            for row in offered:
                name = tuple(architectures[row].tolist())
                if name not in scores and len(scores) < settings.evaluations:
                    score = score_new(architectures[row], lambda: _raise_if(stop, after + len(scores)))
                    scores[name] = score
                    line = {"score": score, "best": _best(scores), "failed_evaluations": _failed(scores)}
                    metrics.write(after + len(scores), line)
                    progress.update(len(scores), {"best": line["best"], "failed": line["failed_evaluations"]})
                told[row] = scores.get(name, math.nan)
            proposals += len(offered)
            if len(scores) == settings.evaluations:
                break
            if not offered.size or proposals >= _PROPOSALS_PER_EVALUATION * settings.evaluations:
                progress.note(f"{settings.name} proposes nothing new; stopping after {len(scores)} evaluations")
                break
            state, _ = tell(state, architectures, told)
    if _failed(scores) == len(scores):
        raise UserError(f"all {len(scores)} evaluations failed; try a lower --config.optimizer.learning_rate")
    return _evaluated(scores, space)


def best(evaluated: Evaluated) -> np.ndarray:
    """Returns the architecture with the best score, int32 [L]; the first of equals."""
    return evaluated.architectures[int(np.nanargmax(evaluated.scores))]


def remembered(path: Path, score: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    """Returns `score`, which keeps what it has answered in a file of lines like those of evaluations.jsonl."""
    stored = read_evaluations(path)
    known = {tuple(row.tolist()): float(value) for row, value in zip(*stored, strict=True)}

    def scored(architecture: np.ndarray) -> float:
        name = tuple(np.asarray(architecture).tolist())
        if name not in known:
            known[name] = score(architecture)
            append(path, format_evaluation(architecture, known[name]))
        return known[name]

    return scored


def format_evaluation(architecture: np.ndarray, score: float) -> str:
    """Returns the line of an evaluation; a failure's score is null."""
    value = score if math.isfinite(score) else None
    return json.dumps({"architecture": np.asarray(architecture).tolist(), "score": value}) + "\n"


def read_evaluations(path: Path) -> Evaluated:
    """Returns what a file of evaluations holds, and drops a last line that was cut short.

    Raises:
      UserError: where a line is not an evaluation, or the file cannot be read.
    """
    if not path.exists():
        return Evaluated(np.zeros((0, 0), np.int32), np.zeros(0))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text_atomic(path, whole)
    rows, scores = [], []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = json.loads(line)
            rows.append(np.array(entry["architecture"], np.int32))
            scores.append(math.nan if entry["score"] is None else float(entry["score"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"line {number} of {path} is not an evaluation; choose another --workdir") from error
    if len({row.shape for row in rows}) > 1:
        raise UserError(f"{path} holds architectures of different lengths; choose another --workdir")
    return Evaluated(np.stack(rows) if rows else np.zeros((0, 0), np.int32), np.array(scores, np.float64))


def _progress(settings: StrategySettings, recorded: Evaluated) -> Progress:
    return Progress(settings.evaluations, start=len(recorded.scores), label=settings.name)


def _raise_if(stop: Stop, step: int) -> None:
    if stop.signal is not None:
        raise StoppedError(stop.signal, step)


def _make(settings: StrategySettings, space: Space) -> Strategy:
    options = {}
    for text in settings.options:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"config.strategy.options has {text!r}; write OPTION=VALUE, such as batch=8")
        options[name] = value
    return make_strategy(settings.name, product_domain(tuple(map(int, space.sizes))), options)


def _evaluated(scores: dict[tuple[int, ...], float], space: Space) -> Evaluated:
    architectures = np.array(list(scores), np.int32).reshape(-1, len(space.sizes))
    return Evaluated(architectures, np.array(list(scores.values()), np.float64))


def _best(scores: dict[tuple[int, ...], float]) -> float:
    return max((score for score in scores.values() if math.isfinite(score)), default=math.nan)


def _failed(scores: dict[tuple[int, ...], float]) -> int:
    return sum(not math.isfinite(score) for score in scores.values())


@contextmanager
def _timed(run: Claim) -> Iterator[None]:
    """Adds the seconds spent inside to timing.json, over all the processes that worked on the run."""
    began = time.monotonic()
    try:
        yield
    finally:
        path = run.path / TIMING
        timing = read_json(path) if path.exists() else {}
        spent = timing.get("evaluation_seconds", 0.0) + time.monotonic() - began
        write_json_atomic(path, timing | {"evaluation_seconds": round(spent, 3)})
