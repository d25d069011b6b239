"""Graphs of NAS-Bench-101 cells: pruning, the published hash, canonical forms and enumeration up to isomorphism.

A cell is a directed acyclic graph whose first vertex is the input, whose last is the output and whose interior vertices
each run one operation. Vertices that lie on no path from input to output are pruned. What is left is valid when the
output is reached and at most nine edges remain (Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture
Search", ICML 2019, arXiv 1902.09635, section 2).

Two descriptions of the same cell are found equal without hashing: a graph of at most V vertices is an integer of
V(V-1)/2 edge bits, small enough that a table over all of them names each one's canonical graph and the order of
vertices that reaches it. Enumerating, checking and looking up cells are then plain gathers, on the host and in traced
code alike.
"""

import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from parsec.errors import UserError

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
MAX_EDGES = 9
MAX_VERTICES = 7


@dataclass(frozen=True)
class Graphs:
    """Every valid graph of at most V vertices up to isomorphism, without operations; G of them, E = V(V-1)/2.

    Graphs are drawn in a frame of V vertices: input at 0, interior vertices in canonical order from 1 on, unused ones
    after them, output at V - 1. Bit e of an edge mask stands for the edge `pairs[e]`.

    Attributes:
      max_vertices: V.
      pairs: (source, target) of each edge bit, by target and then source, int32 [E, 2].
      masks: edge mask of each canonical graph, int32 [G].
      interior: interior vertices of each, int32 [G].
      orders: every order of the interior vertices; `orders[p, i]` is the old index (from 0) of the vertex moved to i,
        int32 [(V-2)!, V-2].
      graph_of: the canonical graph of every edge mask after pruning, -1 where it is invalid, int16 [2^E].
      order_of: the row of `orders` that brings the pruned graph into canonical order, uint8 [2^E].
      keep: edges left when interior vertices are taken out; bit i of the index takes out vertex i + 1, int32 [2^(V-2)].
    """

    max_vertices: int
    pairs: np.ndarray
    masks: np.ndarray
    interior: np.ndarray
    orders: np.ndarray
    graph_of: np.ndarray
    order_of: np.ndarray
    keep: np.ndarray


