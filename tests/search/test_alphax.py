"""AlphaX as a strategy: what it proposes, what it remembers, and that the tree and the Meta-DNN earn their keep."""

import itertools
import math
from typing import Any

import jax
import numpy as np
import pytest

from parsec.cells.domain import Domain, product_domain
from parsec.errors import UserError
from parsec.search.alphax.meta_dnn import Training, predict
from parsec.search.alphax.records import DONE, FAILED, PENDING
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy

SMALL = product_domain((3, 2, 4, 3))
QUICK = {"members": 2, "width": 16, "steps": 40, "first_training": 12, "retrain_every": 12}


def make(domain: Domain, **options: Any) -> Strategy:
    return make_strategy("alphax", domain, options)


def _even_domain() -> Domain:
    """The architectures of `SMALL` whose decisions sum to an even number."""
    rows = np.array([row for row in itertools.product(range(3), range(2), range(4), range(3)) if sum(row) % 2 == 0])
    pool = {tuple(row) for row in rows.tolist()}

    def legal(prefix: tuple[int, ...]) -> np.ndarray:
        reach = {row[len(prefix)] for row in pool if row[: len(prefix)] == prefix}
        return np.isin(np.arange(SMALL.sizes[len(prefix)]), list(reach))

    return Domain(
        sizes=SMALL.sizes,
        sample=SMALL.sample,
        mutate=SMALL.mutate,
        neighbours=SMALL.neighbours,
        valid=lambda architectures: np.asarray(architectures).sum(-1) % 2 == 0,
        legal=legal,
        features=SMALL.features,
        pool=rows.astype(np.int32),
    )


def _worth(architectures: np.ndarray) -> np.ndarray:
    """A smooth score with an interaction, float64 [B, 1]; its only optimum is (2, 1, 0, 2)."""
    a = np.asarray(architectures, np.float64)
    return (a[:, 0] + 0.7 * a[:, 1] - 0.4 * a[:, 2] + 0.3 * a[:, 3] * a[:, 1] + 90.0)[:, None]


def _run(strategy, queries: int, *, seed: int = 0, state=None, start: int = 0, score=_worth):
    keys = jax.random.split(jax.random.key(seed), 501)
    state = strategy.init(keys[500]) if state is None else state
    proposed, info = [], {}
    for at in range(start, queries):
        architectures, state = strategy.ask(keys[at], state)
        proposed.append(architectures)
        state, info = strategy.tell(state, architectures, score(architectures))
    return np.concatenate(proposed), state, info


@pytest.mark.parametrize("domain", [SMALL, _even_domain()], ids=["product", "even"])
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_every_architecture_is_proposed_once_before_any_twice(domain, preset):
    strategy = make(domain, preset=preset, **QUICK)
    assert domain.pool is not None
    total = len(domain.pool)
    proposed, state, _ = _run(strategy, total + 2)
    assert {tuple(row) for row in proposed[:total].tolist()} == {tuple(row) for row in domain.pool.tolist()}
    np.testing.assert_array_equal(proposed[total:], np.array([[2, 1, 0, 2]] * 2) if domain is SMALL else proposed[-2:])
    best = domain.pool[_worth(domain.pool)[:, 0].argmax()]
    np.testing.assert_array_equal(proposed[-1], best)
    assert len(state.records.scores) == total


def test_the_tree_holds_the_mean_of_what_was_backed_up():
    strategy = make(SMALL, rollouts=0, **QUICK)
    proposed, state, info = _run(strategy, 40)
    assert info["trusted"]
    assert int(state.tree.visits[0].sum()) == 40
    ranks = state.records.values
    assert state.tree.totals[0].sum() == pytest.approx(ranks.sum())
    for option in range(3):
        of_option = proposed[:, 0] == option
        assert state.tree.visits[0, option] == of_option.sum()
        assert state.tree.totals[0, option] == pytest.approx(ranks[of_option].sum())


def test_half_of_a_value_is_the_mean_of_predicted_rollouts():
    strategy = make(SMALL, values="raw", exploration=0.5, **QUICK)
    _, state, _ = _run(strategy, 40)
    records = state.records
    mixed = ~np.isnan(records.rollouts)
    assert 5 < mixed.sum() < 40
    assert not mixed[:12].any()
    np.testing.assert_allclose(records.values[mixed], (records.scores[mixed] + records.rollouts[mixed]) / 2)
    np.testing.assert_allclose(records.values[~mixed], records.scores[~mixed])
    assert 88.0 < records.rollouts[mixed].mean() < 94.0


