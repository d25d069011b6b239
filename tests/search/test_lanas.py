import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from parsec.cells.domain import Domain, product_domain
from parsec.search.contract import Strategy
from parsec.search.lanas import PRESETS
from parsec.search.registry import make_strategy
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import table_domain

SIZES = (4, 4, 4, 4)
DOMAIN = product_domain(SIZES)


def lanas(domain: Domain, **options: Any) -> Strategy:
    return make_strategy("lanas", domain, options)


def la_mcts(domain: Domain, **options: Any) -> Strategy:
    return make_strategy("la_mcts", domain, options)


BOTH = pytest.mark.parametrize("make", [lanas, la_mcts])


def score(rows: np.ndarray) -> np.ndarray:
    """An objective with an interaction, a broken quarter and one best architecture, (3, 3, 2, 1); float32 [n, 1]."""
    rows = np.asarray(rows)
    good = rows @ np.array([1.0, 1.0, 0.5, -0.3]) + 1.5 * (rows[:, 2] == 2) * (rows[:, 3] == 1)
    return np.where(rows[:, 0] == 0, -50.0, good).astype(np.float32)[:, None]


def run(strategy, seed: int, asks: int, score=score, state=None, first: int = 0):
    """Returns the architectures asked for in order, int32 [n, L], and the final state."""
    keys = jax.random.split(jax.random.key(seed), 128)
    state = strategy.init(keys[-1]) if state is None else state
    asked = []
    for at in range(first, first + asks):
        rows, state = strategy.ask(keys[at], state)
        state, _ = strategy.tell(state, rows, score(rows))
        asked.append(np.asarray(rows))
    return np.concatenate(asked), state


@BOTH
def test_the_best_is_found_sooner_than_by_chance_and_nothing_is_repeated(make):
    strategy = make(DOMAIN, initial=12, select=5)
    queries = []
    for seed in range(5):
        asked, _ = run(strategy, seed, 80)
        assert len({row.tobytes() for row in asked}) == len(asked)
        assert asked.dtype == np.int32
        found = np.flatnonzero((asked == [3, 3, 2, 1]).all(1))
        queries.append(int(found[0]) + 1 if found.size else 256)
    # Uniform search without repeats needs 128 in the median.
    assert np.median(queries) <= 50, queries


@BOTH
def test_the_key_decides_and_seeds_do_not_disturb_each_other(make):
    strategy = make(DOMAIN, initial=12, select=5)
    alone = [run(strategy, seed, 40)[0] for seed in (1, 2)]
    assert (alone[0] != alone[1]).any()
    fresh = make(DOMAIN, initial=12, select=5)
    states, asked = [None, None], [[], []]
    for start in range(0, 40, 10):
        for at, seed in enumerate((1, 2)):
            rows, states[at] = run(fresh, seed, 10, state=states[at], first=start)
            asked[at].append(rows)
    for at in range(2):
        np.testing.assert_array_equal(np.concatenate(asked[at]), alone[at])


@BOTH
def test_a_run_resumes_from_its_leaves_in_a_new_process(make):
    whole, _ = run(make(DOMAIN, initial=12, select=5), 3, 40)
    head, state = run(make(DOMAIN, initial=12, select=5), 3, 23)
    leaves, structure = jax.tree.flatten(state)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    copies = [np.frombuffer(leaf.tobytes(), leaf.dtype).reshape(leaf.shape) for leaf in leaves]
    tail, _ = run(make(DOMAIN, initial=12, select=5), 3, 17, state=jax.tree.unflatten(structure, copies), first=23)
    np.testing.assert_array_equal(np.concatenate([head, tail]), whole)


@BOTH
def test_asking_and_telling_leave_the_callers_state_alone(make):
    strategy = make(DOMAIN, initial=6, select=5)
    _, state = run(strategy, 0, 12)
    before = jax.tree.map(np.copy, state)
    key = jax.random.key(9)
    rows, after = strategy.ask(key, state)
    strategy.tell(after, rows, score(rows))
    again, _ = strategy.ask(key, state)
    np.testing.assert_array_equal(rows, again)
    jax.tree.map(np.testing.assert_array_equal, state, before)


@BOTH
def test_several_asks_may_be_under_way_and_come_back_in_any_order(make):
    strategy = make(DOMAIN, initial=6, select=4, batch=3)
    _, state = run(strategy, 0, 4)
    under_way = []
    for at in range(4):
        rows, state = strategy.ask(jax.random.key(100 + at), state)
        assert rows.shape == (3, 4)
        under_way.append(rows)
    everything = np.concatenate(under_way)
    assert len({row.tobytes() for row in everything}) == 12
    assert len(state.archive.pending) == 12
    for rows in reversed(under_way):
        state, _ = strategy.tell(state, rows, score(rows))
    assert not len(state.archive.pending) and len(state.archive.scores) == 24


@BOTH
def test_failures_are_counted_never_learnt_from_and_never_proposed_again(make):
    def broken(rows: np.ndarray) -> np.ndarray:
        return np.where(np.asarray(rows)[:, 1:2] == 0, np.nan, score(rows))

    strategy = make(DOMAIN, initial=12, select=5)
    asked, state = run(strategy, 0, 60, score=broken)
    assert len({row.tobytes() for row in asked}) == 60
    assert np.isnan(state.archive.scores).any()
    for leaf in jax.tree.leaves(state._replace(archive=None)):
        assert np.isfinite(leaf).all()
    assert np.nanmax(state.archive.scores) >= 6.0
    _, info = strategy.tell(state, asked[:3], np.array([[np.nan], [1.0], [np.inf]], np.float32))
    assert info["failed"] == 2
    # With nothing but failures there is nothing to learn, and the search goes on uniformly.
    asked, state = run(strategy, 0, 40, score=lambda rows: np.full((len(rows), 1), np.nan, np.float32))
    assert len({row.tobytes() for row in asked}) == 40 and not int(state.learnt)


