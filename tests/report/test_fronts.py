"""Fronts and hypervolumes against definitions written out, and the figures made of them."""

import itertools

import numpy as np
import pytest

from parsec.report.pareto import (
    band,
    distances,
    found_front,
    front_rows,
    front_text,
    fronts_text,
    hypervolume,
    hypervolume_curves,
    median_attainment,
    summarise_fronts,
)


def counted(gains: np.ndarray) -> float:
    """The hypervolume of points on a grid of whole numbers, by counting unit cells that some point dominates."""
    cells = np.array(list(itertools.product(range(6), repeat=gains.shape[1]))) + 1
    return float((gains[:, None] >= cells[None]).all(2).any(0).sum())


@pytest.mark.parametrize("objectives", [2, 3])
def test_fronts_and_hypervolumes_equal_those_by_definition(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for _ in range(20):
        gains = rng.integers(-1, 7, (9, objectives)).astype(float)
        beaten = [any((other >= row).all() and (other > row).any() for other in gains) for row in gains]
        expected = np.unique(gains[~np.array(beaten)], axis=0)
        np.testing.assert_array_equal(gains[front_rows(gains)], expected)
        assert hypervolume(gains) == counted(gains)
        order = rng.permutation(9)
        curve = hypervolume_curves(order[None], gains)[0]
        assert curve.tolist() == [counted(gains[order[: at + 1]]) for at in range(9)]


def test_a_run_that_ended_keeps_its_volume_and_repeats_change_nothing() -> None:
    gains = np.array([[1.0, 3.0], [3.0, 1.0], [2.0, -1.0]])
    curves = hypervolume_curves(np.array([[2, 0, 0, 1], [1, -1, -1, -1]]), gains)
    assert curves.tolist() == [[0, 3, 3, 5], [3, 3, 3, 3]]
    mean, half = band(curves)
    assert mean[-1] == 4 and half[2] == 0 and half[-1] == pytest.approx(12.7062 * np.sqrt(2) / np.sqrt(2), rel=1e-3)


def test_the_distance_is_the_mean_over_the_exact_front_to_the_nearest_point_found() -> None:
    scaled = np.array([[1.0, 0.0], [0.0, 1.0], [0.4, 0.0]])
    found = distances(np.array([[0, 1], [2, -1]]), scaled)
    assert found[0] == 0 and found[1] == pytest.approx((0.6 + np.hypot(0.4, 1)) / 2)


def test_figures_of_a_strategy_and_their_table() -> None:
    gains = np.array([[1.0, 3.0], [3.0, 1.0], [0.5, 0.5]])
    rows = np.array([[0, 1, 2], [2, 0, -1]])
    curves = hypervolume_curves(rows, gains)
    found = summarise_fronts(rows, np.array([3, 5]), curves, gains / 3, 5.0)
    assert found["hypervolume"] == {
        "3": {"mean": 0.8, "deviation": pytest.approx(np.sqrt(0.08)), "interval": pytest.approx(2.541, rel=1e-3)}
    }
    assert found["front_share"]["mean"] == 0.75 and found["queries"] == 2.5 and found["proposals"] == 4
    worse = summarise_fronts(rows[1:], np.array([5]), curves[1:], gains / 3, 5.0)
    text = fronts_text({"worse": worse, "better": found})
    assert text.splitlines()[2].startswith("| better | 80.00 ± 28.28 % |") and "| worse | 60.00 % |" in text
    assert "after 3" in text.splitlines()[0]


def test_half_of_the_runs_attain_what_every_second_front_dominates() -> None:
    gains = np.array([[1.0, 4.0], [4.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    rows = np.array([[0, 1], [2, 2], [3, -1]])
    # Two of the three runs reach each of these, and no more than one reaches beyond them.
    np.testing.assert_allclose(median_attainment(rows, gains), [[1, 3], [2, 2], [3, 1]])


def test_the_front_of_all_runs_says_who_met_what() -> None:
    gains = np.array([[1.0, 4.0], [4.0, 1.0], [0.5, 0.5]])
    front = found_front({"a": np.array([[0, 2], [2, -1]]), "b": np.array([[1, 0], [0, 1]])}, gains)
    assert front == [(0, {"a": 1, "b": 2}), (1, {"a": 0, "b": 2})]
    entry = {"genotype": "|skip~0|", "values": {"test": 1.0, "params": 73306.0}, "met_by": {"a": 1, "b": 2}}
    lines = front_text([entry]).splitlines()
    assert lines[0] == "| architecture | test | params | runs of a | runs of b |"
    assert lines[2] == "| `\\|skip~0\\|` | 1 | 73306 | 1 | 2 |"
