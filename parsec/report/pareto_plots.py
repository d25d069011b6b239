"""Hypervolume against queries, fronts that strategies attain beside the exact one, and a search's own, as PNGs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from parsec.report.regret import COLOURS, STYLES


def draw_hypervolume(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """Writes what each strategy lacks of the exact hypervolume, against queries, one line with its band each.

    Args:
      path: where to.
      curves: mean fraction and half-width of its interval after every query, float [budget] each, by strategy.
      title: above the plot.

    Raises:
      OSError: if the file cannot be written.
    """
    figure, axes = _figure()
    lowest = 1.0
    for at, (name, (mean, half)) in enumerate(curves.items()):
        queries = np.arange(1, len(mean) + 1)
        lack = 1 - mean
        _draw_band(axes, at, name, queries, lack, np.maximum(lack - half, 0), lack + half)
        lowest = min(lowest, float(lack[lack > 1e-9].min(initial=1.0)))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(max(lowest, 1e-5) / 1.5, 1.0)
    axes.set(xlabel="queries", ylabel="share of the exact hypervolume not found, mean", title=title)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    _save(figure, path)


def draw_reached(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """Writes the hypervolume of each strategy against trained epochs, one line with its band each.

    Args:
      path: where to.
      curves: mean hypervolume and half-width of its interval after every epoch, float [epochs] each, by strategy.
      title: above the plot.

    Raises:
      OSError: if the file cannot be written.
    """
    figure, axes = _figure()
    lowest, highest = np.inf, 0.0
    for at, (name, (mean, half)) in enumerate(curves.items()):
        epochs = np.arange(1, len(mean) + 1)
        _draw_band(axes, at, name, epochs, mean, mean - half, mean + half)
        lowest, highest = min(lowest, float(mean[len(mean) // 5])), max(highest, float(mean.max()))
    # What is reached in the first fifth would leave no room to tell the ends apart.
    if np.isfinite(lowest) and highest > lowest:
        axes.set_ylim(lowest - 0.05 * (highest - lowest), highest + 0.08 * (highest - lowest))
    axes.set(xlabel="trained epochs", ylabel="hypervolume, mean and 95 % interval", title=title)
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    _save(figure, path)


def draw_fronts(
    path: Path,
    known: np.ndarray,
    attained: Mapping[str, np.ndarray],
    names: tuple[str, str],
    title: str,
    label: str = "exact front",
) -> None:
    """Writes a known front as points, and what half of each strategy's runs attain, in steps.

    Args:
      path: where to.
      known: points in the objectives' own units, float [F, 2], in order along the front.
      attained: corners likewise, by strategy.
      names: of the two objectives.
      title: above the plot.
      label: what the known front is.

    Raises:
      OSError: if the file cannot be written.
    """
    figure, axes = _figure()
    for at, (name, corners) in enumerate(attained.items()):
        colour, style = _look(at)
        axes.step(
            corners[:, 1], corners[:, 0], style, where="post", color=colour, label=name, linewidth=1.4, alpha=0.85
        )
    axes.plot(known[:, 1], known[:, 0], "o", color="black", markersize=4, label=label, zorder=5)
    axes.set(xlabel=names[1], ylabel=names[0], title=title)
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8)
    _save(figure, path)


def draw_searched(path: Path, evaluated: np.ndarray, front: np.ndarray, names: Sequence[str], title: str) -> None:
    """Writes the front that a search of real networks settled on, in steps, over everything that it evaluated.

    Args:
      path: where to.
      evaluated: the two objectives of everything evaluated, float [N, 2], without their signs.
      front: likewise of the front, float [F, 2], in order along it.
      names: of the two objectives.
      title: above the plot.

    Raises:
      OSError: if the file cannot be written.
    """
    figure, axes = _figure()
    axes.plot(evaluated[:, 1], evaluated[:, 0], ".", color=COLOURS[6], label="evaluated on the way", alpha=0.6)
    axes.step(
        front[:, 1], front[:, 0], "o-", where="post", color=COLOURS[0], label="the front at the end", markersize=5
    )
    axes.set(xlabel=names[1].removeprefix("-"), ylabel=names[0], title=title)
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=8)
    _save(figure, path)


def _draw_band(
    axes: Axes, at: int, name: str, across: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    """Draws the `at`-th line of a plot with its band, float [n] each."""
    colour, style = _look(at)
    axes.plot(across, middle, style, color=colour, label=name, linewidth=1.6)
    axes.fill_between(across, low, high, color=colour, alpha=0.15, linewidth=0)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _look(at: int) -> tuple[str, str]:
    return COLOURS[at % len(COLOURS)], STYLES[at // len(COLOURS) % len(STYLES)]


def _save(figure: Figure, path: Path) -> None:
    # Without the software's version in its metadata, equal curves are equal files.
    figure.savefig(path, format="png", dpi=120, metadata={"Software": None})
