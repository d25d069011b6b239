"""Line charts: round ticks, points inside the frame, gaps where nothing was measured, and few points."""

import itertools
import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsec.report.curves import line_chart, ticks

SVG = "{http://www.w3.org/2000/svg}"
# Values are accuracies, losses and counts; no unit makes them smaller than this apart.
numbers = st.integers(-(10**12), 10**12).map(lambda n: n / 1000)


@given(numbers, numbers)
def test_ticks_cover_the_range_in_equal_round_steps(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if high - low < 1e-6 * max(abs(low), abs(high)):
        return
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 7
    step = marks[1] - marks[0]
    assert marks[0] <= low + 1e-3 * step
    assert marks[-1] >= high - 1e-3 * step
    assert all(math.isclose(after - before, step, rel_tol=1e-3) for before, after in itertools.pairwise(marks))


def test_known_ticks() -> None:
    assert ticks(0, 1) == [0, 0.5, 1.0]
    assert ticks(0, 97) == [0, 50, 100]
    assert ticks(3.1, 7.9) == [2, 4, 6, 8]
    assert ticks(0.0, 4e-16) == [0, 1e-16, 2e-16, 3e-16, 4e-16]
    assert ticks(5.0, 5.0) == [4.5, 5.0, 5.5]


def _lines(chart: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(chart)
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]
        for line in root.iter(SVG + "polyline")
    ]


def test_a_short_line_has_every_point_where_it_belongs() -> None:
    (line,) = _lines(line_chart("loss", [0, 10, 20], [0.0, 1.0, 0.5]))
    xs, ys = zip(*line, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    # SVG counts downwards.
    assert ys[0] - ys[1] == pytest.approx(2 * (ys[2] - ys[1]), abs=0.2)


def test_a_gap_splits_the_line() -> None:
    chart = line_chart("loss", list(range(6)), [1.0, 2.0, None, math.nan, 3.0, 1.0])
    assert [len(line) for line in _lines(chart)] == [2, 2]
    assert "nan" not in chart


def test_many_points_become_a_mean_in_its_range() -> None:
    chart = line_chart("accuracy", list(range(5000)), [step % 2 for step in range(5000)])
    (line,) = _lines(chart)
    assert len(line) <= 120
    assert max(y for _, y in line) - min(y for _, y in line) < 8
    assert chart.count("<polygon") == 1


def test_a_reference_is_dashed_and_named() -> None:
    chart = line_chart("ess", [0, 1], [1.0, 2.0], reference=[4, 4], reference_name="children")
    assert "ess (dashed: children)" in chart
    assert chart.count("stroke-dasharray") == 1


@pytest.mark.parametrize("values", [[], [None], [math.inf, None]])
def test_nothing_to_draw_is_said(values: list[float | None]) -> None:
    chart = line_chart("a < b", list(range(len(values))), values)
    assert "no finite value" in chart
    assert "a &lt; b" in chart
