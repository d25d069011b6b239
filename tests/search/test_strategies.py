"""What every strategy of the registry must do, whatever it is."""

import functools
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import Domain, product_domain
from parsec.evaluate.table import table_evaluator
from parsec.run.trials import Task, play_run, run_trials
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy, names
from parsec.tables.table import Table, make_table, table_domain

# Those of several objectives are in test_many_objectives.py.
NAMES = list(names(many=False))


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


class Problem(NamedTuple):
    """A domain, and a score for each of its architectures.

    Attributes:
      domain: what strategies see.
      rows: `rows(architectures) -> int [B]`, a number for each; -1 for one that is not valid.
      score: `score(architectures) -> float [B]`, of valid ones.
      options: of strategies that would otherwise take long to learn anything.
    """

    domain: Domain
    rows: Callable[[np.ndarray], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]
    options: dict[str, dict[str, Any]]


@functools.cache
def problem_of(kind: str) -> Problem:
    """Named "gaps" it has invalid combinations and a pool; "large" is sixty million architectures without one."""
    if kind == "gaps":
        table = GAPS()
        return Problem(table_domain(table), table.find, lambda a: table.columns["score"][table.find(a)], {})
    sizes = np.full(10, 6)
    domain = product_domain(tuple(sizes.tolist()))
    assert domain.pool is None
    place = 6 ** np.arange(10)

    def rows(architectures: np.ndarray) -> np.ndarray:
        inside = ((architectures >= 0) & (architectures < sizes)).all(1)
        return np.where(inside, architectures @ place, -1)

    tree = {"initial": 8, "select": 6, "min_samples": 2, "candidates": 16, "budget": 256}
    network = {"members": 2, "width": 16, "steps": 20, "first_training": 10}
    options = {"lanas": tree, "la_mcts": {**tree, "leaf_size": 6}, "alphax": network}
    return Problem(domain, rows, lambda a: np.cos(a * np.arange(1, 11)).sum(1), options)


PROBLEMS = pytest.mark.parametrize("kind", ["gaps", "large"])


def make(name: str, kind: str) -> Strategy:
    problem = problem_of(kind)
    made = make_strategy(name, problem.domain, problem.options.get(name, {}))
    return made._replace(ask=jax.jit(made.ask), tell=jax.jit(made.tell)) if made.jittable else made


@functools.cache
def strategy_of(name: str, kind: str = "gaps") -> Strategy:
    """The strategy on a problem, compiled where it can be; shared by the tests."""
    return make(name, kind)


def task(name: str, budget: int) -> Task:
    return Task(name, {}, ("score",), budget, "unique", 0)


def advance(
    strategy: Strategy, state: Any, steps: range, key: jax.Array, fails: Any, kind: str = "gaps"
) -> tuple[list, list, Any]:
    """Asks and tells; `fails(step, rows)` says which scores are NaN. Returns proposals, infos and the state."""
    problem = problem_of(kind)
    asked, infos = [], []
    for step in steps:
        architectures, state = strategy.ask(jax.random.fold_in(key, step), state)
        architectures = np.asarray(architectures)
        rows = problem.rows(architectures)
        offered = architectures[:, 0] >= 0
        assert (rows[offered] >= 0).all(), "an invalid architecture was proposed"
        scores = np.where(offered & ~fails(step, rows), problem.score(architectures), np.nan)
        state, info = strategy.tell(state, architectures, scores.astype(np.float32)[:, None])
        expected = int((offered & np.isnan(scores)).sum())
        assert int(info["failed"]) == expected
        asked.append(architectures)
        infos.append(info)
    return asked, infos, state


def never(step: int, rows: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), bool)


@PROBLEMS
@pytest.mark.parametrize("name", NAMES)
def test_asks_for_valid_int32_architectures_of_one_shape(name: str, kind: str, key: jax.Array) -> None:
    strategy = strategy_of(name, kind)
    asked, infos, _ = advance(strategy, strategy.init(key), range(12), key, never, kind)
    assert {a.shape for a in asked} == {asked[0].shape} and asked[0].dtype == np.int32
    assert all(np.ndim(value) == 0 for info in infos for value in info.values())


