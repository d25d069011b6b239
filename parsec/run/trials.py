"""Many independent runs of one strategy on a table, by the one rule of `parsec.run.ledger`."""

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import UserError, unknown
from parsec.evaluate.contract import Evaluator
from parsec.evaluate.table import fidelity_evaluator, table_evaluator
from parsec.processes import end_with_parent, leaving_interrupts
from parsec.run.ledger import COUNTS, Ledger, Rule
from parsec.run.play import check_asks, play, play_lanes
from parsec.search.contract import Strategy
from parsec.search.registry import STRATEGIES, Entry, make_strategy
from parsec.tables.fidelities import name_after
from parsec.tables.table import Table

# Runs of a jittable strategy compiled into one program, and what their "seen" marks may take together.
_LANES = 250
_SEEN_BYTES = 2**28


class Trials(NamedTuple):
    """What n runs of a strategy evaluated.

    Attributes:
      rows: the table's row of every charged query in order, int32 [n, budget]; -1 after a run that ended early. Of a
        strategy of several fidelities, the row that was trained longest within the epochs of each query, -1 where that
        was none (`longest_trainings`).
      proposals: architectures proposed by each run until it ended, repeats included, int32 [n].
    """

    rows: np.ndarray
    proposals: np.ndarray


@dataclass(frozen=True)
class Task:
    """One strategy on one table.

    Attributes:
      strategy: a name in `parsec.search.registry.STRATEGIES`.
      options: its options.
      objectives: the scores told, columns of the table or `-column`.
      budget: queries of each run.
      count: which proposals are charged, one of `COUNTS`.
      seed: the runs use `fold_in(key(seed), i)` for i = 0 .. n - 1, so more runs only add to fewer.
    """

    strategy: str
    options: dict[str, Any]
    objectives: tuple[str, ...]
    budget: int
    count: str
    seed: int


# Returns the table and its domain; called again in every worker process, so it must be picklable.
Load = Callable[[], tuple[Table, Domain]]


def run_trials(load: Load, task: Task, runs: int, workers: int = 1) -> Trials:
    """Returns what `runs` independent runs of a strategy evaluated.

    A jittable strategy runs as one compiled program, vectorised over runs. Any other loops on the host, over `workers`
    processes. On a CPU the result depends on neither `workers` nor the number of cores; beside an accelerator, workers
    still play on the CPU and one process on the accelerator, whose rounding may lead elsewhere.

    Args:
      load: returns the table and its domain; picklable where `workers` is above 1.
      task: the strategy and the table's column.
      runs: n, at least 1.
      workers: processes for strategies on the host.

    Raises:
      UserError: for a budget below 1 or, counting unique queries, above the table's size; an unknown count, strategy,
        option or column.
    """
    table, domain = load()
    if task.count not in COUNTS:
        raise unknown("count", task.count, COUNTS)
    if task.budget < 1 or (task.count == "unique" and task.budget > len(table)):
        raise UserError(
            f"budget {task.budget} does not fit; table {table.name} holds {len(table)} architectures, so it must be "
            f"1..{len(table)}"
        )
    strategy = make_strategy(task.strategy, domain, task.options, len(task.objectives))
    evaluator = _evaluator(table, domain, task)
    if strategy.jittable:
        return _compiled(strategy, evaluator, domain, task, runs)
    if workers == 1 or runs == 1:
        return _stack([play_run(strategy, evaluator, domain, task, run) for run in range(runs)])
    context = multiprocessing.get_context("spawn")
    entry = STRATEGIES[task.strategy]
    with ProcessPoolExecutor(min(workers, runs), context, initializer=_worker, initargs=(load, task, entry)) as pool:
        resource_tracker.ensure_running()
        with leaving_interrupts():
            played = pool.map(_play_in_worker, range(runs))
        return _stack(list(played))


def play_run(strategy: Strategy, evaluator: Evaluator, domain: Domain, task: Task, run: int) -> tuple[np.ndarray, int]:
    """Returns the rows int32 [budget] and the proposals of one run, as of `Trials`, on the host.

    A jittable strategy plays what the compiled program plays.
    """
    rule = _rule(domain, task)
    ledger = Ledger(rule, domain, evaluator.rows, len(task.objectives), task.strategy)
    play(strategy, evaluator, ledger, jax.random.fold_in(jax.random.key(task.seed), run))
    charged = np.full(rule.most_queries, -1, np.int32)
    charged[: len(ledger.charged)] = ledger.charged
    return longest_trainings(rule, charged[None], evaluator)[0], ledger.proposals


