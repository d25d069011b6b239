"""Places a directed acyclic graph in layers, left to right, so that few lines cross and none runs through a box.

The method is that of Sugiyama, Tagawa and Toda (IEEE Trans. on Systems, Man, and Cybernetics 11(2), 1981): an edge
that spans several layers passes through an empty place in each, layers are ordered by the mean place of their
neighbours, and neighbouring places are swapped while that removes crossings. Heights then follow from least squares
under a minimum distance, which a layer's isotonic regression solves exactly (pool adjacent violators). Everything is
deterministic: equal graphs are placed equally.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_STARTS, _SWEEPS = 12, 8


class Placement(NamedTuple):
    """Where a graph's vertices and lines lie.

    Attributes:
      heights: vertical centre of every vertex, in the caller's units; the least is 0.
      paths: for each edge, the (layer, height) of its source, of each layer it passes and of its target.
    """

    heights: list[float]
    paths: list[list[tuple[int, float]]]


def place(
    layers: Sequence[int],
    edges: Sequence[tuple[int, int]],
    extents: Sequence[float],
    *,
    gap: float,
    costs: Sequence[float],
) -> Placement:
    """Returns heights for the vertices and passages for the edges.

    Args:
      layers: the layer of each vertex; V of them.
      edges: pairs of vertices, the first in a lower layer than the second.
      extents: height of each vertex's box; V of them.
      gap: free height between two neighbours of a layer; half of it beside a line that passes.
      costs: what a crossing between each layer and the next costs; one for each layer, the last unused.
    """
    graph = _Graph(list(layers), [], list(extents))
    chains = [graph.chain(source, target) for source, target in edges]
    rows = _ordered(graph, costs)
    heights = _heights(graph, rows, gap)
    top = min(heights[: len(layers)])
    heights = [height - top for height in heights]
    paths = [[(graph.layers[vertex], heights[vertex]) for vertex in chain] for chain in chains]
    return Placement(heights[: len(layers)], paths)


class _Graph:
    """The proper graph: every link joins neighbouring layers; vertices past the given ones are empty places."""

    def __init__(self, layers: list[int], links: list[tuple[int, int]], extents: list[float]):
        self.layers, self.links, self.extents = layers, links, extents
        self.given = len(layers)

    def chain(self, source: int, target: int) -> list[int]:
        chain = [source]
        for layer in range(self.layers[source] + 1, self.layers[target]):
            self.layers.append(layer)
            self.extents.append(0.0)
            chain.append(len(self.layers) - 1)
        chain.append(target)
        self.links += itertools.pairwise(chain)
        return chain

    def neighbours(self, side: int) -> list[list[int]]:
        """Returns each vertex's neighbours in the layer before (side 0) or after (side 1)."""
        found: list[list[int]] = [[] for _ in self.layers]
        for link in self.links:
            found[link[1 - side]].append(link[side])
        return found


def _ordered(graph: _Graph, costs: Sequence[float]) -> list[list[int]]:
    """Returns the vertices of each layer from top to bottom: the order of the cheapest crossings that was found.

    Sweeps and swaps stop at a local optimum, so they start from the given order and from a fixed set of shuffled ones.
    """
    rows: list[list[int]] = [[] for _ in range(max(graph.layers) + 1)]
    for vertex, layer in enumerate(graph.layers):
        rows[layer].append(vertex)
    sides = graph.neighbours(0), graph.neighbours(1)
    best, cheapest = [list(row) for row in rows], _crossings(rows, sides[1], costs)
    shuffle = np.random.default_rng(0)
    for start in range(_STARTS):
        if start > 0:
            rows = [shuffle.permutation(row).tolist() for row in rows]
        for sweep in range(_SWEEPS):
            if cheapest == 0:
                return best
            side = sweep % 2
            for row in rows if side == 0 else reversed(rows):
                _sort_by_mean(row, rows, sides[side], graph)
            _swap(rows, sides, costs)
            cost = _crossings(rows, sides[1], costs)
            if cost < cheapest:
                best, cheapest = [list(row) for row in rows], cost
    return best