@BOTH
def test_a_space_is_exhausted_before_anything_is_repeated(make):
    domain = product_domain((3, 3))
    asked, _ = run(make(domain, initial=4, select=2, min_samples=1), 0, 12, score=lambda rows: rows[:, :1] * 1.0)
    assert len({row.tobytes() for row in asked[:9]}) == 9


@BOTH
@pytest.mark.parametrize("sampler", ["rejection", "walk", "auto"])
def test_spaces_too_large_to_enumerate_are_searched(make, sampler):
    large = product_domain((4,) * 20)
    assert large.pool is None
    strategy = make(large, initial=16, select=8, sampler=sampler, candidates=32, budget=512)
    asked, _ = run(strategy, 0, 56, score=lambda rows: rows.sum(1, keepdims=True).astype(np.float32))
    assert len({row.tobytes() for row in asked}) == 56
    # Uniform sums have mean 30 and deviation 5; the best of 56 is about 41.
    assert asked[-16:].sum(1).mean() > 38
    assert asked.sum(1).max() > 43


@BOTH
def test_only_valid_architectures_are_proposed(make):
    pool = np.asarray(DOMAIN.pool)[np.asarray(DOMAIN.pool).sum(1) % 3 == 0]
    table = dataclasses.replace(
        DOMAIN,
        pool=pool,
        sample=lambda key, n: jax.numpy.asarray(pool)[jax.random.randint(key, (n,), 0, len(pool))],
    )
    asked, _ = run(make(table, initial=12, select=5), 0, 60)
    assert (asked.sum(1) % 3 == 0).all()


def test_presets_keep_the_published_choices_and_arguments_override_them():
    paper, released = PRESETS["paper"], PRESETS["released"]
    assert (paper.height, paper.select, paper.exploration, paper.initial) == (5, 100, 0.5, 200)
    assert (released.height, released.select, released.exploration, released.initial) == (5, 20, 0.1, 10)
    for preset in (paper, released):
        assert (preset.target, preset.features, preset.proposal, preset.form) == ("score", "linear", "uniform", "log")
    _, state = run(lanas(DOMAIN, preset="released", height=3), 0, 12)
    assert len(state.tree.split) == 7 and state.tree.weights.shape == (7, 16) and int(state.learnt) == 10


def test_the_tree_is_learnt_on_schedule_and_counts_what_is_under_way():
    strategy = lanas(DOMAIN, initial=12, select=5)
    _, state = run(strategy, 0, 12)
    assert int(state.learnt) == 12 and state.tree.visits[0] == 12
    rows, asked = strategy.ask(jax.random.key(7), state)
    assert asked.tree.visits[0] == 13 and asked.tree.scored[0] == 12
    told, _ = strategy.tell(asked, rows, score(rows))
    assert told.tree.visits[0] == 13 and told.tree.scored[0] == 13 and int(told.learnt) == 12
    failed, _ = strategy.tell(asked, rows, np.full((1, 1), np.nan, np.float32))
    assert failed.tree.visits[0] == 12 and failed.tree.scored[0] == 12
    # Told without having been asked for, as a warm start is: visit and value are both new.
    extra, _ = strategy.tell(state, rows, score(rows))
    assert extra.tree.visits[0] == 13 and extra.tree.scored[0] == 13
    _, later = run(strategy, 0, 5, state=state, first=12)
    assert int(later.learnt) == 17 and later.tree.visits[0] == 17


def test_proposals_lie_in_the_leaf_that_the_bound_chooses():
    strategy = lanas(DOMAIN, initial=40, select=20, proposal="uniform", exploration=0.0)
    _, state = run(strategy, 0, 40)
    mean = state.tree.total / np.maximum(state.tree.scored, 1)
    leaf = 0
    while state.tree.split[leaf]:
        leaf = max(2 * leaf + 1, 2 * leaf + 2, key=lambda node: mean[node])
    assert leaf
    for seed in range(5):
        _, asked = strategy.ask(jax.random.key(seed), state)
        assert asked.tree.visits[leaf] == state.tree.visits[leaf] + 1


@pytest.mark.shared_data
def test_nasbench201s_best_cell_takes_at_most_150_queries_in_the_median(shared_data):
    table = load_nasbench201(shared_data / "nasbench201.npz", "cifar10")
    domain, scores = table_domain(table), table.objective("valid_200").astype(np.float32)
    dense = np.full(5**6, np.nan, np.float32)
    dense[table.architectures @ 5 ** np.arange(5, -1, -1)] = scores
    strategy, queries = lanas(domain), []
    for seed in range(5):
        asked, _ = run(strategy, seed, 120, score=lambda rows: dense[rows @ 5 ** np.arange(5, -1, -1)][:, None])
        found = np.flatnonzero(dense[asked @ 5 ** np.arange(5, -1, -1)] == scores.max())
        queries.append(int(found[0]) + 1 if found.size else 1000)
    assert np.median(queries) <= 150, queries