@PROBLEMS
@pytest.mark.parametrize("name", NAMES)
def test_is_a_function_of_its_key(name: str, kind: str, key: jax.Array) -> None:
    strategy = strategy_of(name, kind)
    first, _, _ = advance(strategy, strategy.init(key), range(12), key, never, kind)
    again, _, _ = advance(strategy, strategy.init(key), range(12), key, never, kind)
    other = jax.random.key(1)
    different, _, _ = advance(strategy, strategy.init(other), range(12), other, never, kind)
    np.testing.assert_array_equal(first, again)
    assert any((a != b).any() for a, b in zip(first, different, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_uses_every_key_once(name: str, key: jax.Array) -> None:
    made = make_strategy(name, product_domain((3, 2, 4)))
    if not made.jittable:
        pytest.skip("draws from numpy, seeded by the key")
    start, ask = jax.random.split(key)
    with jax.debug_key_reuse(True):
        jax.jit(made.ask)(ask, jax.jit(made.init)(start))


@pytest.mark.parametrize("name", NAMES)
def test_reads_the_first_objective_alone(name: str, key: jax.Array) -> None:
    strategy = strategy_of(name)
    asked, state = strategy.ask(key, strategy.init(key))
    first = np.linspace(1.0, 2.0, len(asked), dtype=np.float32)
    first[1:2] = np.nan
    others = np.stack([first, -first, np.full_like(first, np.nan), np.full_like(first, np.inf)], 1)
    alone, info = strategy.tell(state, asked, first[:, None])
    among, info_among = strategy.tell(state, asked, others)
    jax.tree.map(np.testing.assert_array_equal, (alone, info), (among, info_among))
    changed, _ = strategy.tell(state, asked, others[:, [1, 0, 2, 3]])
    leaves = zip(jax.tree.leaves(alone), jax.tree.leaves(changed), strict=True)
    assert len(asked) == 1 or any(not np.array_equal(a, b, equal_nan=True) for a, b in leaves)


@pytest.mark.parametrize("name", NAMES)
def test_compiles_once(name: str, key: jax.Array) -> None:
    made = make_strategy(name, problem_of("gaps").domain)
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


@PROBLEMS
@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_saved_leaves_as_if_uninterrupted(name: str, kind: str, key: jax.Array) -> None:
    strategy = strategy_of(name, kind)
    _, _, state = advance(strategy, strategy.init(key), range(15), key, never, kind)
    expected, _, _ = advance(strategy, state, range(15, 25), key, never, kind)

    saved = [save_leaf(leaf) for leaf in jax.tree.leaves(state)]
    # A new strategy restores it, so nothing may hide in the old one.
    fresh = make(name, kind)
    structure = jax.tree.structure(state)
    restored = jax.tree.unflatten(structure, [load_leaf(leaf) for leaf in saved])
    resumed, _, _ = advance(fresh, restored, range(15, 25), key, never, kind)
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


@PROBLEMS
@pytest.mark.parametrize("name", NAMES)
def test_survives_failed_evaluations(name: str, kind: str, key: jax.Array) -> None:
    strategy = strategy_of(name, kind)

    def fails(step: int, rows: np.ndarray) -> np.ndarray:
        # Everything fails at first; later a third of the architectures always does.
        return np.full(len(rows), step < 6) | (rows % 3 == 0)

    asked, _, state = advance(strategy, strategy.init(key), range(30), key, fails, kind)
    # AlphaX marks as NaN what it has no prediction of.
    for leaf in jax.tree.leaves(state) if name != "alphax" else ():
        values = np.asarray(leaf)
        # Stored scores may be NaN; whatever else a strategy computes must not all turn into it.
        assert values.dtype.kind != "f" or values.size < 2 or not np.isnan(values).all()
    late = np.concatenate(asked[-8:])
    assert len(np.unique(late, axis=0)) > 1


@PROBLEMS
@pytest.mark.parametrize("name", NAMES)
def test_can_be_asked_again_before_it_is_told(name: str, kind: str, key: jax.Array) -> None:
    strategy, problem = strategy_of(name, kind), problem_of(kind)
    state = strategy.init(key)
    for turn in range(4):
        under_way = []
        for at in range(3):
            architectures, state = strategy.ask(jax.random.fold_in(key, 3 * turn + at), state)
            under_way.append(np.asarray(architectures))
        for architectures in reversed(under_way):
            rows = problem.rows(architectures)
            assert (rows[architectures[:, 0] >= 0] >= 0).all()
            scores = np.where(rows >= 0, problem.score(architectures), np.nan).astype(np.float32)
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


@functools.cache
def mean_best(name: str) -> float:
    """Returns the mean over runs of the best score within 80 queries; of what the host plays, slowly, fewer runs."""
    table = PRODUCT()
    runs = 12 if strategy_of(name).jittable else 4
    found = run_trials(lambda: (table, table_domain(table)), task(name, 80), runs)
    return float(table.columns["score"][found.rows].max(1).mean())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_is_better_than_random_search(name: str) -> None:
    assert mean_best(name) > mean_best("random")


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
