"""What a score is worth: the units of the tree's values and of the Meta-DNN's targets.

UCT adds an exploration bonus of fixed size to a value, so the value must be scale-free: accuracies of a few tenths of a
percent apart and losses in the hundreds have to look alike. `ranks` does that by the score's quantile among the scores
so far, which no network that fails to learn can squeeze together; its targets are normal scores (van der Waerden 1952),
the same quantiles through the inverse normal distribution. `min_max` maps the lowest and the highest score so far to 0
and 1 and `raw` keeps scores as they are, as AlphaX was published (Wang et al. 2020, https://arxiv.org/abs/1903.11059);
both have standardised scores as targets.

A scale is the scores it was fitted on, sorted: float64 [n].
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri


class Values(NamedTuple):
    """One way to turn scores and predictions into values of the tree.

    Attributes:
      of_scores: `of_scores(scale, scores float64 [n]) -> float64 [n]`.
      of_predictions: `of_predictions(scale, predictions float [n]) -> float64 [n]`, in the same units.
      targets: `targets(scale, scores float64 [n]) -> float64 [n]`, what the Meta-DNN learns to predict.
      bounds: `bounds(scale) -> (low, high)`, the values UCT reads as 0 and 1.
      middle: `middle(scale) -> float`, the value of an architecture of which nothing is known.
      moves: whether the value of a score changes with the scale, so that the tree is rebuilt when it does.
    """

    of_scores: Callable[[np.ndarray, np.ndarray], np.ndarray]
    of_predictions: Callable[[np.ndarray, np.ndarray], np.ndarray]
    targets: Callable[[np.ndarray, np.ndarray], np.ndarray]
    bounds: Callable[[np.ndarray], tuple[float, float]]
    middle: Callable[[np.ndarray], float]
    moves: bool


def quantiles(scale: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the quantile of each score in a sorted scale, strictly between 0 and 1, ties at their middle.

    An empty scale gives 0.5.
    """
    below = np.searchsorted(scale, scores, "left")
    upto = np.searchsorted(scale, scores, "right")
    return (0.5 * (below + upto) + 0.5) / (len(scale) + 1)


def _standardised(scale: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return (scores - scale.mean()) / _deviation(scale)


def _from_standardised(scale: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return np.asarray(predictions, np.float64) * _deviation(scale) + scale.mean()


def _deviation(scale: np.ndarray) -> float:
    deviation = float(scale.std())
    return deviation if deviation > 0 else 1.0


def _mean(scale: np.ndarray) -> float:
    return float(scale.mean()) if len(scale) else 0.0


def _extremes(scale: np.ndarray) -> tuple[float, float]:
    # One score, or equal scores, span nothing: any range does, and 1 keeps the division harmless.
    low, high = (float(scale[0]), float(scale[-1])) if len(scale) else (0.0, 1.0)
    return low, (high if high > low else low + 1.0)


VALUES: dict[str, Values] = {
    "ranks": Values(
        of_scores=quantiles,
        of_predictions=lambda scale, predictions: ndtr(np.asarray(predictions, np.float64)),
        targets=lambda scale, scores: ndtri(quantiles(scale, scores)),
        bounds=lambda scale: (0.0, 1.0),
        middle=lambda scale: 0.5,
        moves=True,
    ),
    "min_max": Values(
        of_scores=lambda scale, scores: np.asarray(scores, np.float64),
        of_predictions=_from_standardised,
        targets=_standardised,
        bounds=_extremes,
        middle=_mean,
        moves=False,
    ),
    "raw": Values(
        of_scores=lambda scale, scores: np.asarray(scores, np.float64),
        of_predictions=_from_standardised,
        targets=_standardised,
        bounds=lambda scale: (0.0, 1.0),
        middle=_mean,
        moves=False,
    ),
}
