"""Many independent runs of one strategy on a table, charged by one rule.

What is charged. With `count="unique"` a query is the first evaluation of a valid architecture in that run; a proposal
that repeats one is answered from what is known and is free. With `count="all"` every proposal is charged, as in the
published NAS-Bench-201 baselines. A failed evaluation is charged, a row of -1 never is. A run ends when its budget is
spent, or after `PROPOSALS_PER_QUERY` proposals for each query of the budget: a strategy that has converged only repeats
itself, and its run is then left as it stands.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import UserError, unknown
from parsec.search.contract import Strategy
from parsec.search.registry import STRATEGIES, Entry, make_strategy
from parsec.tables.table import Table

COUNTS = ("unique", "all")
PROPOSALS_PER_QUERY = 10
# Runs of a jittable strategy compiled into one program, and what their "seen" marks may take together.
_LANES = 250
_SEEN_BYTES = 2**28


class Trials(NamedTuple):
    """What n runs of a strategy evaluated.

    Attributes:
      rows: the table's row of every charged query in order, int32 [n, budget]; -1 after a run that ended early.
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
      objective: the scores told, a column of the table or `-column`.
      budget: queries of each run.
      count: which proposals are charged, one of `COUNTS`.
      seed: the runs use `fold_in(key(seed), i)` for i = 0 .. n - 1, so more runs only add to fewer.
    """

    strategy: str
    options: dict[str, Any]
    objective: str
    budget: int
    count: str
    seed: int


# Returns the table and its domain; called again in every worker process, so it must be picklable.
Load = Callable[[], tuple[Table, Domain]]


def run_trials(load: Load, task: Task, runs: int, workers: int = 1) -> Trials:
    """Returns what `runs` independent runs of a strategy evaluated.

    A jittable strategy runs as one compiled program, vectorised over runs. Any other loops on the host, over `workers`
    processes. The result depends on neither `workers` nor the number of cores.

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
    strategy = make_strategy(task.strategy, domain, task.options)
    scores = table.objective(task.objective)
    if strategy.jittable:
        return _compiled(strategy, table, scores, task, runs)
    if workers == 1 or runs == 1:
        return _stack([play(strategy, table, scores, task, run) for run in range(runs)])
    context = multiprocessing.get_context("spawn")
    entry = STRATEGIES[task.strategy]
    with ProcessPoolExecutor(min(workers, runs), context, initializer=_worker, initargs=(load, task, entry)) as pool:
        return _stack(list(pool.map(_play_in_worker, range(runs))))


def play(strategy: Strategy, table: Table, scores: np.ndarray, task: Task, run: int) -> tuple[np.ndarray, int]:
    """Returns the charged rows int32 [budget] and the proposals of one run, on the host.

    Args:
      strategy: any strategy; a jittable one gives what the compiled program gives.
      table: where architectures are looked up.
      scores: the table's scores, float64 [N].
      task: budget, count and seed.
      run: the number of the run.

    Raises:
      RuntimeError: if the strategy proposes an architecture that the table does not hold.
    """
    ask, tell = (jax.jit(strategy.ask), jax.jit(strategy.tell)) if strategy.jittable else (strategy.ask, strategy.tell)
    key = jax.random.fold_in(jax.random.key(task.seed), run)
    state = strategy.init(jax.random.fold_in(key, 0))
    rows = np.full(task.budget, -1, np.int32)
    seen = np.zeros(len(table), bool)
    charged = proposals = asks = 0
    while charged < task.budget and proposals < PROPOSALS_PER_QUERY * task.budget:
        asks += 1
        asked, state = ask(jax.random.fold_in(key, asks), state)
        architectures = np.asarray(asked, np.int32)
        found = table.find(architectures)
        offered = architectures[:, 0] >= 0
        if (offered & (found < 0)).any():
            wrong = architectures[offered & (found < 0)][0].tolist()
            raise RuntimeError(f"strategy {task.strategy} proposed {wrong}, which is not in table {table.name}")
        if not offered.any():
            # Nothing left to propose: the space is exhausted.
            break
        told = np.where(offered, scores[found], np.nan).astype(np.float32)
        for row in found[offered]:
            if (task.count == "all" or not seen[row]) and charged < task.budget:
                rows[charged] = row
                charged += 1
            seen[row] = True
        proposals += int(offered.sum())
        state, _ = tell(state, architectures, told[:, None])
    return rows, proposals


def _stack(played: list[tuple[np.ndarray, int]]) -> Trials:
    return Trials(np.stack([rows for rows, _ in played]), np.array([proposals for _, proposals in played], np.int32))


