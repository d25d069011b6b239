"""What every strategy of several objectives must do, and what each of them does with the scores it is told."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import product_domain
from parsec.report.pareto import hypervolume, hypervolume_curves
from parsec.run.trials import Task, run_trials
from parsec.search.contract import Strategy
from parsec.search.monas import Settings as MonasSettings
from parsec.search.monas import rewards
from parsec.search.monas_pareto import mixed_rewards
from parsec.search.npg import REWARDS as NPG_REWARDS
from parsec.search.npg import Settings as NpgSettings
from parsec.search.npg import policy_gradient
from parsec.search.registry import make_strategy, names
from parsec.search.told import nothing_told, remember
from parsec.tables.table import Table, make_table, table_domain

NAMES = names(many=True)
OBJECTIVES = ("accuracy", "saving")
# Small enough to compile and to run in no time.
QUICK = {
    "mo_bananas": {"members": 2, "hidden": 16, "candidates": 40, "parents": 10, "capacity": 128, "batch": 5},
    "emoa": {"population": 10},
    "tsemo": {"initial": 16, "batch": 4, "capacity": 64, "candidates": 60},
    "ms_ehvi": {"initial": 16, "batch": 4, "capacity": 64, "candidates": 60, "draws": 8},
    "parsec_pareto": {"initial": 16, "children": 4, "capacity": 64},
    "monas_pareto": {"capacity": 64},
    "npg_adc": {"capacity": 64},
    "npg_adf": {"capacity": 64},
    "lanas_pareto": {"initial": 8, "min_samples": 2, "features": "linear"},
}

# Fractions of the exact hypervolume within the budget below; random search has 0.87.
LEAST = {"emoa": 0.94, "tsemo": 0.94, "ms_ehvi": 0.94, "mo_bananas": 0.94, "parsec_pareto": 0.9, "lanas_pareto": 0.95}
# Those that never ask for an architecture again.
NEW_ONLY = ("mo_bananas", "lanas_pareto")


@functools.cache
def landscape() -> Table:
    """Accuracy and saving pull apart, with interactions and invalid combinations."""
    rng = np.random.default_rng(3)
    sizes = (4, 4, 4, 4, 4)
    rows = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), 1)
    rows = rows[rows.sum(1) % 5 != 0]
    worth = np.sort(rng.random((5, 4)), 1)
    value = worth[np.arange(5), rows].sum(1) / 5 + 0.2 * rng.random((4, 4))[rows[:, 0], rows[:, 1]]
    return make_table("landscape", np.array(sizes), rows, {"accuracy": value - 0.2, "saving": 1 - rows.sum(1) / 16})


@functools.cache
def strategy_of(name: str) -> Strategy:
    made = make_strategy(name, table_domain(landscape()), QUICK.get(name, {}), len(OBJECTIVES))
    return made._replace(ask=jax.jit(made.ask), tell=jax.jit(made.tell)) if made.jittable else made


def advance(name: str, state: Any, steps: range, key: jax.Array, failing: int = 0) -> tuple[np.ndarray, Any]:
    """Asks and tells; every `failing`-th architecture of the table fails."""
    table, strategy = landscape(), strategy_of(name)
    scores = np.stack([table.columns[each] for each in OBJECTIVES], 1).astype(np.float32)
    asked = []
    for step in steps:
        architectures, state = strategy.ask(jax.random.fold_in(key, step), state)
        rows = table.find(np.asarray(architectures))
        assert (rows >= 0).all(), "an invalid architecture was proposed"
        told = scores[rows]
        if failing:
            told[rows % failing == 0] = np.nan
        state, info = strategy.tell(state, architectures, told)
        assert int(info["failed"]) == int(np.isnan(told[:, 0]).sum())
        assert all(np.ndim(value) == 0 for value in info.values())
        asked.append(np.asarray(architectures))
    assert {each.shape for each in asked} == {asked[0].shape} and asked[0].dtype == np.int32
    return np.concatenate(asked), state


@pytest.mark.parametrize("name", NAMES)
def test_is_a_function_of_its_key_and_its_state_survives_being_saved(name: str, key: jax.Array) -> None:
    start = strategy_of(name).init(key)
    first, state = advance(name, start, range(12), key)
    again, _ = advance(name, start, range(12), key)
    other, _ = advance(name, strategy_of(name).init(jax.random.key(1)), range(12), jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    expected, _ = advance(name, state, range(12, 18), key)
    structure = jax.tree.structure(state)
    saved = [np.array(leaf) for leaf in jax.tree.leaves(state)]
    resumed, _ = advance(name, jax.tree.unflatten(structure, saved), range(12, 18), key)
    np.testing.assert_array_equal(resumed, expected)


@pytest.mark.parametrize("name", NAMES)
def test_survives_failed_evaluations(name: str, key: jax.Array) -> None:
    # Everything fails at first; later every third.
    _, state = advance(name, strategy_of(name).init(key), range(4), key, failing=1)
    late, state = advance(name, state, range(4, 24), key, failing=3)
    assert len(np.unique(late[-8:], axis=0)) > 1
    for leaf in jax.tree.leaves(state):
        values = np.asarray(leaf)
        assert values.dtype.kind != "f" or values.size < 2 or not np.isnan(values).all()


@pytest.mark.parametrize("name", NAMES)
def test_uses_every_key_once(name: str, key: jax.Array) -> None:
    made = strategy_of(name)
    if not made.jittable:
        pytest.skip("draws from numpy, seeded by the key")
    start, ask = jax.random.split(key)
    state = made.init(start)
    with jax.debug_key_reuse(True):
        jax.eval_shape(
            lambda k: make_strategy(name, table_domain(landscape()), QUICK.get(name, {}), 2).ask(k, state)[0], ask
        )


@functools.cache
def volume_within_budget(name: str, runs: int) -> float:
    """Returns the mean hypervolume of what is found within 60 queries, as a fraction of the whole front's."""
    table = landscape()
    gains = np.stack([table.columns[each] for each in OBJECTIVES], 1)
    task = Task(name, QUICK.get(name, {}), OBJECTIVES, 60, "unique", 0)
    found = run_trials(lambda: (table, table_domain(table)), task, runs)
    assert all(len(np.unique(run[run >= 0])) == (run >= 0).sum() for run in found.rows)
    assert name not in NEW_ONLY or (found.proposals == 60).all()
    return hypervolume_curves(found.rows, gains)[:, -1].mean() / hypervolume(gains)


