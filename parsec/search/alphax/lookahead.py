"""The rollouts that the Meta-DNN answers: a few completions of every node on the walk, and what is predicted for them.

They serve twice. The mean of the first k is the predicted half of what is backed up from a node (Wang et al. 2020,
https://arxiv.org/abs/1903.11059), and the best one below each edge guides the walk.

What is drawn at a node depends on its prefix, its visits and the weights of the Meta-DNN, on nothing else, and changes
every few visits. So draws can be kept in between, and keeping them, which makes a long run faster, changes no result.
Draws that stay the same until the next training were measured too: on NAS-Bench-201 they miss the best cell more often.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from parsec.search.alphax.meta_dnn import Features, MetaDNN, Training, predict
from parsec.search.alphax.rollouts import hash_rows, sample_completions
from parsec.search.alphax.tree import Options

# Draws that are kept; far more than are made between two trainings.
_KEPT = 10_000
# Visits of a node after which its completions are drawn anew.
_VISITS_PER_DRAW = 2


class Drawn(NamedTuple):
    """Completions of a node, spread evenly over its legal actions.

    Attributes:
      rows: int32 [n, L].
      hashes: uint64 [n], of the rows.
      predictions: float32 [n], in the units of the Meta-DNN's targets.
    """

    rows: np.ndarray
    hashes: np.ndarray
    predictions: np.ndarray


# `draw(meta, prefix, visits) -> Drawn`.
Draw = Callable[[MetaDNN, tuple[int, ...], int], Drawn]


def remembered_draws(options: Options, features: Features, training: Training, length: int, count: int) -> Draw:
    """Returns the function that draws and answers `count` completions of a prefix, and remembers them.

    Args:
      options: the legal actions after a prefix.
      features: the encoding.
      training: the Meta-DNN's hyper-parameters.
      length: decisions of an architecture, L.
      count: completions of a node, n.
    """
    kept: dict[tuple[bytes, tuple[int, ...], int], Drawn] = {}

    def draw(meta: MetaDNN, prefix: tuple[int, ...], visits: int) -> Drawn:
        turn = visits // _VISITS_PER_DRAW
        name = (meta.stamp.tobytes(), prefix, turn)
        if name not in kept:
            if len(kept) >= _KEPT:
                kept.clear()
            # An array is read as the same seed as the list of its numbers, in half the time.
            rng = np.random.default_rng(np.array([*meta.stamp.tolist(), turn, *prefix], np.uint32))
            first = np.resize(rng.permutation(options(prefix)), count)
            rows = sample_completions(rng, options, [(*prefix, int(action)) for action in first], length)
            kept[name] = Drawn(rows, hash_rows(rows), predict(meta, features, rows, training).mean(0))
        return kept[name]

    return draw


def best_below(drawn: Drawn, new: np.ndarray, at: int, actions: np.ndarray) -> np.ndarray:
    """Returns the best prediction below each edge of a node, float64 [A]; -inf where no new completion was drawn.

    Args:
      drawn: what was drawn at the node.
      new: bool [n], which of it was not proposed yet.
      at: the node's depth.
      actions: its edges in ascending order, int [A].
    """
    taken = drawn.rows[:, at]
    best = np.full(max(int(actions[-1]), int(taken.max())) + 1, -np.inf)
    np.maximum.at(best, taken[new], drawn.predictions[new])
    return best[actions]