def _compiled(strategy: Strategy, table: Table, scores: np.ndarray, task: Task, runs: int) -> Trials:
    """Runs a jittable strategy, equal chunks of runs in as many threads as there are cores."""
    lanes = max(1, min(-(-runs // 2), _LANES, _SEEN_BYTES // len(table)))
    chunks = -(-runs // lanes)
    base = jax.random.key(task.seed)
    keys = jax.vmap(lambda run: jax.random.fold_in(base, run))(jnp.arange(chunks * lanes)).reshape(chunks, lanes)
    told = jnp.asarray(scores, jnp.float32)
    program = jax.jit(functools.partial(_play_lanes, strategy, table.lookup, task.budget, task.count == "all"))
    compiled = program.lower(keys[0], told).compile()
    with ThreadPoolExecutor(min(chunks, os.cpu_count() or 1)) as pool:
        done = list(pool.map(lambda part: jax.block_until_ready(compiled(part, told)), keys))
    rows, proposals = (np.concatenate([np.asarray(part[at]) for part in done])[:runs] for at in (0, 1))
    return Trials(rows, proposals)


class _Lanes(NamedTuple):
    """Runs in lockstep; a lane whose budget is spent goes on proposing, but nothing of it is recorded."""

    states: Any
    seen: jax.Array  # bool [n, N]
    rows: jax.Array  # int32 [n, budget]
    charged: jax.Array  # int32 [n]
    proposals: jax.Array  # int32 [n]
    asks: jax.Array  # int32 []


def _play_lanes(
    strategy: Strategy,
    lookup: Callable[[Any], jax.Array],
    budget: int,
    charge_all: bool,
    keys: jax.Array,
    scores: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """`play` for keys [n] at once; returns rows int32 [n, budget] and proposals int32 [n]."""
    runs, most = keys.shape[0], PROPOSALS_PER_QUERY * budget

    def running(charged: jax.Array, proposals: jax.Array) -> jax.Array:
        return (charged < budget) & (proposals < most)

    def step(asks: Any, key: jax.Array, state: Any, seen: Any, rows: Any, charged: Any, proposals: Any) -> Any:
        architectures, state = strategy.ask(jax.random.fold_in(key, asks), state)
        architectures = jnp.asarray(architectures)
        offered = architectures[:, 0] >= 0
        found = lookup(architectures)
        told = jnp.where(offered & (found >= 0), scores[found], jnp.nan)
        state, _ = strategy.tell(state, architectures, told[:, None])
        same = (found[:, None] == found[None, :]) & jnp.tri(found.shape[0], k=-1, dtype=bool)
        fresh = offered if charge_all else offered & ~seen[found] & ~same.any(1)
        place = charged + jnp.cumsum(fresh) - 1
        active = running(charged, proposals)
        rows = rows.at[jnp.where(fresh & active, place, budget)].set(found, mode="drop")
        seen = seen.at[jnp.where(offered, found, seen.shape[0])].set(True, mode="drop")
        counts = (fresh.sum(dtype=jnp.int32), offered.sum(dtype=jnp.int32))
        charged = jnp.where(active, jnp.minimum(charged + counts[0], budget), charged)
        return state, seen, rows, charged, jnp.where(active, proposals + counts[1], proposals)

    def advance(lanes: _Lanes) -> _Lanes:
        asks = lanes.asks + 1
        every = jax.vmap(step, in_axes=(None, 0, 0, 0, 0, 0, 0))
        states, seen, rows, charged, proposals = every(
            asks, keys, lanes.states, lanes.seen, lanes.rows, lanes.charged, lanes.proposals
        )
        return _Lanes(states, seen, rows, charged, proposals, asks)

    none = jnp.zeros(runs, jnp.int32)
    start = _Lanes(
        states=jax.vmap(lambda key: strategy.init(jax.random.fold_in(key, 0)))(keys),
        seen=jnp.zeros((runs, scores.shape[0]), bool),
        rows=jnp.full((runs, budget), -1, jnp.int32),
        charged=none,
        proposals=none,
        asks=jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(lambda lanes: running(lanes.charged, lanes.proposals).any(), advance, start)
    return end.rows, end.proposals


# The strategy and table of this worker process, made once by `_worker`.
_worker_play: Callable[[int], tuple[np.ndarray, int]] | None = None


def _worker(load: Load, task: Task, entry: Entry) -> None:
    global _worker_play
    # A strategy registered by a config of the user's own is unknown to a fresh process.
    STRATEGIES[task.strategy] = entry
    # A table needs no accelerator, and two processes cannot share one.
    jax.config.update("jax_platforms", "cpu")
    table, domain = load()
    strategy = make_strategy(task.strategy, domain, task.options)
    _worker_play = functools.partial(play, strategy, table, table.objective(task.objective), task)


def _play_in_worker(run: int) -> tuple[np.ndarray, int]:
    assert _worker_play is not None
    return _worker_play(run)