def test_the_walk_follows_what_was_backed_up_and_exploration_evens_the_visits():
    """UCT alone, on scores of the first decision: 0, 0.5 or 1."""
    domain = product_domain((3, 4, 4, 4))
    visits = {}
    for exploration in (0.05, 100.0):
        uct = {"values": "raw", "candidates": 1, "rollouts": 0, "outlook_weight": 0.0, "first_training": 1000}
        strategy = make(domain, exploration=exploration, **uct)
        _, state, _ = _run(strategy, 45, score=lambda rows: np.asarray(rows)[:, :1] / 2.0)
        visits[exploration] = state.tree.visits[0, :3]
    assert visits[0.05][2] > 30
    assert np.ptp(visits[100.0]) <= 1


@pytest.mark.parametrize(("option", "other"), [("exploration", 0.0), ("outlook_weight", 0.0), ("outlook_weight", 1.0)])
def test_a_guided_walk_weighs_values_predictions_and_visits(option, other):
    default, _, _ = _run(make(SMALL, **QUICK), 40)
    changed, _, _ = _run(make(SMALL, **QUICK, **{option: other}), 40)
    assert (default != changed).any()


def test_ask_backs_up_a_prediction_and_tell_swaps_the_truth_in_without_a_second_visit():
    strategy = make(SMALL, values="raw", rollouts=0, **QUICK)
    _, state, _ = _run(strategy, 30)
    visits, total = int(state.tree.visits[0].sum()), float(state.tree.totals[0].sum())
    architectures, asked = strategy.ask(jax.random.key(7), state)
    predicted = float(asked.tree.totals[0].sum()) - total
    assert int(asked.tree.visits[0].sum()) == visits + 1
    assert 85.0 < predicted < 95.0
    told, _ = strategy.tell(asked, architectures, np.array([[93.25]], np.float32))
    assert int(told.tree.visits[0].sum()) == visits + 1
    assert float(told.tree.totals[0].sum()) - total == pytest.approx(93.25)
    # The states handed in are as they were.
    assert float(state.tree.totals[0].sum()) == total
    assert float(asked.tree.totals[0].sum()) - total == predicted
    assert asked.records.status[-1] == PENDING
    assert told.records.status[-1] == DONE


def test_a_failed_evaluation_leaves_no_trace_in_the_statistics():
    strategy = make(SMALL, **QUICK)
    _, state, _ = _run(strategy, 30)
    architectures, asked = strategy.ask(jax.random.key(7), state)
    told, info = strategy.tell(asked, architectures, np.array([[np.nan]], np.float32))
    assert info["failed"] == 1
    assert told.records.status[-1] == FAILED
    known = int(state.tree.size)
    np.testing.assert_array_equal(told.tree.visits[:known], state.tree.visits[:known])
    np.testing.assert_allclose(told.tree.totals[:known], state.tree.totals[:known], atol=1e-12)


def test_a_run_survives_failures_and_infinite_scores():
    def score(architectures: np.ndarray) -> np.ndarray:
        scores = _worth(architectures)
        scores[np.asarray(architectures)[:, 3] == 1] = np.nan
        scores[np.asarray(architectures)[:, 3] == 2] = -np.inf
        return scores

    proposed, state, info = _run(make(SMALL, **QUICK), 72, score=score)
    assert len(np.unique(proposed, axis=0)) == 72
    assert (state.records.status == FAILED).sum() == 48
    assert np.isfinite(state.tree.totals).all()
    assert np.isfinite(info["best"])


def test_without_a_tree_the_best_predicted_of_what_is_drawn_at_the_root_is_proposed():
    # So many completions hold all 72 architectures.
    strategy = make(SMALL, depth=0, candidates=2000, **QUICK)
    assert SMALL.pool is not None
    proposed, state, info = _run(strategy, 50)
    assert info["trusted"] and len(np.unique(proposed, axis=0)) == 50
    assert int(state.tree.size) <= 1 + SMALL.sizes[0]
    training = Training((QUICK["width"],) * 2, QUICK["members"], QUICK["steps"])
    predicted = predict(state.meta, SMALL.features, SMALL.pool, training).mean(0)
    predicted[(SMALL.pool[:, None] == proposed).all(2).any(1)] = -np.inf
    asked, _ = strategy.ask(jax.random.key(9), state)
    np.testing.assert_array_equal(asked[0], SMALL.pool[predicted.argmax()])
    everything, _, _ = _run(strategy, 72, seed=1)
    assert len(np.unique(everything, axis=0)) == 72