@pytest.mark.parametrize("name", NAMES)
def test_the_hypervolume_is_larger_than_that_of_random_search_within_the_budget(name: str) -> None:
    volume, random = (
        volume_within_budget(name, 12 if strategy_of(name).jittable else 4),
        volume_within_budget("random", 12),
    )
    # Sobol's sequence covers the space, and does not search it.
    assert volume > LEAST.get(name, random * (0.99 if name == "sobol" else 1.0))


@pytest.mark.parametrize("name", ["parsec_pareto", "npg_adc", "npg_adf", "monas_pareto", "tsemo", "ms_ehvi"])
def test_three_objectives_are_learnt_from(name: str, key: jax.Array) -> None:
    made, table = make_strategy(name, table_domain(landscape()), QUICK[name], 3), landscape()
    state = made.init(key)
    ask, tell = jax.jit(made.ask), jax.jit(made.tell)
    for step in range(12):
        asked, state = ask(jax.random.fold_in(key, step), state)
        rows = table.find(np.asarray(asked))
        told = np.stack([table.columns["accuracy"], table.columns["saving"], table.columns["saving"] ** 2], 1)[rows]
        state, _ = tell(state, asked, told.astype(np.float32))
    assert np.isfinite(np.asarray(ask(key, state)[0])).all() and (table.find(np.asarray(ask(key, state)[0])) >= 0).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lanas_pareto"])
