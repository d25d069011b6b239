"""Scores vectors of the joint space by training the network that each stands for, from scratch.

Every network of a run begins with weights from the same seed and sees the images in the same order, so that networks
differ by themselves alone. The test accuracy is measured beside, and no strategy is told it.
"""

import math
from collections.abc import Sequence

import numpy as np

from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.evaluate.goals import Goals
from parsec.evaluate.supernet import OBJECTIVE
from parsec.hyper.network import Task, Trained, fresh, train
from parsec.hyper.space import HyperParameters, HyperSpace, extreme_counts, parameter_count

# The only cost of this space, and what an objective may be.
PARAMS, TEST = "params", "test_accuracy"
# The reference point of the paper: log10 parameters 8, accuracy 0.
MOST_PARAMS = 10**8


def hyper_goals(wanted: Sequence[str], reference: Sequence[float], space: HyperSpace, task: Task) -> Goals:
    """Returns the objectives of a search with their reference and ideal points.

    Args:
      wanted: `accuracy`, then `-params` or `-log10_params`.
      reference: in the objectives' units without their signs, one for each; empty takes the paper's, 0 and 8.
      space: whose smallest network is ideal.
      task: what networks are for.
    """
    least, _ = extreme_counts(space, task.image, task.classes)
    goals = Goals(tuple(wanted), (PARAMS,), (1,), np.zeros(0), np.zeros(0))
    ends = [goals.join(np.array([share]), np.array([[count]]))[0] for share, count in ((0, MOST_PARAMS), (100, least))]
    if reference:
        ends[0] = goals.signs * np.array(reference, np.float64)
    return goals._replace(reference=ends[0], ideal=ends[1])


def told(goals: Goals, hyper: HyperParameters, trained: Trained, task: Task) -> np.ndarray:
    """Returns the objectives of a trained network and its test accuracy, float64 [M + 1]; NaN where it diverged."""
    count = parameter_count(hyper, task.image, task.classes)
    scores = goals.join(np.array([trained.valid]), np.array([[count]]))[0]
    return np.append(scores if math.isfinite(trained.valid) else np.full(len(scores), np.nan), trained.test)


def hyper_evaluator(space: HyperSpace, task: Task, goals: Goals, epochs: Sequence[int], seed: int) -> Evaluator:
    """Returns the evaluator of a run.

    Args:
      space: of the vectors.
      task: the images.
      goals: what is told, before the test accuracy.
      epochs: of the trainings; with more than one, the last entry of a row is an index of them.
      seed: of the run: of every network's first weights and of the order of the images.
    """
    length = len(space.sizes)

    def evaluate(rows: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        del evaluated
        scores = []
        for row in np.asarray(rows):
            hyper = space.decode(row[:length])
            weights = fresh(hyper, task.image, task.classes, np.random.default_rng(seed))
            count = epochs[int(row[length])] if len(epochs) > 1 else epochs[0]
            scores.append(told(goals, hyper, train(hyper, task, weights, count, (seed,), pause), task))
        return np.stack(scores).astype(np.float32)

    return Evaluator((OBJECTIVE, *goals.names[1:], TEST), evaluate)
