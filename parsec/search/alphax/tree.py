"""The search tree of AlphaX: prefixes of decisions, with statistics on the edges.

A node is a prefix of an architecture; an edge (s, a) takes the next open decision of s. Only legal actions are edges,
and a prefix with a single legal action is never a node of its own: the edge that leads there runs through to the next
real decision. Statistics N(s, a) and the sum of backed-up values W(s, a) = N(s, a) Q(s, a) live on edges, so that what
is backed up along a walk is exactly what was walked.

Selection is UCT, argmax_a Q(s, a) + 2 c sqrt(2 ln N(s) / N(s, a)), as AlphaX uses it (Wang et al. 2020,
https://arxiv.org/abs/1903.11059, after Kocsis and Szepesvari 2006). Edges whose whole subtree has been proposed are
closed and never selected again.

The tree is a struct of numpy arrays whose first axis is a capacity that doubles. The functions here that say "in place"
write into the arrays they are given; the strategy hands them its own copy.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# `options(prefix) -> tuple of the legal actions` of choice `len(prefix)`.
Options = Callable[[tuple[int, ...]], tuple[int, ...]]
# `outlook(node, actions int [n]) -> float64 [n]`: the best value predicted below each edge, -inf where none is known.
Outlook = Callable[[int, np.ndarray], np.ndarray]

_FIRST_CAPACITY = 64


class Tree(NamedTuple):
    """Nodes 0 .. size - 1 of a tree over prefixes; node 0 is the root. A is the largest number of options.

    Attributes:
      prefixes: int32 [capacity, L], the decisions taken; -1 where still open.
      depth: int32 [capacity], how many decisions are taken; L at an architecture.
      parent: int32 [capacity], -1 at the root.
      action: int32 [capacity], the edge of `parent` that leads here.
      children: int32 [capacity, A], the node an edge leads to; -1 where not expanded.
      open: bool [capacity, A], legal edges whose subtree may still hold an architecture that was not proposed.
      visits: int32 [capacity, A], N(s, a).
      totals: float64 [capacity, A], sum of the values backed up through the edge.
      size: int32 [], number of nodes.
    """

    prefixes: np.ndarray
    depth: np.ndarray
    parent: np.ndarray
    action: np.ndarray
    children: np.ndarray
    open: np.ndarray
    visits: np.ndarray
    totals: np.ndarray
    size: np.ndarray


def new_tree(length: int, actions: int, options: Options) -> Tree:
    """Returns a tree that holds its root only.

    Args:
      length: decisions of an architecture, L.
      actions: the largest number of options of any decision, A.
      options: the legal actions after a prefix.
    """
    empty = Tree(
        prefixes=np.full((_FIRST_CAPACITY, length), -1, np.int32),
        depth=np.zeros(_FIRST_CAPACITY, np.int32),
        parent=np.full(_FIRST_CAPACITY, -1, np.int32),
        action=np.full(_FIRST_CAPACITY, -1, np.int32),
        children=np.full((_FIRST_CAPACITY, actions), -1, np.int32),
        open=np.zeros((_FIRST_CAPACITY, actions), bool),
        visits=np.zeros((_FIRST_CAPACITY, actions), np.int32),
        totals=np.zeros((_FIRST_CAPACITY, actions), np.float64),
        size=np.zeros((), np.int32),
    )
    return _append(empty, (), -1, -1, options)


def prefix_of(tree: Tree, node: int) -> tuple[int, ...]:
    """Returns the decisions that lead to a node, as many as its depth."""
    return tuple(tree.prefixes[node, : tree.depth[node]].tolist())


def path_to(tree: Tree, node: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the edges from a node up to the root: nodes and actions, int32 [depth of the walk] each."""
    nodes, actions = [], []
    while tree.parent[node] >= 0:
        actions.append(tree.action[node])
        node = int(tree.parent[node])
        nodes.append(node)
    return np.array(nodes, np.int32), np.array(actions, np.int32)


