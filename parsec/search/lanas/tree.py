"""The tree of latent actions: ridge regressions that halve the space into better and worse, and UCB over them.

Wang et al. 2021, "Sample-Efficient Neural Architecture Search by Learning Actions" (arXiv 1906.06832). The tree is
complete and has a fixed height; node j's children are 2j + 1 (predicted at least the threshold: good) and 2j + 2 (bad).
An architecture goes where its *prediction* says, evaluated or not, so that a node's mean describes the region that is
later sampled; splitting the evaluated ones by their true scores instead would describe another partition.
"""

from typing import NamedTuple

import numpy as np

from parsec.search.lanas.encoding import Encoding, HalfSpace, Region, linear_margin


class Tree(NamedTuple):
    """A fitted tree of J = 2^height - 1 nodes in heap order.

    Attributes:
      weights: float32 [J, P]; a node's half-space is `expand(features) @ weights + offset >= 0`.
      offset: float64 [J], intercept less threshold.
      split: bool [J], whether the node has children. A leaf has a regression too, if enough was routed to it.
      visits: int32 [J], evaluations that passed through the node, those under way included.
      scored: int32 [J], those whose value is known.
      total: float64 [J], the sum of their values.
    """

    weights: np.ndarray
    offset: np.ndarray
    split: np.ndarray
    visits: np.ndarray
    scored: np.ndarray
    total: np.ndarray


def empty_tree(height: int, width: int) -> Tree:
    """Returns the tree before anything is known: a root that is a leaf, over encodings of P = `width` columns."""
    nodes = 2**height - 1
    return Tree(
        weights=np.zeros((nodes, width), np.float32),
        offset=np.zeros(nodes),
        split=np.zeros(nodes, bool),
        visits=np.zeros(nodes, np.int32),
        scored=np.zeros(nodes, np.int32),
        total=np.zeros(nodes),
    )


