"""What is wanted of networks that are trained: its names, its reference point, and what a strategy is told of it."""

from typing import Any

import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.costs import Cost, cost_table, network_cost, table_costs, with_effects
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator, no_pause
from parsec.evaluate.goals import check_goals, make_goals, scaled, with_costs
from parsec.search.contract import Strategy

SPACE = get_space("nasbench201")
SHAPE, IMAGE = Shape(2, 1, 10), (8, 8, 1)
TABLE = cost_table(SPACE, SHAPE, IMAGE)
NONE = Cost(-1, -1)
ROWS = np.random.default_rng(0).integers(0, 5, (300, 6)).astype(np.int32)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (("accuracy",), "names 1; two or more make a front"),
        (("acuracy", "-params"), r"first objective in config\.objectives 'acuracy'.*did you mean 'accuracy'"),
        (("-params", "accuracy"), r"unknown first objective in config\.objectives '-params'; choose one of accuracy"),
        (("accuracy", "-parms"), r"unknown cost in config\.objectives '-parms'.*did you mean '-params'"),
        (("accuracy", "params"), "did you mean '-params'"),
        (("accuracy", "-flops", "-flops"), "names -flops more than once"),
        (("accuracy", "-latency_ms"), r"names -latency_ms, which a model predicts: .*--config\.latency=RUN_DIR"),
    ],
)
def test_objectives_that_are_none_are_refused_in_a_line(wanted: tuple[str, ...], said: str):
    with pytest.raises(UserError, match=said) as refused:
        check_goals(wanted, TABLE.names)
    assert "\n" not in str(refused.value)


def test_the_reference_point_is_nothing_right_at_the_largest_cost_that_is_allowed():
    wanted = ("accuracy", "-params", "-log10_flops")
    costs = np.array([network_cost(SPACE, row, SHAPE, IMAGE) for row in ([3] * 6, [0] * 6)])
    goals = make_goals(wanted, TABLE, NONE, 10)
    np.testing.assert_allclose(goals.reference, [0, -costs[0, 0], -np.log10(costs[0, 1])])
    np.testing.assert_allclose(goals.ideal, [100, -costs[1, 0], -np.log10(costs[1, 1])])
    np.testing.assert_allclose(goals.scaled(np.stack([goals.reference, goals.ideal])), [[0] * 3, [1] * 3], atol=1e-12)
    limited = make_goals(wanted, TABLE, Cost(2000, 10**9), 10)
    np.testing.assert_allclose(limited.reference, [0, -2000, goals.reference[2]])
    likelihood = make_goals(("log_likelihood", "-flops"), TABLE, NONE, 7)
    assert likelihood.reference[0] == -np.log(7) and likelihood.ideal[0] == 0
    with pytest.raises(UserError, match="objective -params is the same of every network"):
        make_goals(wanted, TABLE, Cost(int(costs[1, 0]), -1), 10)


def test_a_predicted_latency_is_an_objective_in_milliseconds():
    slow = with_effects(TABLE, "latency_ms", 1000, 2.0, np.tile([0.5, 0.9, 0.3, 0.1, 0.7], (6, 1)))
    goals = make_goals(("accuracy", "-latency_ms", "-log10_latency_ms"), slow, (-1, -1, 5000), 10)
    np.testing.assert_allclose(goals.reference, [0, -5, -np.log10(5)])
    np.testing.assert_allclose(goals.ideal, [100, -2.6, -np.log10(2.6)])
    told = goals.join(np.array([30.0]), table_costs(slow, np.array([[2, 2, 2, 0, 0, 0]])))
    np.testing.assert_allclose(told, [[30, -4.4, -np.log10(4.4)]])
    below = with_effects(TABLE, "latency_ms", 1000, -9.0, np.zeros((6, 5)) + np.arange(5) / 10)
    with pytest.raises(UserError, match="objective -log10_latency_ms has no logarithm"):
        make_goals(("accuracy", "-log10_latency_ms"), below, (-1, -1, -1), 10)


def test_what_is_told_is_measured_first_then_the_costs_in_their_order():
    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Any) -> np.ndarray:
        first = np.where(architectures[:, 0] == 0, np.nan, architectures.sum(1))
        return np.stack([first, -first], 1).astype(np.float32)

    goals = make_goals(("accuracy", "-flops", "-params"), TABLE, NONE, 10)
    plain = Evaluator(("valid_accuracy", "valid_log_likelihood"), evaluate)
    told = with_costs(plain, goals, lambda rows: table_costs(TABLE, rows))
    assert told.objectives == ("valid_accuracy", "-flops", "-params", "valid_log_likelihood")
    scores = told.evaluate(ROWS, Evaluated(ROWS[:0], np.zeros((0, 4))), no_pause)
    assert scores.dtype == np.float32
    costs = np.array([network_cost(SPACE, row, SHAPE, IMAGE) for row in ROWS[:3]])
    np.testing.assert_array_equal(scores[:3, 1], -costs[:, 1])
    np.testing.assert_array_equal(scores[:3, 2], -costs[:, 0])
    failed = ROWS[:, 0] == 0
    np.testing.assert_array_equal(np.isnan(scores[:, 0]), failed)
    np.testing.assert_array_equal(scores[~failed, 0], ROWS[~failed].sum(1))
    np.testing.assert_array_equal(scores[:, 3], -scores[:, 0])

    heard: list[np.ndarray] = []

    def listen(state: Any, architectures: Any, scores: Any) -> tuple[Any, dict[str, Any]]:
        heard.append(np.asarray(scores))
        return state, {}

    strategy = scaled(Strategy(lambda key: (), lambda key, state: (ROWS[:1], state), listen), goals)
    strategy.tell((), ROWS, scores)
    assert heard[0].dtype == np.float32 and heard[0].shape == (300, 3)
    expected = (scores[:, 1].astype(np.float64) - goals.reference[1]) / (goals.ideal[1] - goals.reference[1])
    np.testing.assert_allclose(heard[0][:, 1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(heard[0][~failed, 0], ROWS[~failed].sum(1) / 100, rtol=1e-6)