def _sort_by_mean(row: list[int], rows: list[list[int]], neighbours: list[list[int]], graph: _Graph) -> None:
    place = {vertex: float(at) for at, vertex in enumerate(row)}
    for vertex in row:
        if neighbours[vertex]:
            beside = rows[graph.layers[neighbours[vertex][0]]]
            place[vertex] = sum(map(beside.index, neighbours[vertex])) / len(neighbours[vertex])
    row.sort(key=lambda vertex: place[vertex])


def _swap(rows: list[list[int]], sides: tuple[list[list[int]], list[list[int]]], costs: Sequence[float]) -> None:
    """Swaps neighbours while that makes the crossings with both sides cheaper."""
    improved = True
    while improved:
        improved = False
        for layer, row in enumerate(rows):
            for at in range(len(row) - 1):
                change = 0.0
                for side, beside in ((0, layer - 1), (1, layer + 1)):
                    if 0 <= beside < len(rows):
                        place = {vertex: where for where, vertex in enumerate(rows[beside])}
                        upper = [place[other] for other in sides[side][row[at]]]
                        lower = [place[other] for other in sides[side][row[at + 1]]]
                        cost = costs[min(layer, beside)]
                        change += cost * sum(int(u < v) - int(u > v) for u in upper for v in lower)
                if change < -1e-9:
                    row[at], row[at + 1] = row[at + 1], row[at]
                    improved = True


def _crossings(rows: list[list[int]], after: list[list[int]], costs: Sequence[float]) -> float:
    total = 0.0
    for cost, (row, following) in zip(costs, itertools.pairwise(rows), strict=False):
        place = {vertex: at for at, vertex in enumerate(following)}
        ends = [place[other] for vertex in row for other in sorted(after[vertex], key=place.__getitem__)]
        total += cost * sum(u > v for at, u in enumerate(ends) for v in ends[at + 1 :])
    return total


def _heights(graph: _Graph, rows: list[list[int]], gap: float) -> list[float]:
    rows = [row for row in rows if row]
    offsets = [_offsets(graph, row, gap) for row in rows]
    heights = [0.0] * len(graph.layers)
    for row, steps in zip(rows, offsets, strict=True):
        for vertex, step in zip(row, steps, strict=True):
            heights[vertex] = step - steps[-1] / 2
    before, after = graph.neighbours(0), graph.neighbours(1)
    # Lines that pass are pulled straight more strongly than boxes are pulled to the middle.
    pulls = [
        [(other, 20.0 if min(vertex, other) >= graph.given else 1.0) for other in before[vertex] + after[vertex]]
        for vertex in range(len(heights))
    ]
    weights = [sum(strength for _, strength in pull) or 1e-3 for pull in pulls]
    layers = list(range(len(rows)))
    for sweep in range(200):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            row, steps = rows[layer], offsets[layer]
            wanted = [
                sum(strength * heights[other] for other, strength in pulls[vertex]) / weights[vertex]
                if pulls[vertex]
                else heights[vertex]
                for vertex in row
            ]
            free = [height - step for height, step in zip(wanted, steps, strict=True)]
            for vertex, step, height in zip(row, steps, _isotonic(free, [weights[v] for v in row]), strict=True):
                heights[vertex] = height + step
    return heights


def _offsets(graph: _Graph, row: list[int], gap: float) -> list[float]:
    """Returns the least height of each vertex of a row above the first."""
    offsets = [0.0]
    for upper, lower in itertools.pairwise(row):
        boxes = graph.extents[upper] / 2 + graph.extents[lower] / 2
        offsets.append(offsets[-1] + boxes + (gap if max(upper, lower) < graph.given else gap / 2))
    return offsets


def _isotonic(values: list[float], weights: list[float]) -> list[float]:
    """Returns the non-decreasing sequence nearest to `values` in weighted least squares."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        size = 1
        while blocks and blocks[-1][0] > value:
            other, other_weight, other_size = blocks.pop()
            value = (value * weight + other * other_weight) / (weight + other_weight)
            weight, size = weight + other_weight, size + other_size
        blocks.append((value, weight, size))
    return [value for value, _, size in blocks for _ in range(size)]
