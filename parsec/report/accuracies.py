"""Accuracies of networks trained alike, a dot for each run in the order of the means, as a PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that most people with a colour vision deficiency can tell apart.
_COLOURS = {"found": "#d55e00", "random": "#6b6b6b", "residual": "#0072b2"}
_NAMES = {"found": "found cells", "random": "random cells", "residual": "plain residual network"}


class Row(NamedTuple):
    """One network: `kind` is found, random or residual; `runs` are accuracies in percent, float [S]."""

    kind: str
    runs: np.ndarray


def draw_accuracies(path: Path, rows: Sequence[Row], title: str) -> None:
    """Writes the plot: networks from the best mean to the worst, each with its runs and their mean.

    Args:
      path: where to.
      rows: the networks; runs that diverged are NaN and not drawn.
      title: above the plot.

    Raises:
      OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    named: set[str] = set()
    for place, row in enumerate(ordered(rows), 1):
        finite = row.runs[np.isfinite(row.runs)]
        if not finite.size:
            continue
        # A leading underscore keeps a line out of the legend.
        label = f"_{row.kind}" if row.kind in named else _NAMES[row.kind]
        named.add(row.kind)
        axes.plot(np.full(finite.size, place), finite, "o", color=_COLOURS[row.kind], markersize=4, alpha=0.6)
        axes.hlines(finite.mean(), place - 0.35, place + 0.35, color=_COLOURS[row.kind], linewidth=2.2, label=label)
    axes.set(xlabel="networks, from the best to the worst", ylabel="test accuracy (%)", title=title)
    axes.title.set_fontsize(9)
    axes.title.set_wrap(True)
    axes.set_xlim(0.4, len(rows) + 0.6)
    axes.grid(True, axis="y", alpha=0.25)
    if named:
        axes.legend(fontsize=8)
    # Without the software's version in its metadata, equal plots are equal files.
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows from the best mean over finite runs to the worst; those that all diverged last."""

    def badness(row: Row) -> float:
        finite = row.runs[np.isfinite(row.runs)]
        return -float(finite.mean()) if finite.size else np.inf

    return sorted(rows, key=badness)
