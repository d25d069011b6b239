"""The plot of accuracies: its order, and the same bytes for the same figures."""

from pathlib import Path

import numpy as np

from parsec.report.accuracies import Row, draw_accuracies, ordered

ROWS = [
    Row("random", np.array([70.0, 74.0, 75.0])),
    Row("found", np.array([90.0, 91.0, np.nan])),
    Row("residual", np.array([80.0, 81.0, 82.0])),
    Row("random", np.full(3, np.nan)),
    Row("random", np.array([85.0, 95.0, 60.0])),
]


def test_the_best_mean_over_finite_runs_comes_first_and_what_failed_last():
    assert [next(at for at, row in enumerate(ROWS) if row is each) for each in ordered(ROWS)] == [1, 2, 4, 0, 3]


def test_equal_figures_give_equal_files_in_whatever_order_they_come(tmp_path: Path):
    draw_accuracies(tmp_path / "one.png", ROWS, "A sentence.")
    draw_accuracies(tmp_path / "two.png", ROWS[::-1], "A sentence.")
    draw_accuracies(tmp_path / "three.png", [*ROWS[:4], Row("random", np.array([85.0, 95.0, 61.0]))], "A sentence.")
    one, two, three = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two", "three"))
    assert one.startswith(b"\x89PNG") and one == two != three
