"""Latencies: slower networks measure slower, and the model predicts what is a sum over options."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.evaluate.latency import compile_network, fit_latency, measure, predict_latency

SPACE = get_space("nasbench201")
SHAPE, IMAGE = Shape(8, 1, 10), (16, 16, 3)


def busy(seconds: float) -> Callable[[], None]:
    def call() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass

    return call


def test_a_planted_slow_call_is_the_slowest_and_each_has_every_turn():
    counted = [0, 0]

    def count() -> None:
        counted[1] += 1

    calls = [busy(0.004), count, busy(0.001)]
    rounds = list(measure(calls, 5))
    assert len(rounds) == 5
    seconds = np.median(rounds, 0)
    assert seconds.argsort().tolist() == [1, 2, 0] and seconds[0] >= 0.004
    # What is too short for the clock is timed with many of its kind.
    assert counted[1] > 100


def test_a_cell_of_convolutions_takes_longer_than_one_of_nothing():
    names = list(SPACE.operations)
    nothing, skips, convolutions = (
        compile_network(SPACE, np.full(6, names.index(name)), SHAPE, IMAGE, 64)
        for name in ("none", "skip_connect", "nor_conv_3x3")
    )
    seconds = np.median(list(measure([convolutions, nothing, skips], 5)), 0)
    assert seconds[0] > 1.2 * max(seconds[1:])


def test_the_model_predicts_cells_it_never_saw_and_says_how_well():
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 5, (100, 6), dtype=np.int32), axis=0)
    cost = np.array([0.0, 0.1, 3.0, 1.0, 0.5])
    milliseconds = 2.0 + cost[cells].sum(1) + 0.05 * rng.normal(size=len(cells))
    model = fit_latency(SPACE, cells[:60], milliseconds[:60])
    predicted, true = predict_latency(model, cells[60:]), milliseconds[60:]
    assert np.mean(np.abs(predicted - true) / true) < 0.03
    assert np.mean(np.abs(model.held_out - milliseconds[:60]) / milliseconds[:60]) < 0.03
    # Of noise it promises nothing.
    noise = rng.normal(10, 3, 60)
    assert np.std(fit_latency(SPACE, cells[:60], noise).held_out - noise) > 0.9 * np.std(noise)


def test_too_few_cells_are_no_model():
    with pytest.raises(UserError, match="at least 10 different cells, not 9"):
        fit_latency(SPACE, np.zeros((9, 6), np.int32), np.ones(9))
