"""Neighbours of NAS-Bench-101 cells: every cell one decision away, as a table over the distinct cells.

A decision is the operation of a vertex, the presence of an edge, or the use of one more vertex between two others.
Moves are worked out once for each graph, then applied to all of its operations together.

The benchmark's own search code mutates descriptions that keep unused vertices, so that an edge can bring one back
(Ying et al., ICML 2019, arXiv 1902.09635, appendix); canonical cells have none, and putting a vertex to use takes the
place of that.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from parsec.cells.nasbench101_cells import ABSENT, cells
from parsec.cells.nasbench101_graphs import MAX_EDGES, OPERATIONS, Graphs


class Neighbours(NamedTuple):
    """Rows of `cells(V).pool` next to each row: `rows[starts[r] : starts[r + 1]]` for row r, distinct, ascending,
    without r.

    Attributes:
      starts: int32 [N + 1].
      rows: int32 [total].
    """

    starts: np.ndarray
    rows: np.ndarray


@lru_cache(maxsize=4)
def neighbour_rows(max_vertices: int) -> Neighbours:
    """Returns the neighbours of every cell of `cells(max_vertices).pool`; 1 s for six vertices, 6 s for seven."""
    found = cells(max_vertices)
    built, slots = found.graphs, max_vertices - 2
    powers = len(OPERATIONS) ** np.arange(slots)
    mask_of_row = found.pool[:, slots:] @ (1 << np.arange(len(built.pairs)))
    by_graph = np.argsort(built.graph_of[mask_of_row], kind="stable")
    ends = np.cumsum(np.bincount(built.graph_of[mask_of_row], minlength=len(built.masks)))
    parts = []
    for g, members in enumerate(np.split(by_graph, ends[:-1])):
        operations = found.pool[members, :slots]
        used = int(built.interior[g])
        targets = [members[:, None]]
        for v in range(used):
            for step in range(1, len(OPERATIONS)):
                changed = operations.copy()
                changed[:, v] = (changed[:, v] + step) % len(OPERATIONS)
                targets.append(found.row_of[g, _words(changed, used, powers)][:, None])
        masks, orders = edge_moves(built, g)
        targets.append(_targets(found.row_of, built, masks, operations[:, orders], powers))
        masks, orders = vertex_moves(built, g)
        for operation in range(len(OPERATIONS) if len(masks) else 0):
            extended = operations.copy()
            extended[:, used] = operation
            targets.append(_targets(found.row_of, built, masks, extended[:, orders], powers))
        parts.append((members, _distinct(np.concatenate(targets, 1), members)))
    counts = np.zeros(len(found.pool), np.int64)
    for members, part in parts:
        counts[members] = (part >= 0).sum(1)
    starts = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty(starts[-1], np.int32)
    for members, part in parts:
        listed = part >= 0
        rows[(starts[members][:, None] + np.arange(part.shape[1]))[listed]] = part[listed]
    result = Neighbours(starts.astype(np.int32), rows)
    result.starts.setflags(write=False)
    result.rows.setflags(write=False)
    return result


def edge_moves(built: Graphs, graph: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the graphs reached by adding or removing one edge, before pruning.

    Args:
      built: the graphs' tables.
      graph: index of a canonical graph.

    Returns:
      Edge masks int32 [M], and for each the old index of the interior vertex at each new place, int32 [M, V-2].
    """
    adjacency, used = _frame(built, graph)
    reach = _closure(adjacency)
    vertices = [*range(used + 1), built.max_vertices - 1]
    full = adjacency.sum() >= MAX_EDGES
    moved = []
    for i in vertices[:-1]:
        for j in vertices[1:]:
            # Adding i -> j where j already leads to i would close a cycle; adding to a full cell is no valid cell.
            if i == j or reach[j, i] or (full and not adjacency[i, j]):
                continue
            changed = adjacency.copy()
            changed[i, j] = ~changed[i, j]
            moved.append(_sorted(built, changed))
    return _stacked(moved, built)


def vertex_moves(built: Graphs, graph: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the graphs reached by one more vertex with one edge in and one out; shapes as `edge_moves`.

    The new vertex is the first unused one of the canonical frame; there are none where no vertex or too few edges are
    left.
    """
    adjacency, used = _frame(built, graph)
    if used == built.max_vertices - 2 or adjacency.sum() + 2 > MAX_EDGES:
        return _stacked([], built)
    reach = _closure(adjacency)
    vertices = [*range(used + 1), built.max_vertices - 1]
    moved = []
    for i in vertices[:-1]:
        for j in vertices[1:]:
            if i != j and not reach[j, i]:
                changed = adjacency.copy()
                changed[i, used + 1] = changed[used + 1, j] = True
                moved.append(_sorted(built, changed))
    return _stacked(moved, built)


def _frame(built: Graphs, graph: int) -> tuple[np.ndarray, int]:
    adjacency = np.zeros((built.max_vertices, built.max_vertices), bool)
    adjacency[built.pairs[:, 0], built.pairs[:, 1]] = built.masks[graph] >> np.arange(len(built.pairs)) & 1
    return adjacency, int(built.interior[graph])


def _closure(adjacency: np.ndarray) -> np.ndarray:
    reach = adjacency.copy()
    for k in range(len(reach)):
        reach |= reach[:, k : k + 1] & reach[k]
    return reach


def _sorted(built: Graphs, adjacency: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the edge mask of an acyclic graph whose vertices may stand in any order, and the order chosen."""
    # A vertex has strictly more ancestors than any vertex that leads to it.
    order = np.argsort(_closure(adjacency).sum(0)[1:-1], kind="stable")
    frame = np.concatenate([[0], order + 1, [built.max_vertices - 1]])
    forward = adjacency[np.ix_(frame, frame)][built.pairs[:, 0], built.pairs[:, 1]]
    return int(forward @ (1 << np.arange(len(built.pairs)))), order


def _stacked(moved: list[tuple[int, np.ndarray]], built: Graphs) -> tuple[np.ndarray, np.ndarray]:
    masks = np.array([mask for mask, _ in moved], np.int32)
    return masks, np.array([order for _, order in moved], np.int32).reshape(len(moved), built.max_vertices - 2)


def _targets(
    row_of: np.ndarray, built: Graphs, masks: np.ndarray, operations: np.ndarray, powers: np.ndarray
) -> np.ndarray:
    """Returns the rows reached, -1 where invalid, int32 [B, M]; `operations` [B, M, V-2] are in the masks' frame."""
    graph, order = built.graph_of[masks], built.orders[built.order_of[masks]]
    ordered = np.take_along_axis(operations, np.broadcast_to(order, operations.shape), -1)
    words = (ordered % len(OPERATIONS)) @ powers
    return np.where(graph >= 0, row_of[np.maximum(graph, 0), words], -1)


def _words(operations: np.ndarray, used: int, powers: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(powers)) < used, operations % ABSENT, 0) @ powers


def _distinct(targets: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Returns each row's distinct entries but the member itself and -1, ascending, padded with -1."""
    last = np.iinfo(np.int32).max
    ordered = np.sort(np.where((targets < 0) | (targets == members[:, None]), last, targets), 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = last
    ordered = np.sort(ordered, 1)
    width = int((ordered < last).sum(1).max())
    return np.where(ordered == last, -1, ordered)[:, :width].astype(np.int32)
