"""Line charts as SVG text, small enough to stand in a page by the dozen."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 400.0, 210.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 20.0, 30.0, 26.0
# More points than pixels in a third of the width would only blacken it; each is then a mean with its range.
_POINTS = 120
_COLOUR, _REFERENCE, _INK, _GRID = "#3b82d6", "#9aa0a6", "#24292f", "#e3e7eb"


class Bucket(NamedTuple):
    """Neighbouring points drawn as one: their mean step, and the mean and range of their values."""

    step: float
    mean: float
    low: float
    high: float


def line_chart(
    title: str,
    steps: Sequence[float],
    values: Sequence[float | None],
    *,
    reference: Sequence[float | None] | None = None,
    reference_name: str = "",
) -> str:
    """Returns an SVG chart of values against steps.

    Args:
      title: above the chart.
      steps: ascending; N of them.
      values: N values; None or a non-finite one leaves a gap.
      reference: N values drawn dashed and grey behind them, such as the most that they could be.
      reference_name: what the reference is, added to the title.

    Returns:
      An `<svg>` element. Beyond 120 points the line is a running mean and a pale band its range.
    """
    buckets = _buckets(steps, values)
    behind = _buckets(steps, reference or [])
    finite = [bucket for bucket in (*buckets, *behind) if bucket is not None]
    label = f"{title} (dashed: {reference_name})" if reference_name and behind else title
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}"'
        f' height="{_HEIGHT:.0f}" role="img" aria-label="{escape(label)}"'
        ' font-family="DejaVu Sans, Verdana, Helvetica, Arial, sans-serif" font-size="10.5">',
        f'<text x="{_LEFT}" y="16" font-size="12.5" font-weight="bold" fill="{_INK}">{escape(label)}</text>',
    ]
    if not finite:
        return "\n".join([*parts, f'<text x="{_LEFT}" y="60" fill="{_INK}">no finite value</text>', "</svg>"])
    first, last = min(steps), max(steps)
    x_ticks = ticks(first, last)
    y_ticks = ticks(min(bucket.low for bucket in finite), max(bucket.high for bucket in finite))
    lowest = min(y_ticks[0], min(bucket.low for bucket in finite))
    highest = max(y_ticks[-1], max(bucket.high for bucket in finite))

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - lowest) / (highest - lowest))

    for tick in y_ticks:
        parts.append(
            f'<line x1="{_LEFT}" y1="{y(tick):.1f}" x2="{_WIDTH - _RIGHT}" y2="{y(tick):.1f}" stroke="{_GRID}"/>'
            f'<text x="{_LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end" fill="{_INK}">{_short(tick)}</text>'
        )
    for tick in (tick for tick in x_ticks if first <= tick <= last):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{_HEIGHT - 8}" text-anchor="middle" fill="{_INK}">{_short(tick)}</text>'
        )
    for piece in _pieces(behind):
        points = " ".join(f"{x(bucket.step):.1f},{y(bucket.mean):.1f}" for bucket in piece)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_REFERENCE}" stroke-dasharray="4 3"/>')
    for piece in _pieces(buckets):
        if any(bucket.high > bucket.low for bucket in piece):
            upper = [f"{x(bucket.step):.1f},{y(bucket.high):.1f}" for bucket in piece]
            lower = [f"{x(bucket.step):.1f},{y(bucket.low):.1f}" for bucket in reversed(piece)]
            parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{_COLOUR}" fill-opacity="0.16"/>')
        if len(piece) == 1:
            parts.append(f'<circle cx="{x(piece[0].step):.1f}" cy="{y(piece[0].mean):.1f}" r="2.5" fill="{_COLOUR}"/>')
        points = " ".join(f"{x(bucket.step):.1f},{y(bucket.mean):.1f}" for bucket in piece)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_COLOUR}" stroke-width="1.6"/>')
    return "\n".join([*parts, "</svg>"])


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Returns round numbers from at most `low` to at least `high`, 2 to `most` + 1 of them, a constant step apart."""
    # A range too narrow to number, or of a width that floats cannot divide, is widened.
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 1 - math.floor(math.log10(step))
    return [round(at * step, digits) for at in range(first, last + 1)]


def _buckets(steps: Sequence[float], values: Sequence[float | None]) -> list[Bucket | None]:
    """Returns at most `_POINTS` buckets in order; None where no value of a bucket is finite."""
    size = max(1, -(-len(values) // _POINTS))
    buckets: list[Bucket | None] = []
    for start in range(0, len(values), size):
        pairs = zip(steps[start : start + size], values[start : start + size], strict=True)
        finite = [(step, value) for step, value in pairs if value is not None and math.isfinite(value)]
        if not finite:
            buckets.append(None)
            continue
        numbers = [value for _, value in finite]
        mean_step = sum(step for step, _ in finite) / len(finite)
        buckets.append(Bucket(mean_step, sum(numbers) / len(numbers), min(numbers), max(numbers)))
    return buckets


def _pieces(buckets: list[Bucket | None]) -> list[list[Bucket]]:
    """Returns the runs of buckets between gaps."""
    pieces: list[list[Bucket]] = [[]]
    for bucket in buckets:
        if bucket is None:
            pieces.append([])
        else:
            pieces[-1].append(bucket)
    return [piece for piece in pieces if piece]


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}" if abs(value) < 1e6 else f"{value:.2g}"
