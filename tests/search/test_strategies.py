"""What every strategy of the registry must do, whatever it is."""

import functools
import io
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.evaluate.table import table_evaluator
from parsec.run.trials import Task, play_run, run_trials
from parsec.search.contract import Strategy
from parsec.search.registry import STRATEGIES, make_strategy
from parsec.tables.table import Table, make_table, table_domain

NAMES = list(STRATEGIES)


@functools.cache
def landscape(sizes: tuple[int, ...], valid_only: bool) -> Table:
    """A table with main effects and interactions; `valid_only` leaves out every third architecture."""
    rng = np.random.default_rng(3)
    rows = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), 1)
    if valid_only:
        rows = rows[rows.sum(1) % 3 != 0]
    score = np.zeros(len(rows))
    for at, size in enumerate(sizes):
        score += rng.normal(size=size)[rows[:, at]]
    for at in range(len(sizes) - 1):
        score += 0.5 * rng.normal(size=sizes[at : at + 2])[rows[:, at], rows[:, at + 1]]
    return make_table("landscape", np.array(sizes), rows, {"score": score})


GAPS = functools.partial(landscape, (4, 3, 5, 4), True)
PRODUCT = functools.partial(landscape, (4, 4, 4, 4, 4), False)


@functools.cache
def strategy_of(name: str) -> Strategy:
    """The strategy on the domain with invalid combinations, compiled where it can be; shared by the tests."""
    made = make_strategy(name, table_domain(GAPS()))
    return made._replace(ask=jax.jit(made.ask), tell=jax.jit(made.tell)) if made.jittable else made


def task(name: str, budget: int) -> Task:
    return Task(name, {}, ("score",), budget, "unique", 0)


def advance(strategy: Strategy, state: Any, steps: range, key: jax.Array, fails: Any) -> tuple[list, list, Any]:
    """Asks and tells; `fails(step, rows)` says which scores are NaN. Returns proposals, infos and the state."""
    table = GAPS()
    asked, infos = [], []
    for step in steps:
        architectures, state = strategy.ask(jax.random.fold_in(key, step), state)
        architectures = np.asarray(architectures)
        rows = table.find(architectures)
        offered = architectures[:, 0] >= 0
        assert (rows[offered] >= 0).all(), "an invalid architecture was proposed"
        scores = np.where(offered & ~fails(step, rows), table.columns["score"][rows], np.nan)
        state, info = strategy.tell(state, architectures, scores.astype(np.float32)[:, None])
        expected = int((offered & np.isnan(scores)).sum())
        assert int(info["failed"]) == expected
        asked.append(architectures)
        infos.append(info)
    return asked, infos, state


def never(step: int, rows: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), bool)


@pytest.mark.parametrize("name", NAMES)
def test_asks_for_valid_int32_architectures_of_one_shape(name: str, key: jax.Array) -> None:
    asked, infos, _ = advance(strategy_of(name), strategy_of(name).init(key), range(12), key, never)
    assert {a.shape for a in asked} == {asked[0].shape} and asked[0].dtype == np.int32
    assert all(np.ndim(value) == 0 for info in infos for value in info.values())


@pytest.mark.parametrize("name", NAMES)
def test_is_a_function_of_its_key(name: str, key: jax.Array) -> None:
    strategy = strategy_of(name)
    first, _, _ = advance(strategy, strategy.init(key), range(12), key, never)
    again, _, _ = advance(strategy, strategy.init(key), range(12), key, never)
    other = jax.random.key(1)
    different, _, _ = advance(strategy, strategy.init(other), range(12), other, never)
    np.testing.assert_array_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, different, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_once(name: str, key: jax.Array) -> None:
    made = make_strategy(name, table_domain(GAPS()))
    if not made.jittable:
        pytest.skip("runs on the host")
    traces = {"ask": 0, "tell": 0}

    def ask(key: jax.Array, state: Any) -> Any:
        traces["ask"] += 1
        return made.ask(key, state)

    def tell(state: Any, architectures: Any, scores: Any) -> Any:
        traces["tell"] += 1
        return made.tell(state, architectures, scores)

    counted = Strategy(made.init, jax.jit(ask), jax.jit(tell))
    advance(counted, counted.init(key), range(12), key, lambda step, rows: np.full(len(rows), step == 5))
    assert traces == {"ask": 1, "tell": 1}


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_saved_leaves_as_if_uninterrupted(name: str, key: jax.Array) -> None:
    strategy = strategy_of(name)
    _, _, state = advance(strategy, strategy.init(key), range(15), key, never)
    expected, _, _ = advance(strategy, state, range(15, 25), key, never)

    saved = [save_leaf(leaf) for leaf in jax.tree.leaves(state)]
    # A new strategy restores it, so nothing may hide in the old one.
    fresh = make_strategy(name, table_domain(GAPS()))
    if fresh.jittable:
        fresh = fresh._replace(ask=jax.jit(fresh.ask), tell=jax.jit(fresh.tell))
    structure = jax.tree.structure(state)
    restored = jax.tree.unflatten(structure, [load_leaf(leaf) for leaf in saved])
    resumed, _, _ = advance(fresh, restored, range(15, 25), key, never)
    np.testing.assert_array_equal(resumed, expected)