def longest_trainings(rule: Rule, charged: np.ndarray, evaluator: Evaluator) -> np.ndarray:
    """Returns the row that was trained longest within the epochs of each query of the budget, int32 [n, budget].

    Within the epochs of one longest training no two of them end, so that there is at most one. With one fidelity this
    is `charged` itself.

    Args:
      rule: of the runs.
      charged: number of every charged query in order, int32 [n, most_queries], -1 after a run's end.
      evaluator: that numbered them.
    """
    count, last = (evaluator.size or 0) // len(rule.epochs), len(rule.epochs) - 1
    if last == 0:
        return charged
    rows = np.full((len(charged), rule.budget), -1, np.int32)
    fidelity = np.where(charged >= 0, charged // count, 0)
    ends = np.cumsum(np.where(charged >= 0, np.array(rule.epochs)[fidelity], 0), axis=1)
    run, at = np.nonzero((charged >= 0) & (fidelity == last))
    rows[run, (ends[run, at] - 1) // rule.epochs[last]] = charged[run, at] % count
    return rows


def _fidelities(domain: Domain, task: Task) -> tuple[int, ...]:
    """Returns the epochs that a task's strategy chooses among; (1,) for one that does not choose."""
    return domain.fidelities if STRATEGIES[task.strategy].multi_fidelity else (1,)


def _rule(domain: Domain, task: Task) -> Rule:
    return Rule(task.budget, task.count, _fidelities(domain, task))


def _evaluator(table: Table, domain: Domain, task: Task) -> Evaluator:
    fidelities = _fidelities(domain, task)
    if len(fidelities) == 1:
        return table_evaluator(table, task.objectives)
    return fidelity_evaluator(table, [tuple(name_after(name, e) for name in task.objectives) for e in fidelities])


def _stack(played: list[tuple[np.ndarray, int]]) -> Trials:
    return Trials(np.stack([rows for rows, _ in played]), np.array([proposals for _, proposals in played], np.int32))


def _compiled(strategy: Strategy, evaluator: Evaluator, domain: Domain, task: Task, runs: int) -> Trials:
    """Runs a jittable strategy, equal chunks of runs one after another.

    Never two chunks at once: executions of programs with linear algebra, started from two threads, can wait for each
    other forever in XLA's pool of threads for the CPU.
    """
    size, rule = evaluator.size or 1, _rule(domain, task)
    lanes = max(1, min(runs, _LANES, _SEEN_BYTES // size))
    chunks = -(-runs // lanes)
    base = jax.random.key(task.seed)
    keys = jax.vmap(lambda run: jax.random.fold_in(base, run))(jnp.arange(chunks * lanes)).reshape(chunks, lanes)
    check_asks(strategy, task.strategy, len(rule.sizes(domain)))
    program = jax.jit(functools.partial(play_lanes, strategy, evaluator, rule))
    done = [jax.block_until_ready(program(part)) for part in keys]
    rows, proposals, invalid = (
        np.concatenate([np.asarray(getattr(part, name)) for part in done])[:runs]
        for name in ("rows", "proposals", "invalid")
    )
    if invalid.any():
        # The same run on the host tells what was proposed.
        play_run(strategy, evaluator, domain, task, int(np.flatnonzero(invalid)[0]))
    return Trials(longest_trainings(rule, rows, evaluator), proposals)


# The strategy and table of this worker process, made once by `_worker`.
_worker_play: Callable[[int], tuple[np.ndarray, int]] | None = None


def _worker(load: Load, task: Task, entry: Entry) -> None:
    global _worker_play
    end_with_parent()
    # A strategy registered by a config of the user's own is unknown to a fresh process.
    STRATEGIES[task.strategy] = entry
    # A table needs no accelerator, and two processes cannot share one.
    jax.config.update("jax_platforms", "cpu")
    table, domain = load()
    strategy = make_strategy(task.strategy, domain, task.options, len(task.objectives))
    evaluator = _evaluator(table, domain, task)
    _worker_play = functools.partial(play_run, strategy, evaluator, domain, task)


def _play_in_worker(run: int) -> tuple[np.ndarray, int]:
    assert _worker_play is not None
    return _worker_play(run)
