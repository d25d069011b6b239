"""Regret against queries, one line with its 95 % band for each strategy, as a PNG."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Colours that most people with a colour vision deficiency can tell apart, and line styles for when they run out.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6b6b6b", "#8b5a2b")
STYLES = ("-", "--", ":", "-.")


def draw_regret(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str, unit: str) -> None:
    """Writes the curves as a PNG.

    Args:
      path: where to.
      curves: mean regret and half-width of its interval after every query, float [budget] each, by strategy.
      title: above the plot.
      unit: of the regret, beside its axis.

    Raises:
      OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lowest, highest = np.inf, 0.0
    for at, (name, (mean, half)) in enumerate(curves.items()):
        queries = np.arange(1, len(mean) + 1)
        colour, style = COLOURS[at % len(COLOURS)], STYLES[at // len(COLOURS) % len(STYLES)]
        axes.plot(queries, mean, style, color=colour, label=name, linewidth=1.6)
        axes.fill_between(queries, np.maximum(mean - half, 0), mean + half, color=colour, alpha=0.15, linewidth=0)
        positive = mean[np.isfinite(mean) & (mean > 0)]
        if positive.size:
            lowest, highest = min(lowest, float(positive.min())), max(highest, float(positive.max()))
    axes.set_xscale("log")
    if highest > 0:
        axes.set_yscale("log")
        axes.set_ylim(max(lowest, highest * 1e-4) / 1.5, highest * 1.5)
    axes.set(xlabel="queries", ylabel=f"mean regret ({unit})", title=title)
    axes.grid(True, which="both", alpha=0.25)
    if curves:
        axes.legend(fontsize=8, ncols=2)
    # Without the software's version in its metadata, equal curves are equal files.
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