def prune(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a cell without the vertices that lie on no path from its input to its output.

    Args:
      adjacency: 0/1, strictly upper triangular, [n, n].
      operations: index into `OPERATIONS` of each interior vertex, [n - 2].

    Returns:
      The adjacency uint8 [m, m] and operations int32 [m - 2] of the vertices kept.

    Raises:
      UserError: the description is malformed, the output is not reached or more than nine edges remain.
    """
    adjacency, operations = _checked(adjacency, operations)
    n = len(adjacency)
    ahead = np.zeros(n, bool)
    behind = np.zeros(n, bool)
    ahead[0] = behind[-1] = True
    for v in range(1, n):
        ahead[v] = bool((ahead & (adjacency[:, v] > 0)).any())
    for v in range(n - 2, -1, -1):
        behind[v] = bool((behind & (adjacency[v] > 0)).any())
    if not ahead[-1]:
        raise UserError("the cell's output is not reached from its input")
    kept = np.flatnonzero(ahead & behind)
    pruned = adjacency[np.ix_(kept, kept)]
    if pruned.sum() > MAX_EDGES:
        raise UserError(f"the cell has {int(pruned.sum())} edges; NAS-Bench-101 allows {MAX_EDGES}")
    return pruned, operations[kept[1:-1] - 1]


def module_hash(adjacency: np.ndarray, operations: np.ndarray) -> str:
    """Returns the name the benchmark gives a cell: 32 hexadecimal digits, equal for isomorphic cells.

    The published rule: each vertex starts from the MD5 of (out degree, in degree, label), labels being -1 for the
    input, -2 for the output and the operation's index between; as many times as there are vertices, each takes the
    MD5 of its sorted predecessors, its sorted successors and itself, joined by bars; the name is the MD5 of the
    sorted list.

    Args:
      adjacency: [n, n], as for `prune`; the cell is pruned first.
      operations: [n - 2].
    """
    adjacency, operations = prune(adjacency, operations)
    labels = [-1, *(int(o) for o in operations), -2]
    degrees = zip(adjacency.sum(1).tolist(), adjacency.sum(0).tolist(), labels, strict=True)
    hashes = [_md5(str(triple)) for triple in degrees]
    for _ in labels:
        hashes = [
            _md5(
                "|".join(
                    (
                        "".join(sorted(hashes[u] for u in np.flatnonzero(adjacency[:, v]))),
                        "".join(sorted(hashes[u] for u in np.flatnonzero(adjacency[v]))),
                        hashes[v],
                    )
                )
            )
            for v in range(len(labels))
        ]
    return _md5(str(sorted(hashes)))


@lru_cache(maxsize=4)
def graphs(max_vertices: int) -> Graphs:
    """Returns the tables of all graphs of at most `max_vertices` (3 to 7) vertices; the arrays are read-only."""
    if not 3 <= max_vertices <= MAX_VERTICES:
        raise UserError(f"the most vertices of a NAS-Bench-101 cell can be 3 to {MAX_VERTICES}, not {max_vertices}")
    V = max_vertices
    pairs = np.array([(i, j) for j in range(1, V) for i in range(j)], np.int32)
    orders = np.array(list(itertools.permutations(range(V - 2))), np.int32)
    every = np.arange(1 << len(pairs), dtype=np.int32)
    alive, reached = _alive(every, V)
    keep = np.array([_kept_edges(pairs, absent) for absent in range(1 << (V - 2))], np.int32)
    dead = np.zeros(len(every), np.int32)
    for i in range(V - 2):
        dead |= (~alive[i + 1]).astype(np.int32) << i
    pruned = every & keep[dead]
    pruned[~(reached & (np.bitwise_count(pruned) <= MAX_EDGES))] = -1

    distinct = np.flatnonzero(np.bincount(pruned[pruned >= 0], minlength=len(every))).astype(np.int32)
    canonical, order = _canonical(distinct, alive[:, distinct], pairs, orders, V)
    masks, index = np.unique(canonical, return_inverse=True)
    graph_of = np.full(len(every), -1, np.int16)
    order_of = np.zeros(len(every), np.uint8)
    graph_of[distinct] = index
    order_of[distinct] = order
    # A graph with dead vertices is its pruned graph: same canonical form, and the same order of the same vertices.
    valid = pruned >= 0
    graph_of[valid] = graph_of[pruned[valid]]
    order_of[valid] = order_of[pruned[valid]]
    built = Graphs(
        max_vertices=V,
        pairs=pairs,
        masks=masks,
        interior=alive[1 : V - 1, masks].sum(0).astype(np.int32),
        orders=orders,
        graph_of=graph_of,
        order_of=order_of,
        keep=keep,
    )
    for array in (built.pairs, built.masks, built.interior, built.orders, built.graph_of, built.order_of, built.keep):
        array.setflags(write=False)
    return built


def automorphisms(built: Graphs, graph: int) -> np.ndarray:
    """Returns the orders of interior vertices that leave a canonical graph as it is, int32 [A, V-2].

    Unused vertices stay where they are, so that each order counts once.
    """
    mask, used = built.masks[graph], built.interior[graph]
    tail = (built.orders[:, used:] == np.arange(used, built.max_vertices - 2)).all(1)
    moved, possible = reordered(built, np.full(len(built.orders), mask, np.int32), np.arange(len(built.orders)))
    return built.orders[tail & possible & (moved == mask)]


def reordered(built: Graphs, masks: np.ndarray, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns edge masks after their interior vertices change places.

    Args:
      built: the graphs' tables.
      masks: int32 [B].
      orders: rows of `built.orders`, [B].

    Returns:
      The new masks int32 [B], and whether every edge still points forward, bool [B].
    """
    new_bit, backward = _moves(built.pairs, built.orders, built.max_vertices)
    moved = np.zeros_like(masks)
    for e in range(len(built.pairs)):
        moved |= (masks >> e & 1) << new_bit[orders, e]
    return moved, (masks & backward[orders]) == 0


def _checked(adjacency: np.ndarray, operations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    adjacency, operations = np.asarray(adjacency), np.asarray(operations)
    n = len(adjacency)
    if adjacency.shape != (n, n) or not 2 <= n <= MAX_VERTICES:
        raise UserError(f"a cell's adjacency is n x n with n from 2 to {MAX_VERTICES}, not {list(adjacency.shape)}")
    if operations.shape != (n - 2,):
        raise UserError(f"a cell of {n} vertices has {n - 2} operations, not {list(operations.shape)}")
    if np.tril(adjacency).any() or not np.isin(adjacency, (0, 1)).all():
        raise UserError("a cell's adjacency holds 0 and 1, and only above the diagonal")
    if operations.size and not np.isin(operations, range(len(OPERATIONS))).all():
        raise UserError(f"operations are 0..{len(OPERATIONS) - 1} ({', '.join(OPERATIONS)}), not {operations.tolist()}")
    return adjacency.astype(np.uint8), operations.astype(np.int32)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _alive(masks: np.ndarray, V: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which vertices lie on a path from input to output, bool [V, B], and whether there is one, bool [B]."""

    def edge(i: int, j: int) -> np.ndarray:
        return (masks >> (j * (j - 1) // 2 + i) & 1).astype(bool)

    ahead = [np.ones(len(masks), bool)]
    for j in range(1, V):
        ahead.append(np.logical_or.reduce([ahead[i] & edge(i, j) for i in range(j)]))
    behind = {V - 1: np.ones(len(masks), bool)}
    for i in range(V - 2, -1, -1):
        behind[i] = np.logical_or.reduce([behind[j] & edge(i, j) for j in range(i + 1, V)])
    return np.stack([ahead[v] & behind[v] for v in range(V)]), ahead[V - 1]


def _kept_edges(pairs: np.ndarray, absent: int) -> int:
    gone = {i + 1 for i in range(MAX_VERTICES) if absent >> i & 1}
    return sum(1 << e for e, (i, j) in enumerate(pairs.tolist()) if i not in gone and j not in gone)


def _canonical(
    masks: np.ndarray, alive: np.ndarray, pairs: np.ndarray, orders: np.ndarray, V: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the canonical form of pruned graphs, int32 [B], and the row of `orders` that reaches it, [B].

    Vertices are ordered by their longest distance from the input, unused ones last; among the orders that do so, the
    one with the smallest mask is canonical. Such an order always points every edge forward.
    """
    level = np.zeros((V, len(masks)), np.int8)
    for e, (i, j) in enumerate(pairs.tolist()):
        level[j] = np.where(masks >> e & 1, np.maximum(level[j], level[i] + 1), level[j])
    interior = np.where(alive[1 : V - 1], level[1 : V - 1], V)
    new_bit, _ = _moves(pairs, orders, V)
    best = np.full(len(masks), np.iinfo(np.int32).max, np.int32)
    chosen = np.zeros(len(masks), np.int32)
    for p, order in enumerate(orders):
        rows = np.flatnonzero((np.diff(interior[order], axis=0) >= 0).all(0))
        moved = np.zeros(len(rows), np.int32)
        for e in range(len(pairs)):
            moved |= (masks[rows] >> e & 1) << new_bit[p, e]
        better = moved < best[rows]
        best[rows[better]] = moved[better]
        chosen[rows[better]] = p
    return best, chosen


def _moves(pairs: np.ndarray, orders: np.ndarray, V: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each order puts each edge bit, int32 [P, E], and the mask of edges it turns around, int32 [P]."""
    place = np.concatenate(
        [np.zeros((len(orders), 1), np.int64), np.argsort(orders, 1) + 1, np.full((len(orders), 1), V - 1)], 1
    )
    source, target = place[:, pairs[:, 0]], place[:, pairs[:, 1]]
    low, high = np.minimum(source, target), np.maximum(source, target)
    backward = ((source > target).astype(np.int32) << np.arange(len(pairs), dtype=np.int32)).sum(1, dtype=np.int32)
    return (high * (high - 1) // 2 + low).astype(np.int32), backward