def test_one_objective_is_a_front_of_one(name: str, key: jax.Array) -> None:
    made = make_strategy(name, table_domain(landscape()), QUICK.get(name, {}))

    def step(key: jax.Array) -> Any:
        asked, state = made.ask(key, made.init(key))
        return asked, made.tell(state, asked, jnp.zeros((len(asked), 1), jnp.float32))[1]["failed"]

    asked, failed = jax.eval_shape(step, key)
    assert asked.shape[1] == 5 and failed.shape == ()


def test_monas_rewards_are_those_of_the_paper() -> None:
    scores = np.array([[0.9, 0.4], [0.8, 0.7], [np.nan, 0.1]], np.float32)

    def told(**options: Any) -> list[float]:
        return np.asarray(rewards(scores, MonasSettings(**options))).tolist()

    assert told(alpha=0.75)[:2] == pytest.approx([0.75 * 0.9 - 0.25 * 0.6, 0.75 * 0.8 - 0.25 * 0.3])
    assert told(reward="cost_limit", limit=0.5)[:2] == pytest.approx([0.0, 0.8])
    assert told(reward="soft_limit", limit=0.5, exponent=2.0)[:2] == pytest.approx([0.9 * (0.5 / 0.6) ** 2, 0.8])
    assert told(reward="accuracy_floor", floor=0.85)[:2] == pytest.approx([0.4, 0.0])
    assert np.isnan(told()[2])
    three = np.asarray(rewards(np.array([[0.9, 0.4, 0.2]], np.float32), MonasSettings(reward="cost_limit", limit=0.7)))
    assert three.tolist() == [0.0], "the largest cost is the one that is limited"


def test_monas_comes_near_the_optimum_of_its_reward() -> None:
    table = landscape()
    scores = np.stack([table.columns[each] for each in OBJECTIVES], 1).astype(np.float32)
    for options in (
        {"reward": "cost_limit", "limit": 0.6},
        {"reward": "mixed", "alpha": 0.8, "policy": "lstm", "units": 16},
    ):
        task = Task("monas", options, OBJECTIVES, 200, "unique", 0)
        found = run_trials(lambda: (table, table_domain(table)), task, 4)
        reward = np.asarray(rewards(scores, MonasSettings(**options)))
        best = np.where(found.rows >= 0, reward[found.rows], -np.inf).max(1)
        assert best.mean() > reward.max() - 0.1 * np.ptp(reward)


@pytest.mark.parametrize(("policy", "learns"), [("factorised", False), ("lstm", True)])
def test_a_controller_remembers_what_it_took_before(policy: str, learns: bool, key: jax.Array) -> None:
    domain = product_domain((2, 2))
    made = make_strategy("monas", domain, {"policy": policy, "units": 8, "learning_rate": 0.03}, 2)
    rows = jnp.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    # What is good of the second choice depends on the first alone: equal options.
    rewarded = jnp.array([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])

    def step(state: Any, at: jax.Array) -> tuple[Any, None]:
        return made.tell(state, rows[at % 4][None], rewarded[at % 4][None])[0], None

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(800)))(made.init(key))
    drawn = np.asarray(jax.vmap(lambda key: made.ask(key, state)[0][0])(jax.random.split(key, 400)))
    equal = (drawn[:, 0] == drawn[:, 1]).mean()
    assert 0.1 < drawn[:, 0].mean() < 0.9
    assert equal > 0.95 if learns else 0.3 < equal < 0.7


