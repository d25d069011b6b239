"""The simulated clock of the benchmark of workers: who waits waits for the longest of a batch."""

import numpy as np
import pytest

from benchmarks.workers import OBJECTIVE, REPORT, one_run
from parsec.search.registry import make_strategy
from parsec.tables.table import make_table, table_domain

SIZES = (4, 4, 4)
ROWS = np.stack(np.unravel_index(np.arange(64), SIZES), 1)
TABLE = make_table(
    "cube", np.array(SIZES), ROWS, {OBJECTIVE: ROWS.sum(1) + 0.01 * ROWS[:, 0], REPORT: ROWS[:, 0] + 0.0}
)


def play(workers: int, batch: int, under_way: int, deviation: float):
    strategy = make_strategy("random", table_domain(TABLE), {"batch": batch})
    return one_run(strategy, TABLE, workers, under_way, 24, 3, deviation)


def test_alike_evaluations_take_a_worker_s_share_of_the_time():
    alone = play(1, 1, 1, 0.0)
    assert alone.time == 24.0
    # Repeats are free, so that a batch may be smaller than the workers are many.
    assert 6.0 <= play(4, 4, 1, 0.0).time <= 9.0
    assert play(4, 1, 4, 0.0).time == 6.0


def test_whoever_waits_waits_for_the_longest_and_the_others_for_none():
    alone, waits, asynchronous = play(1, 1, 1, 1.0), play(4, 4, 1, 1.0), play(4, 1, 4, 1.0)
    # Random search proposes the same, one at a time or while others are under way.
    assert alone.queries == asynchronous.queries and alone.test == asynchronous.test
    assert alone.time / 4 <= asynchronous.time < waits.time < alone.time
    durations = np.exp(np.random.default_rng(3).normal(size=64))
    assert alone.time < durations.sum()


def test_the_best_is_found_when_its_evaluation_ends():
    run = one_run(make_strategy("random", table_domain(TABLE), {}), TABLE, 1, 1, 64, 0, 0.0)
    if run.queries < 0:
        pytest.fail("64 queries are the whole table")
    assert run.found == run.queries and run.test == 3.0
