"""Draws the tree of an AlphaX run: the nodes visited most, coloured by their mean value.

The layout is that of Reingold and Tilford (1981) in its simplest form: leaves stand side by side and every parent over
the middle of its children. Matplotlib draws it, so that no program beside Python is needed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from parsec.errors import UserError
from parsec.search.alphax.tree import Tree

_FORMATS = (".svg", ".png", ".pdf")


def draw_tree(
    tree: Tree,
    path: str | Path,
    *,
    most: int = 60,
    names: Sequence[Sequence[str]] | None = None,
) -> Path:
    """Writes a picture of the most visited part of a search tree.

    A node's colour is the mean of the values backed up through it, its area grows with its visits, and the label of an
    edge is the decisions it takes.

    Args:
      tree: the tree of a state, `state.tree`.
      path: where to write; the suffix, one of .svg, .png and .pdf, is the format.
      most: how many nodes to draw, the root included.
      names: the options' names of every choice; their indices are written without it.

    Returns:
      The path written.

    Raises:
      UserError: for another suffix, or fewer than one node.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise UserError(f"a tree is drawn as one of {', '.join(_FORMATS)}, not {path.suffix or path.name!r}")
    if most < 1:
        raise UserError(f"a drawing holds at least 1 node, not {most}")
    visits, values = node_statistics(tree)
    nodes = most_visited(tree, visits, most)
    across = _positions(tree, nodes)
    down = _levels(tree, nodes)

    figure = Figure(figsize=(max(6.0, 0.45 * (max(across.values()) + 2)), 1.5 + 1.3 * (max(down.values()) + 1)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9))
    drawn = [values[n] for n in nodes if np.isfinite(values[n])]
    scale = Normalize(min(drawn, default=0.0), max(drawn, default=1.0) if len(set(drawn)) > 1 else None)
    colours = colormaps["viridis"]
    largest = max(int(visits[0]), 1)
    for node in nodes:
        x, y = across[node], -down[node]
        above = int(tree.parent[node])
        if above >= 0:
            axes.plot([across[above], x], [-down[above], y], color="0.7", linewidth=0.8, zorder=1)
            turned = 0 if names is None else 90
            label = _label(tree, node, names)
            axes.annotate(label, (x, y + 0.28), ha="center", va="center", fontsize=6, rotation=turned)
        colour = colours(scale(values[node])) if np.isfinite(values[node]) else "white"
        size = 20 + 380 * np.sqrt(visits[node] / largest)
        axes.scatter([x], [y], s=size, color=[colour], edgecolors="0.2", linewidths=0.6, zorder=2)
        axes.annotate(str(int(visits[node])), (x, y - 0.2), ha="center", va="center", fontsize=6)
    title = f"{len(nodes)} most visited of {int(tree.size)} nodes; visits below, mean value as colour"
    axes.set_title(title, fontsize=9)
    axes.margins(x=0.05, y=0.12)
    axes.axis("off")
    figure.savefig(path)
    return path


def node_statistics(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Returns visits int64 [size] and mean values float64 [size] of every node; NaN where a node was never visited."""
    size = int(tree.size)
    visits, totals = np.zeros(size, np.int64), np.zeros(size)
    visits[0], totals[0] = tree.visits[0].sum(), tree.totals[0].sum()
    visits[1:] = tree.visits[tree.parent[1:size], tree.action[1:size]]
    totals[1:] = tree.totals[tree.parent[1:size], tree.action[1:size]]
    with np.errstate(invalid="ignore", divide="ignore"):
        return visits, np.where(visits > 0, totals / visits, np.nan)


def most_visited(tree: Tree, visits: np.ndarray, most: int) -> list[int]:
    """Returns the most visited nodes, at most `most`, root first; a node's parent is always among them."""
    # A child has at most its parent's visits and a larger index, so that a stable sort keeps every parent first.
    order = np.argsort(-visits, kind="stable")
    return [int(node) for node in order[:most]]


def _label(tree: Tree, node: int, names: Sequence[Sequence[str]] | None) -> str:
    above = int(tree.parent[node])
    taken = range(int(tree.depth[above]), int(tree.depth[node]))
    options = [int(tree.prefixes[node, at]) for at in taken]
    if names is None:
        return " ".join(str(option) for option in options)
    return " ".join(str(names[at][option]) for at, option in zip(taken, options, strict=True))


def _positions(tree: Tree, nodes: list[int]) -> dict[int, float]:
    below: dict[int, list[int]] = {node: [] for node in nodes}
    for node in nodes[1:]:
        below[int(tree.parent[node])].append(node)
    across: dict[int, float] = {}
    free = 0.0

    def place(node: int) -> None:
        nonlocal free
        children = sorted(below[node], key=lambda child: int(tree.action[child]))
        if not children:
            across[node] = free
            free += 1.0
            return
        for child in children:
            place(child)
        across[node] = (across[children[0]] + across[children[-1]]) / 2.0

    place(nodes[0])
    return across


def _levels(tree: Tree, nodes: list[int]) -> dict[int, int]:
    levels = {nodes[0]: 0}
    for node in nodes[1:]:
        levels[node] = levels[int(tree.parent[node])] + 1
    return levels
