"""A search by any strategy on any evaluator, resumed from its journal.

Every evaluation is in journal.jsonl before the strategy is told of it: a run that was killed loses the evaluations
under way and nothing else, and the strategy's state needs no checkpoint.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from parsec.cells import Space
from parsec.cells.domain import ArrayLike, Domain, add_up
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator
from parsec.evaluate.goals import Goals, scaled
from parsec.jobs.search.domain import whole_domain
from parsec.keys import fold
from parsec.run.journal import JOURNAL, Journal, Scored
from parsec.run.ledger import Ledger, Rule
from parsec.run.loop import timed
from parsec.run.metrics import MetricsFile, truncate_after
from parsec.run.play import play
from parsec.run.progress import Progress
from parsec.run.signals import graceful_stop
from parsec.run.workdir import Claim
from parsec.run.workers import Workers
from parsec.search.contract import Strategy
from parsec.search.registry import in_charge, make_strategy
from parsec.settings.search import StrategySettings


class Searched(NamedTuple):
    """What a strategy leaves.

    Attributes:
      evaluated: every evaluation.
      logits: of the prior that it learnt, float32 [L, O]; None where it has none.
      control: of the prior that it would have learnt had the scores been dealt out to the architectures at random.
      effects: what it expects each option to add to the first score, float32 [L, O]; None where it does not say.
      expected: the first score that it expects of everything evaluated, float32 [N]; None where it does not say.
    """

    evaluated: Evaluated
    logits: np.ndarray | None = None
    control: np.ndarray | None = None
    effects: np.ndarray | None = None
    expected: np.ndarray | None = None


def check_strategy(settings: StrategySettings, space: Space, objectives: int = 0) -> None:
    """Raises `UserError` where the budget is larger than the space, or an option is not that of who searches."""
    if settings.evaluations > space.cardinality:
        raise UserError(
            f"config.strategy.evaluations={settings.evaluations} is more than the {space.cardinality} architectures of "
            f"{space.name}"
        )
    _make(settings, whole_domain(space), objectives)


def leaves_prior(settings: StrategySettings, space: Space, objectives: int = 0) -> bool:
    """Whether a search by this strategy ends with a prior over architectures; raises `UserError` for its options."""
    return _make(settings, whole_domain(space), objectives).logits is not None


def run_strategy(
    run: Claim,
    settings: StrategySettings,
    domain: Domain,
    seed: int,
    evaluator: Evaluator,
    *,
    after: int = 0,
    initial: np.ndarray | None = None,
    goals: Goals | None = None,
    workers: Workers | None = None,
    asynchronous: bool = False,
) -> Searched:
    """Returns every evaluation of a search and the prior that its strategy learnt, if any; resumes from its journal.

    Only an architecture's first proposal is evaluated and counted; a repeated one is told its scores again.

    Args:
      run: the claimed run directory.
      settings: the strategy's name and its budget.
      domain: what it proposes from.
      seed: of the strategy's key.
      evaluator: scores one architecture.
      after: steps that metrics.jsonl has lines of already; the n-th evaluation is its step `after` + n.
      initial: logits of the prior to start from, float32 [L, O], for a strategy that carries one.
      goals: of an evaluator `with_costs`, that the strategy searches for; None searches for its first objective.
      workers: to whom the evaluator belongs; None evaluates here.
      asynchronous: whether the strategy is asked again whenever one of them is free.

    Raises:
      UserError: the strategy does not fit the space, the journal is damaged or another run's, something cannot be
        written, or every evaluation failed.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; everything evaluated is in the journal.
    """
    objectives = 0 if goals is None else len(goals.names)
    name = in_charge(settings.name, objectives)
    strategy = _make(settings, replace(domain, initial=initial), objectives)
    if goals is not None:
        strategy = scaled(strategy, goals)
    journal = Journal(run.path)
    ledger = Ledger(Rule(settings.evaluations), domain, evaluator.rows, len(evaluator.objectives), name)
    truncate_after(run.path, after)
    metrics = MetricsFile(run.path)
    recorded = sum(isinstance(entry, Scored) for entry in journal.entries)
    key = fold(jax.random.key(seed), "strategy")

    with (
        graceful_stop() as stop,
        timed(run, "evaluation_seconds"),
        Progress(settings.evaluations, start=recorded, label=name) as progress,
    ):
        if recorded:
            progress.note(f"{recorded} of {settings.evaluations} evaluations are in {JOURNAL}")

        if workers is not None and not asynchronous:
            # Any key does: how many are asked for is the same of every ask.
            together = len(np.asarray(strategy.ask(key, strategy.init(fold(key, "init")))[0]))
            if together < workers.size:
                progress.note(f"{name} asks for {together} at once: {workers.size - together} workers are idle")

        def pause() -> None:
            if workers is not None:
                workers.tell(progress.note)
            stop.heed(after + len(ledger.finished().scores))

        def watch(scores: np.ndarray) -> None:
            told = ledger.finished().scores[:, 0]
            failed = int((~np.isfinite(told)).sum())
            best = np.float32(np.nanmax(told)) if failed < len(told) else math.nan
            named = dict(zip(evaluator.objectives, scores, strict=True))
            metrics.write(after + len(told), {**named, "best": best, "failed_evaluations": failed})
            progress.update(len(told), {"best": best, "failed": failed})

        pool, under_way = (None, 1) if workers is None else (workers.pool, workers.size if asynchronous else 1)
        state = play(
            strategy,
            evaluator,
            ledger,
            key,
            journal=journal,
            watch=watch,
            pause=pause,
            pool=pool,
            under_way=under_way,
        )
        evaluated = ledger.finished()
        count = len(evaluated.scores)
        if count < settings.evaluations:
            progress.note(f"{name} proposes nothing new; stopping after {count} evaluations")
    if not np.isfinite(evaluated.scores[:, 0]).any():
        raise UserError(f"all {count} evaluations failed; try a lower --config.optimizer.learning_rate")
    effects = None if strategy.effects is None else np.asarray(strategy.effects(state), np.float32)
    expected = None if strategy.expect is None else np.asarray(strategy.expect(state, evaluated.architectures))
    if strategy.logits is None:
        return Searched(evaluated, effects=effects, expected=expected)
    shuffled = _shuffle(fold(key, "control"), evaluated, domain.known)
    lost, _ = strategy.tell(strategy.init(fold(key, "init")), evaluated.architectures, shuffled)
    logits, control = (np.asarray(strategy.logits(fold(key, "prior"), each), np.float32) for each in (state, lost))
    return Searched(evaluated, logits, control, effects, expected)


def best(evaluated: Evaluated) -> np.ndarray:
    """Returns the architecture with the best first score, int32 [L]; the first of equals."""
    return evaluated.architectures[int(np.nanargmax(evaluated.scores[:, 0]))]


def _shuffle(key: jax.Array, evaluated: Evaluated, known: ArrayLike | None) -> np.ndarray:
    """Returns the scores float32 [N, M] dealt out to the architectures at random; what is known beforehand stays."""
    scores = evaluated.scores.astype(np.float32)
    stays = np.zeros(scores.shape, np.float32)
    if known is not None:
        stays[:, 0] = add_up(np.asarray(known), evaluated.architectures)
    return np.asarray(jax.random.permutation(key, scores - stays)) + stays


def _make(settings: StrategySettings, domain: Domain, objectives: int) -> Strategy:
    options = {}
    for text in settings.options:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"config.strategy.options has {text!r}; write OPTION=VALUE, such as batch=8")
        options[name] = value
    return make_strategy(in_charge(settings.name, objectives), domain, options, max(objectives, 1))