def test_several_evaluations_may_be_under_way_and_return_in_any_order():
    strategy = make(SMALL, **QUICK, batch=3)
    keys = jax.random.split(jax.random.key(3), 8)
    state = strategy.init(keys[7])
    asked = []
    for at in range(7):
        architectures, state = strategy.ask(keys[at], state)
        assert architectures.shape == (3, 4)
        asked.append(architectures)
    proposed = np.concatenate(asked)
    assert len(np.unique(proposed, axis=0)) == 21
    assert int(state.tree.visits[0].sum()) == 21
    for at in (5, 0, 6, 2, 1, 4, 3):
        state, _ = strategy.tell(state, asked[at][::-1], _worth(asked[at][::-1]))
    np.testing.assert_allclose(state.records.scores, _worth(proposed)[:, 0])
    assert int(state.tree.visits[0].sum()) == 21
    assert int(state.meta.rows) > 0


def test_scores_told_without_being_asked_for_teach_the_meta_dnn_and_are_not_proposed_again():
    strategy = make(SMALL, **QUICK)
    rows = SMALL.pool[::3]
    state, info = strategy.tell(strategy.init(jax.random.key(0)), rows, _worth(rows))
    assert info["trusted"]
    assert int(state.tree.visits[0].sum()) == 0
    proposed, _, _ = _run(strategy, 30, state=state)
    assert not {tuple(r) for r in proposed.tolist()} & {tuple(r) for r in rows.tolist()}
    # A score for a row already known changes nothing.
    again, _ = strategy.tell(state, rows, _worth(rows) + 5.0)
    np.testing.assert_array_equal(again.records.scores, state.records.scores)


def test_equal_keys_give_equal_runs_and_a_restored_state_goes_on_alike():
    strategy = make(SMALL, **QUICK)
    whole, end, _ = _run(strategy, 45)
    half, state, _ = _run(make(SMALL, **QUICK), 20)
    leaves, shape = jax.tree.flatten(state)
    assert all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves)
    restored = jax.tree.unflatten(
        shape, [np.array(np.asarray(leaf).tolist(), leaf.dtype).reshape(leaf.shape) for leaf in leaves]
    )
    rest, other, _ = _run(make(SMALL, **QUICK), 45, state=restored, start=20)
    np.testing.assert_array_equal(np.concatenate([half, rest]), whole)
    jax.tree.map(np.testing.assert_array_equal, other, end)
    different, _, _ = _run(strategy, 45, seed=1)
    assert (different != whole).any()


def test_any_increasing_rescaling_of_the_scores_gives_the_same_search():
    strategy = make(SMALL, **QUICK)
    plain, _, _ = _run(strategy, 40)
    scaled, _, _ = _run(strategy, 40, score=lambda rows: np.exp(_worth(rows) / 3.0))
    np.testing.assert_array_equal(plain, scaled)


def test_it_needs_far_fewer_queries_than_random_search():
    domain = product_domain((4,) * 5)
    rng = np.random.default_rng(5)
    first, pairs = rng.normal(size=(5, 4)), 0.5 * rng.normal(size=(4, 4, 4))
    pool = domain.pool
    worth = first[np.arange(5), pool].sum(1) + sum(pairs[i, pool[:, i], pool[:, i + 1]] for i in range(4))
    table = worth.reshape(domain.sizes)

    def queries(seed: int) -> int:
        strategy = make(domain, members=3, width=32, steps=100)
        keys = jax.random.split(jax.random.key(seed), 301)
        state = strategy.init(keys[300])
        for at in range(300):
            architectures, state = strategy.ask(keys[at], state)
            scores = np.array([[table[tuple(architectures[0])]]])
            if scores[0, 0] == table.max():
                return at + 1
            state, _ = strategy.tell(state, architectures, scores)
        return 600

    needed = [queries(seed) for seed in range(5)]
    # Random search needs 512.5 in mean.
    assert np.mean(needed) < 512.5 / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "papre"}, "unknown preset of strategy alphax 'papre'; .*did you mean 'paper'"),
        ({"values": "rank"}, "unknown value of alphax.values 'rank'; .*did you mean 'ranks'"),
        ({"first_play": math.inf}, r"alphax\.first_play=inf is not a finite number"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        make(SMALL, **options)
    assert "\n" not in str(caught.value)