def test_monas_for_a_front_has_a_policy_at_each_end_and_rewards_in_deviations(key: jax.Array) -> None:
    table = landscape()
    made = make_strategy("monas_pareto", table_domain(table), QUICK["monas_pareto"], 2)
    ask, tell, state = jax.jit(made.ask), jax.jit(made.tell), made.init(key)
    for step in range(160):
        asked, state = ask(jax.random.fold_in(key, step), state)
        row = table.find(np.asarray(asked))
        told = np.stack([table.columns[each][row] for each in OBJECTIVES], 1).astype(np.float32)
        state, _ = tell(state, asked, told)

    def mean_of(turn: int) -> np.ndarray:
        own = state._replace(told=state.told._replace(asked=jnp.int32(turn)))
        drawn = np.asarray(jax.vmap(lambda key: ask(key, own)[0][0])(jax.random.split(key, 200)))
        return np.array([table.columns[name][table.find(drawn)].mean() for name in OBJECTIVES])

    # The first policy looks at the cost alone, the last at the accuracy alone.
    cheap, accurate = mean_of(0), mean_of(3)
    assert cheap[1] > accurate[1] + 0.05 and accurate[0] > cheap[0] + 0.05
    scores = jnp.array([[0.9, 0.5], [0.3, 0.7], [np.nan, 0.1], [0.5, 0.6]], jnp.float32)
    raw = 0.25 * np.array([0.9, 0.3, 0.5]) - 0.75 * np.array([0.5, 0.3, 0.4])
    rewarded = np.asarray(mixed_rewards(scores, jnp.float32(0.25)))
    assert rewarded[[0, 1, 3]] == pytest.approx((raw - raw.mean()) / raw.std(), abs=1e-4) and np.isnan(rewarded[2])


