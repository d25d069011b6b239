"""The ablations' own arithmetic: what a query is, when a run ends, and what a run that never arrives counts."""

import jax
import numpy as np
import pytest

from benchmarks.ablations import line, one_run, summarise
from parsec.search.contract import Strategy
from parsec.tables.table import make_table

ROWS = np.stack(np.unravel_index(np.arange(600), (20, 30)), 1)
TABLE = make_table("toy", np.array([20, 30]), ROWS, {"score": np.arange(600.0)})


def in_order(order: list[int]) -> Strategy:
    """Proposes rows of the table in an order, and fails where it is told anything but their scores."""

    def tell(state, architectures, scores):
        row = int(TABLE.find(np.asarray(architectures))[0])
        np.testing.assert_equal(np.asarray(scores), np.array([[SCORES[row]]], np.float32))
        return state + 1, {}

    return Strategy(lambda key: 0, lambda key, state: (ROWS[[order[state]]], state), tell, jittable=False)


SCORES = TABLE.objective("score").astype(np.float32)
SCORES[7] = np.nan


def test_repeats_are_free_failures_are_charged_and_the_run_ends_at_the_best():
    found, regrets = one_run(in_order([3, 3, 7, 3, 10, 599]), TABLE, SCORES, 50, 0)
    assert found == 4 and regrets == [0.0, 0.0, 0.0]


def test_regret_is_what_the_best_so_far_lacks_and_a_run_ends_at_its_budget():
    order = list(range(100)) + list(range(300, 500)) + list(range(100, 300)) + [599]
    found, regrets = one_run(in_order(order), TABLE, SCORES, 500, 0)
    assert found == -1 and regrets == [500.0, 200.0, 100.0]


def test_a_run_that_never_arrives_counts_as_its_budget_and_the_mean_is_called_a_bound():
    figures = summarise({"0": (10, [0.0] * 3), "1": (-1, [3.0] * 3), "2": (30, [0.0] * 3)}, 100)
    assert (figures["reached"], figures["mean"], figures["median"]) == (2, pytest.approx(140 / 3), 30)
    assert figures["standard_error"] == pytest.approx(np.std([10, 100, 30], ddof=1) / np.sqrt(3))
    assert line("x", figures) == "| x | 3 | 2 | at least 46.7 ± 27.3 | 30 | 1.000 | 1.000 | 1.000 |"
    few = summarise({"0": (10, [0.0] * 3), "1": (-1, [3.0] * 3), "2": (-1, [0.0] * 3)}, 100)
    assert "| over 100 |" in line("x", few)


def test_the_key_of_an_ask_follows_from_the_seed():
    asked = []
    strategy = in_order([599])
    noted = strategy._replace(ask=lambda key, state: asked.append(jax.random.key_data(key)) or strategy.ask(key, state))
    for seed in (0, 0, 1):
        one_run(noted, TABLE, SCORES, 5, seed)
    assert (asked[0] == asked[1]).all() and (asked[0] != asked[2]).any()