def select(
    tree: Tree,
    rng: np.random.Generator,
    *,
    exploration: float,
    bounds: tuple[float, float] = (0.0, 1.0),
    first_play: float = np.inf,
    outlook: Outlook | None = None,
    outlook_weight: float = 0.0,
    depth: int | None = None,
) -> tuple[int, np.ndarray]:
    """Walks from the root by UCT to an edge to expand.

    Args:
      tree: a tree whose root has an open edge.
      rng: breaks ties.
      exploration: c of the UCT rule.
      bounds: values that the lowest and the highest score map to; Q is read as (Q - low) / (high - low).
      first_play: the value of an edge never visited above the mean of its node; it competes as if visited once.
        Infinite visits every edge once before any twice, as UCT was published.
      outlook: predictions that are mixed into the values; None walks by what was backed up alone.
      outlook_weight: their weight in the mixture, 0 to 1.
      depth: the walk ends at a node of so many decisions or more, with all of its open edges; None for no such end.

    Returns:
      The node where the walk ends, and the open edges that lead to no node yet between which nothing decides, int64
      [at least 1]: with an outlook that is a single one.
    """
    low, high = bounds
    spread = max(high - low, 1e-12)
    node = 0
    while True:
        actions = np.flatnonzero(tree.open[node])
        if depth is not None and int(tree.depth[node]) >= depth:
            return node, actions
        fresh = tree.children[node, actions] < 0
        counts = tree.visits[node, actions]
        total = max(int(tree.visits[node].sum()), 1)
        values = (tree.totals[node, actions] / np.maximum(counts, 1) - low) / spread
        mean = (float(tree.totals[node].sum()) / total - low) / spread
        # An edge can be expanded and unvisited: its only evaluation failed.
        values = np.where(counts > 0, values, mean + first_play)
        if outlook is not None:
            ahead = (outlook(node, actions) - low) / spread
            # Where nothing at all is known ahead, the walk goes on by what was backed up.
            if np.isfinite(ahead).any():
                values = (1.0 - outlook_weight) * values + outlook_weight * ahead
        uct = values + 2.0 * exploration * np.sqrt(2.0 * np.log(total) / np.maximum(counts, 1))
        best = np.flatnonzero(uct == uct.max())
        at = int(best[0]) if best.size == 1 else int(rng.choice(best))
        if fresh[at]:
            return node, actions[best[fresh[best]]] if outlook is None else actions[[at]]
        node = int(tree.children[node, actions[at]])


def expand(tree: Tree, node: int, action: int, options: Options) -> tuple[Tree, int]:
    """Returns the tree with a node at the end of edge (node, action), in place but for growth, and that node."""
    if tree.children[node, action] >= 0:
        return tree, int(tree.children[node, action])
    prefix = (*prefix_of(tree, node), int(action))
    tree = _append(tree, prefix, node, int(action), options)
    child = int(tree.size) - 1
    tree.children[node, action] = child
    return tree, child


def back_up(tree: Tree, node: int, value: float, visits: int) -> None:
    """Adds `value` to W and `visits` to N of every edge between the root and a node, in place.

    The first phase of a backup adds a prediction and one visit; the second adds the true value less that prediction and
    no visit; taking a failed evaluation back adds their negatives.
    """
    nodes, actions = path_to(tree, node)
    tree.visits[nodes, actions] += visits
    tree.totals[nodes, actions] += value


def close(tree: Tree, node: int, action: int) -> None:
    """Closes an edge, in place, and every edge above it that has no open edge left below."""
    tree.open[node, action] = False
    while not tree.open[node].any() and tree.parent[node] >= 0:
        node, action = int(tree.parent[node]), int(tree.action[node])
        tree.open[node, action] = False


def rebuild(tree: Tree, leaves: np.ndarray, values: np.ndarray) -> None:
    """Recomputes N and W of every edge from the values backed up so far, in place.

    Args:
      tree: the tree.
      leaves: int32 [R], where each backup began.
      values: float64 [R].
    """
    size = int(tree.size)
    counts = np.bincount(leaves, minlength=size).tolist()
    totals = np.bincount(leaves, weights=values, minlength=size).tolist()
    tree.visits[:] = 0
    tree.totals[:] = 0.0
    # A child is always younger than its parent, so that one sweep from the youngest finds every subtree complete.
    parent = tree.parent.tolist()
    for node in range(size - 1, 0, -1):
        counts[parent[node]] += counts[node]
        totals[parent[node]] += totals[node]
    tree.visits[tree.parent[1:size], tree.action[1:size]] = counts[1:]
    tree.totals[tree.parent[1:size], tree.action[1:size]] = totals[1:]


def _append(tree: Tree, prefix: tuple[int, ...], parent: int, action: int, options: Options) -> Tree:
    length = tree.prefixes.shape[1]
    legal: tuple[int, ...] = ()
    while len(prefix) < length and len(legal := options(prefix)) == 1:
        prefix = (*prefix, legal[0])
    node = int(tree.size)
    if node == len(tree.depth):
        tree = _grow(tree)
    tree.prefixes[node, : len(prefix)] = prefix
    tree.depth[node] = len(prefix)
    tree.parent[node] = parent
    tree.action[node] = action
    if len(prefix) < length:
        tree.open[node, list(legal)] = True
    return tree._replace(size=np.array(node + 1, np.int32))


def _grow(tree: Tree) -> Tree:
    def doubled(old: np.ndarray, fill: int) -> np.ndarray:
        return np.concatenate([old, np.full_like(old, fill)])

    return Tree(
        prefixes=doubled(tree.prefixes, -1),
        depth=doubled(tree.depth, 0),
        parent=doubled(tree.parent, -1),
        action=doubled(tree.action, -1),
        children=doubled(tree.children, -1),
        open=doubled(tree.open, 0),
        visits=doubled(tree.visits, 0),
        totals=doubled(tree.totals, 0),
        size=tree.size,
    )