def test_npg_adc_rewards_the_front_of_what_is_remembered(key: jax.Array) -> None:
    strategy = strategy_of("npg_adc")
    state = strategy.init(key)
    told = [(0.5, 0.5), (0.6, 0.4), (0.4, 0.4), (0.55, 0.3), (np.nan, 0.9)]
    for at, scores in enumerate(told):
        state, _ = strategy.tell(
            state, np.array([[at % 4, at // 4, 0, 0, 0]], np.int32), np.array([scores], np.float32)
        )
    settings = NpgSettings()
    rewarded = np.asarray(NPG_REWARDS["adc"](state.told.scores, state.front, state.tellings, settings))
    np.testing.assert_allclose(rewarded[:5], [1.0, 1.0, -1.0, -0.5, np.nan])
    for _ in range(2):
        state, _ = strategy.tell(state, np.full((1, 5), 3, np.int32), np.array([[0.7, 0.7]], np.float32))
    assert int(state.told.told) == 6
    front = np.asarray(state.front)
    np.testing.assert_allclose(front[np.isfinite(front).all(1)], [[0.7, 0.7]])
    # What was on the front is dominated now, and rewarded so.
    rewarded = np.asarray(NPG_REWARDS["adc"](state.told.scores, state.front, state.tellings, settings))
    np.testing.assert_allclose(rewarded[:4], -1.0)


def test_npg_adf_moves_its_target_from_the_cheapest_to_the_dearest() -> None:
    settings = NpgSettings(reward="adf", stage=4, stages=3, exponent=1.0)
    scores = jnp.array([[0.9, 0.8], [0.9, 0.2], [0.9, 0.5], [np.nan, 0.5]], jnp.float32)

    def rewarded(tellings: int) -> np.ndarray:
        return np.asarray(NPG_REWARDS["adf"](scores, scores, jnp.array(tellings, jnp.int32), settings))

    for tellings in (0, 3, 12):
        np.testing.assert_allclose(rewarded(tellings), [0.9, 0.0, 0.45, np.nan], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rewarded(4)[:3], [0.9, 0.0, 0.9], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rewarded(11)[:3], 0.9, rtol=1e-5)


def test_npg_adf_lets_the_dearest_pass_in_the_last_stage_whatever_rounding_says() -> None:
    settings = NpgSettings(reward="adf", stage=2, stages=10)
    # From the least to the largest in nine ninths ends below the largest in float32, for about 3 % of all pairs.
    savings = np.sort(np.random.default_rng(0).random((1000, 2), np.float32), 1)
    costs, nine = np.float32(1) - savings, np.float32(9)
    pair = np.flatnonzero(costs[:, 1] + (costs[:, 0] - costs[:, 1]) * nine / nine < costs[:, 0])[0]
    scores = jnp.stack([jnp.full(2, 0.9), jnp.asarray(savings[pair])], 1)
    np.testing.assert_allclose(NPG_REWARDS["adf"](scores, scores, jnp.array(18, jnp.int32), settings), 0.9)


def test_npg_restarts_its_temperature(key: jax.Array) -> None:
    made = make_strategy("npg_adc", table_domain(landscape()), {"stage": 4, "hottest": 3.0}, 2)
    architecture, state = made.ask(key, made.init(key))
    tell, temperatures = jax.jit(made.tell), []
    for _ in range(5):
        state, info = tell(state, architecture, jnp.array([[0.9, 0.5]], jnp.float32))
        temperatures.append(float(info["temperature"]))
    assert temperatures[0] == temperatures[4] == 3 and temperatures[3] == pytest.approx(2 + np.cos(0.75 * np.pi))


def test_npg_climbs_the_expected_reward_of_what_is_remembered(key: jax.Array) -> None:
    mask = np.array([[True, True, True], [True, True, False]])
    logits = jax.random.normal(key, mask.shape)
    told = nothing_told(8, 2, 2)
    seen = np.array([[0, 0], [1, 1], [2, 1], [0, 1]], np.int32)
    told = remember(told, jnp.asarray(seen), jnp.ones((4, 2), jnp.float32))
    reward = jnp.full(8, jnp.nan).at[:4].set(jnp.array([0.3, 0.9, 0.1, 0.6]))

    def worth(logits: jax.Array) -> jax.Array:
        share = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=1)
        each = share[0, seen[:, 0]] * share[1, seen[:, 1]]
        held = jnp.where(mask, share, 1.0)
        return (each * reward[:4]).sum() / each.sum() - 0.3 * (held * jnp.log(held)).sum()

    np.testing.assert_allclose(
        policy_gradient(logits, mask, told, reward, 0.3), jax.grad(worth)(logits), rtol=1e-4, atol=1e-6
    )


def test_sobol_begins_again_elsewhere_within_an_ask(key: jax.Array) -> None:
    domain = product_domain((1000, 1000))
    made = make_strategy("sobol", domain, {"batch": 10}, 2)
    state = made.init(key)
    first, _ = made.ask(key, state)
    again, after = made.ask(key, state._replace(asked=jnp.int32(4090)))
    assert not np.isin(np.asarray(again)[6:, 0], np.asarray(first)[:, 0]).any()
    # What follows is of the sequence that was begun.
    following, _ = made.ask(key, after)
    points = np.concatenate([np.asarray(again)[6:], np.asarray(following)]) / 1000
    fresh = np.asarray(first) / 1000
    moved = (points[: len(fresh)] - fresh) % 1
    assert np.ptp(moved[:, 0]) < 0.01 and np.ptp(moved[:, 1]) < 0.01


def test_emoa_drops_the_least_of_the_last_front(key: jax.Array) -> None:
    made = make_strategy("emoa", table_domain(landscape()), {"population": 3}, 2)
    state, tell = made.init(key), jax.jit(made.tell)
    told = [(0.1, 0.9), (0.9, 0.1), (0.5, 0.5), (0.51, 0.49), (0.05, 0.05)]
    for at, score in enumerate(told):
        state, _ = tell(state, np.full((1, 5), at, np.int32), np.array([score], np.float32))
    # The fourth crowds the third; the fifth is dominated.
    assert sorted(np.asarray(state.members)[:, 0].tolist()) in ([0, 1, 2], [0, 1, 3])
    assert int(state.born) == 5


def test_retold_begins_afresh_and_asks_for_nothing_twice(key: jax.Array) -> None:
    strategy = strategy_of("lanas_pareto")
    asked, state = strategy.ask(key, strategy.init(key))
    more, state = strategy.ask(jax.random.fold_in(key, 1), state)
    assert len(np.unique(np.concatenate([asked, more]), axis=0)) == len(asked) + len(more)
    state, _ = strategy.tell(state, more, np.full((len(more), 2), 0.5, np.float32))
    assert np.isnan(state.scores[: len(asked)]).all() and (state.scores[len(asked) :] == 0.5).all()