def fit_ridge(encoded: np.ndarray, values: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Returns the ridge regression of values on encodings: weights float32 [P] and intercept, in closed form.

    The intercept is not penalised. The penalty is `ridge` times the mean squared norm of the centred encodings, so that
    its meaning changes neither with the scale of the features nor with the number of columns. The smaller of the primal
    [P, P] and the dual [n, n] system is solved.

    Args:
      encoded: float32 [n, P].
      values: float [n].
      ridge: positive.
    """
    middle = encoded.mean(0, dtype=np.float64).astype(np.float32)
    centred = encoded - middle
    mean = float(np.mean(values))
    residual = (values - mean).astype(np.float32)
    penalty = np.float32(ridge * max(float(np.mean(np.sum(centred**2, 1))), 1e-6))
    if encoded.shape[0] <= encoded.shape[1]:
        gram = centred @ centred.T
        gram.flat[:: len(gram) + 1] += penalty
        weights = centred.T @ np.linalg.solve(gram, residual)
    else:
        gram = centred.T @ centred
        gram.flat[:: len(gram) + 1] += penalty
        weights = np.linalg.solve(gram, centred.T @ residual)
    return weights, mean - float(middle.astype(np.float64) @ weights)


def fit_tree(
    encoded: np.ndarray, values: np.ndarray, *, height: int, min_samples: int, ridge: float, threshold: str
) -> Tree:
    """Returns the tree learnt from evaluated architectures, with counts and totals from those routed to each node.

    Args:
      encoded: float32 [n, P], n >= 1.
      values: float [n], higher is better.
      height: levels of nodes; 2^(height - 1) leaves if every split is possible.
      min_samples: a node stays a leaf where a child would get fewer evaluated architectures; at least 1.
      ridge: penalty of the regressions, see `fit_ridge`.
      threshold: "mean" splits at the mean value of the node, which is also its mean prediction; "median" at the median
        prediction, which halves the evaluated architectures.
    """
    tree = empty_tree(height, encoded.shape[1])
    members = {0: np.arange(len(values))}
    for node in range(2**height - 1):
        rows = members.pop(node, None)
        if rows is None:
            continue
        tree.visits[node] = tree.scored[node] = len(rows)
        tree.total[node] = values[rows].sum()
        last = 2 * node + 1 >= 2**height - 1
        if node and len(rows) < 2 * min_samples:
            continue
        weights, intercept = fit_ridge(encoded[rows], values[rows], ridge)
        predicted = encoded[rows] @ weights + intercept
        at = float(np.median(predicted)) if threshold == "median" else float(np.mean(values[rows]))
        tree.weights[node] = weights
        tree.offset[node] = intercept - at
        good = encoded[rows] @ tree.weights[node] + tree.offset[node] >= 0
        # Where all predictions tie, no side is better; what is left of them is rounding.
        tied = np.ptp(predicted) <= 1e-5 * max(1.0, float(np.abs(predicted).max()))
        if last or tied or min(good.sum(), (~good).sum()) < min_samples:
            continue
        tree.split[node] = True
        members[2 * node + 1] = rows[good]
        members[2 * node + 2] = rows[~good]
    return tree


def path_of(tree: Tree, encoded: np.ndarray) -> list[int]:
    """Returns the nodes that one architecture, encoded as float32 [P], passes from the root to its leaf."""
    path = [0]
    while tree.split[path[-1]]:
        node = path[-1]
        path.append(2 * node + (1 if encoded @ tree.weights[node] + tree.offset[node] >= 0 else 2))
    return path


def leaves(tree: Tree) -> list[int]:
    """Returns the leaves of the tree, best predicted first: in order from the good side to the bad."""
    found, stack = [], [0]
    while stack:
        node = stack.pop()
        if tree.split[node]:
            stack += [2 * node + 2, 2 * node + 1]
        else:
            found.append(node)
    return found


def ucb(
    mean: float, visits: int, parent_visits: int, *, exploration: float, form: str = "log", unvisited: float = np.inf
) -> float:
    """Returns the upper confidence bound of a child, `mean + 2 c sqrt(2 g / n)`.

    Args:
      mean: of the values known of the child; ignored where it has no visit.
      visits: n of the child; a child without one is worth `unvisited`.
      parent_visits: N of its parent.
      exploration: c, in units of the values.
      form: "log" for g = ln N (LaNAS), "sqrt" for g = sqrt N (LA-MCTS).
    """
    if not visits:
        return unvisited
    growth = np.sqrt(parent_visits) if form == "sqrt" else np.log(max(parent_visits, 1))
    return mean + 2.0 * exploration * float(np.sqrt(2.0 * growth / visits))


def ranked_leaves(tree: Tree, *, exploration: float, form: str) -> list[int]:
    """Returns the leaves in the order they are tried: the one UCB walks to first, then by their own UCB.

    Args:
      tree: with visits and totals.
      exploration: c, in units of the values.
      form: see `ucb`.
    """

    def bound(node: int) -> float:
        parent = (node - 1) // 2
        mean = tree.total[node] / max(int(tree.scored[node]), 1)
        return ucb(mean, int(tree.visits[node]), int(tree.visits[parent]), exploration=exploration, form=form)

    chosen = 0
    while tree.split[chosen]:
        # The good child wins a tie.
        good, bad = 2 * chosen + 1, 2 * chosen + 2
        chosen = good if bound(good) >= bound(bad) else bad
    others = [leaf for leaf in leaves(tree) if leaf != chosen]
    return [chosen, *sorted(others, key=lambda leaf: -bound(leaf))]


def expert_of(tree: Tree, leaf: int, samples: int) -> int:
    """Returns the deepest node above or at a leaf whose regression is fitted to at least `samples` evaluations.

    It knows the leaf's part of the space better than the root's regression does; 0, the root, if there is none.
    """
    node = leaf
    while node and (tree.scored[node] < samples or not tree.weights[node].any()):
        node = (node - 1) // 2
    return node


def region_of(tree: Tree, node: int, encoding: Encoding) -> Region:
    """Returns the half-spaces whose intersection is a node's region, the root's first; none for the root itself."""
    region = []
    while node:
        parent = (node - 1) // 2
        margin = linear_margin(encoding, tree.weights[parent], float(tree.offset[parent]))
        region.append(HalfSpace(margin, positive=node == 2 * parent + 1))
        node = parent
    return tuple(reversed(region))


def visit(tree: Tree, path: list[int], *, visits: int, value: float | None = None) -> Tree:
    """Returns the tree with `visits` more visits (or fewer) along a path and, if it is known, one more value.

    Args:
      tree: not changed.
      path: nodes from the root to a leaf.
      visits: 1 for a proposal, -1 for a proposal that failed, 0 where the visit is counted already.
      value: what the evaluation was worth.
    """
    after = tree._replace(visits=tree.visits.copy(), scored=tree.scored.copy(), total=tree.total.copy())
    after.visits[path] += visits
    if value is not None:
        after.scored[path] += 1
        after.total[path] += value
    return after
