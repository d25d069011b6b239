"""The one loop of every search that is told scores: ask, evaluate, tell, until the ledger says that the run is over.

`play` is the host's form, for any strategy and evaluator, one evaluation after another or several under way, and
`play_lanes` the form inside a compiled program, for strategies and evaluators in plain `jax.numpy`, many runs side by
side. They evaluate the same architectures from the same key.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.errors import UserError
from parsec.evaluate.contract import Evaluator, Pause, no_pause
from parsec.keys import fold
from parsec.run.journal import Asked, Journal, Scored, Told
from parsec.run.ledger import Ask, Ledger, Rule, Tally, enter_ask, is_over, open_tally
from parsec.search.contract import State, Strategy

# Time between two looks at whether to stop, while evaluations are waited for.
_PATIENCE_SECONDS = 0.5


def play(
    strategy: Strategy,
    evaluator: Evaluator,
    ledger: Ledger,
    key: jax.Array,
    *,
    journal: Journal | None = None,
    watch: Callable[[np.ndarray], None] = lambda scores: None,
    pause: Pause = no_pause,
    pool: Executor | None = None,
    under_way: int = 1,
) -> State:
    """Plays a run to its end and returns the strategy's last state; the ledger then holds what was evaluated.

    Args:
      strategy: proposes and learns.
      evaluator: scores.
      ledger: of this run, empty.
      key: the strategy's; its `init` and its asks each have a key of their own.
      journal: done again first, then written on; None keeps none.
      watch: called with the scores [M] of each evaluation, those of the journal too.
      pause: called before and during evaluations; may raise.
      pool: where evaluations run; None evaluates in turn, here.
      under_way: evaluations below which the strategy is asked again; at most twice as many asks are open. With 1 it is
        told all that it asked for before that, in the order in which evaluations are begun, and a run is the same in a
        pool of any size. With more it depends on the order in which they finish, which the journal keeps.

    Raises:
      UserError: the strategy proposes what does not exist, or the journal is another run's.
    """
    ask, tell = (jax.jit(strategy.ask), jax.jit(strategy.tell)) if strategy.jittable else (strategy.ask, strategy.tell)
    state = strategy.init(fold(key, "init"))
    asks = 0
    open_asks: dict[int, Ask] = {}
    running: dict[int, Future[np.ndarray]] = {}

    def begin() -> Asked:
        nonlocal state, asks
        asks += 1
        proposed, state = ask(jax.random.fold_in(fold(key, "ask"), asks), state)
        open_asks[asks] = ledger.admit(proposed)
        return Asked(asks, open_asks[asks].architectures)

    def finish(number: int) -> None:
        nonlocal state
        told = open_asks.pop(number)
        state, _ = tell(state, told.architectures, ledger.told(told))

    def write(entry: Asked | Scored | Told) -> None:
        if journal is not None:
            journal.write(entry)

    def enter(row: int, scores: np.ndarray) -> None:
        ledger.enter(row, scores)
        write(Scored(ledger.architecture(row), scores))
        watch(scores)

    if journal is not None:
        _replay(journal, ledger, begin, finish, watch, open_asks)
    while True:
        for number in [number for number, each in open_asks.items() if not ledger.missing(each)]:
            finish(number)
            write(Told(number))
        missing = list(dict.fromkeys(row for each in open_asks.values() for row in ledger.missing(each)))
        # An ask that only repeats what is under way keeps no worker busy; some are worth another, but not any number.
        if len(missing) < under_way and len(open_asks) < 2 * under_way and not ledger.over:
            write(begin())
            continue
        if not missing:
            return state
        architectures = np.stack([ledger.architecture(row) for row in missing])
        if evaluator.cost is not None:
            # The longest of those that run side by side keeps the others waiting.
            order = np.argsort(evaluator.cost(architectures), kind="stable")
            missing, architectures = [missing[at] for at in order], architectures[order]
        if pool is None:
            pause()
            some, architectures = missing[: evaluator.together], architectures[: evaluator.together]
            for row, scores in zip(some, evaluator.evaluate(architectures, ledger.begun(some[0]), pause), strict=True):
                enter(row, scores)
            continue
        for row in missing:
            if row not in running:
                begun = (ledger.architecture(row)[None], ledger.begun(row), no_pause)
                running[row] = pool.submit(evaluator.evaluate, *begun)
        awaited = [running[missing[0]]] if under_way == 1 else list(running.values())
        while not any(future.done() for future in awaited):
            pause()
            wait(awaited, timeout=_PATIENCE_SECONDS, return_when=FIRST_COMPLETED)
        for row in [row for row, future in running.items() if future in awaited and future.done()]:
            enter(row, running.pop(row).result()[0])


def _replay(
    journal: Journal,
    ledger: Ledger,
    begin: Callable[[], Asked],
    finish: Callable[[int], None],
    watch: Callable[[np.ndarray], None],
    open_asks: dict[int, Ask],
) -> None:
    """Does again what a journal says, with its scores; raises `UserError` where this run would have done otherwise."""
    for at, entry in enumerate(journal.entries):
        if isinstance(entry, Asked):
            begun = None if ledger.over else begin()
            if begun is None or begun.ask != entry.ask or not np.array_equal(begun.architectures, entry.architectures):
                raise journal.mismatch(at)
        elif isinstance(entry, Told):
            if entry.ask not in open_asks or ledger.missing(open_asks[entry.ask]):
                raise journal.mismatch(at)
            finish(entry.ask)
        else:
            waiting = [row for each in open_asks.values() for row in ledger.missing(each)]
            rows = [row for row in waiting if np.array_equal(ledger.architecture(row), entry.architecture)]
            if not rows:
                raise journal.mismatch(at)
            ledger.enter(rows[0], entry.scores)
            watch(entry.scores)


class Lanes(NamedTuple):
    """Runs in lockstep; a lane that is over goes on proposing, but nothing of it is recorded."""

    states: Any
    tallies: Tally
    asks: jax.Array


def play_lanes(strategy: Strategy, evaluator: Evaluator, rule: Rule, keys: jax.Array) -> Tally:
    """Returns the accounts of many runs, one for each of keys [n]; traced, for an evaluator that is traced itself."""
    lookup, size = evaluator.traced, evaluator.size
    assert lookup is not None and size is not None

    def step(asks: jax.Array, key: jax.Array, state: Any, tally: Tally) -> tuple[Any, Tally]:
        proposed, state = strategy.ask(jax.random.fold_in(fold(key, "ask"), asks), state)
        architectures = jnp.asarray(proposed)
        rows, scores = lookup(architectures)
        offered = (architectures >= 0).any(1)
        state, _ = strategy.tell(state, architectures, jnp.where(offered[:, None], scores, jnp.nan))
        entered = enter_ask(rule, tally, architectures, rows)
        over = is_over(rule, tally)
        kept = jax.tree.map(
            lambda old, new: jnp.where(over, old, new), tally._replace(seen=over), entered._replace(seen=over)
        )
        # What a finished lane marks as seen is never read.
        return state, kept._replace(seen=entered.seen)

    def advance(lanes: Lanes) -> Lanes:
        asks = lanes.asks + 1
        states, tallies = jax.vmap(step, in_axes=(None, 0, 0, 0))(asks, keys, lanes.states, lanes.tallies)
        return Lanes(states, tallies, asks)

    def unfinished(lanes: Lanes) -> jax.Array:
        return (~jax.vmap(lambda tally: is_over(rule, tally))(lanes.tallies)).any()

    start = Lanes(
        states=jax.vmap(lambda key: strategy.init(fold(key, "init")))(keys),
        tallies=jax.vmap(lambda _: open_tally(rule, size))(keys),
        asks=jnp.zeros((), jnp.int32),
    )
    return jax.lax.while_loop(unfinished, advance, start).tallies


def check_asks(strategy: Strategy, name: str, length: int) -> None:
    """Raises `UserError` unless a strategy in plain `jax.numpy` proposes integers [B, L] of L choices."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    asked = jax.eval_shape(lambda k: jnp.asarray(strategy.ask(k, strategy.init(k))[0]), key)
    if len(asked.shape) != 2 or asked.shape[1] != length or not jnp.issubdtype(asked.dtype, jnp.integer):
        raise UserError(
            f"strategy {name} proposed {asked.dtype} {list(asked.shape)}; ask must return integers [B, {length}]"
        )