def save_leaf(leaf: Any) -> bytes:
    if isinstance(leaf, str | bool | int | float):
        return b"json" + json.dumps(leaf).encode()
    file = io.BytesIO()
    np.save(file, np.asarray(leaf), allow_pickle=False)
    return b"npy:" + file.getvalue()


def load_leaf(saved: bytes) -> Any:
    if saved[:4] == b"json":
        return json.loads(saved[4:])
    return np.load(io.BytesIO(saved[4:]), allow_pickle=False)


@pytest.mark.parametrize("name", NAMES)
def test_survives_failed_evaluations(name: str, key: jax.Array) -> None:
    strategy = strategy_of(name)

    def fails(step: int, rows: np.ndarray) -> np.ndarray:
        # Everything fails at first; later a third of the architectures always does.
        return np.full(len(rows), step < 6) | (rows % 3 == 0)

    asked, _, state = advance(strategy, strategy.init(key), range(30), key, fails)
    # AlphaX marks as NaN what it has no prediction of.
    for leaf in jax.tree.leaves(state) if name != "alphax" else ():
        values = np.asarray(leaf)
        # Stored scores may be NaN; whatever else a strategy computes must not all turn into it.
        assert values.dtype.kind != "f" or values.size < 2 or not np.isnan(values).all()
    late = np.concatenate(asked[-8:])
    assert len(np.unique(late, axis=0)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_can_be_asked_again_before_it_is_told(name: str, key: jax.Array) -> None:
    strategy, table = strategy_of(name), GAPS()
    state = strategy.init(key)
    for turn in range(4):
        under_way = []
        for at in range(3):
            architectures, state = strategy.ask(jax.random.fold_in(key, 3 * turn + at), state)
            under_way.append(np.asarray(architectures))
        for architectures in reversed(under_way):
            rows = table.find(architectures)
            assert (rows[architectures[:, 0] >= 0] >= 0).all()
            scores = np.where(rows >= 0, table.columns["score"][rows], np.nan).astype(np.float32)
            state, _ = strategy.tell(state, architectures, scores[:, None])


@pytest.mark.parametrize("name", NAMES)
def test_respects_the_budget(name: str) -> None:
    table = GAPS()
    evaluator = table_evaluator(table, ("score",))
    rows, proposals = play_run(strategy_of(name), evaluator, table_domain(table), task(name, 33), 0)
    assert rows.shape == (33,)
    spent = rows[rows >= 0]
    assert len(np.unique(spent)) == len(spent) == 33
    assert proposals >= 33


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_is_better_than_random_search(name: str) -> None:
    table = PRODUCT()
    best = {}
    for each in ("random", name):
        found = run_trials(lambda: (table, table_domain(table)), task(each, 80), 12)
        best[each] = np.sort(table.columns["score"][found.rows].max(1))
    assert best[name].mean() > best["random"].mean()


@pytest.mark.parametrize("name", NAMES)
def test_the_compiled_program_plays_what_the_host_plays(name: str) -> None:
    table = GAPS()
    if not strategy_of(name).jittable:
        pytest.skip("runs on the host")
    compiled = run_trials(lambda: (table, table_domain(table)), task(name, 24), 3)
    evaluator = table_evaluator(table, ("score",))
    for run in range(3):
        rows, proposals = play_run(strategy_of(name), evaluator, table_domain(table), task(name, 24), run)
        np.testing.assert_array_equal(compiled.rows[run], rows)
        assert compiled.proposals[run] == proposals


def test_rows_that_propose_nothing_are_free(key: jax.Array) -> None:
    """The adaptive budget narrows to two children, and the rest of its rows are neither charged nor failed."""
    strategy = strategy_of("parsec_adaptive")
    state = strategy.init(key)
    logits = jnp.where(jax.nn.one_hot(jnp.array([1, 0, 0, 0]), 5) > 0, 8.0, 0.0)
    state = state._replace(prior=state.prior._replace(logits=logits))
    architectures, state = strategy.ask(key, state)
    offered = np.asarray(architectures)[:, 0] >= 0
    assert offered.sum() == 2 and len(offered) == 6
    scores = jnp.where(offered, 1.0, jnp.nan)[:, None]
    _, info = strategy.tell(state, architectures, scores)
    assert int(info["failed"]) == 0 and int(info["children"]) == 2
