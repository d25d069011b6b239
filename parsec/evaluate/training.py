"""Scores architectures by training each of them: what it says of held-out images after a few epochs of its own.

A child is trained inside the supernet's program, on weights of its own: the slots it does not use have no gradient and
no influence, so this is the training of its static network, and one compiled program trains any child. Normalisation is
by batch statistics, as everywhere in a search.
"""

from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.network import Shape
from parsec.cells.space import Space
from parsec.data.memory import Batches
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.evaluate.supernet import OBJECTIVE
from parsec.supernet.supernet import Weights, cell_kinds, child_weights
from parsec.train.inherit import inherit, load_child, nearest, save_child
from parsec.train.many import Trainer

LIKELIHOOD = "valid_log_likelihood"
# The log-likelihood and what is added to it, by which a search may choose.
VALUE = "value"


def training_evaluator(
    space: Space,
    shape: Shape,
    trainer: Trainer,
    part: Batches,
    *,
    steps: int,
    objectives: tuple[str, ...],
    bonus: Callable[[np.ndarray], np.ndarray],
    cost: Callable[[np.ndarray], np.ndarray],
    key: jax.Array,
    folder: Path | None,
) -> Evaluator:
    """Returns the evaluator that trains each child, as many at a time as the trainer does.

    A child that diverges, in its weights or its likelihoods, scores NaN.

    Args:
      space: of the children.
      shape: of their networks.
      trainer: of that space and shape.
      part: held-out images.
      steps: of each training.
      objectives: some of `OBJECTIVE`, the accuracy in percent, `LIKELIHOOD`, the mean log-likelihood of an image in
        nats, and `VALUE`, in the order in which they are told.
      bonus: `bonus(architectures int32 [B, L]) -> [B]` in nats is added to `VALUE`.
      cost: as of `Evaluator`.
      key: what every child's weights and batches are drawn from, so that children differ by themselves alone.
      folder: where the weights of each trained child are kept, for later ones to inherit from, by their order; None
        starts every child fresh. The children `evaluated` before must lie there. With a folder the trainer must train
        one child at a time: whom a child inherits from would else depend on how many devices there are.
    """
    kinds = cell_kinds(space, shape)
    keys = jnp.stack([key] * trainer.together)

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        count, order = len(architectures), len(evaluated.scores)
        # Devices that are left over train the last child again.
        rows = np.asarray(architectures, np.int32)[np.minimum(np.arange(trainer.together), count - 1)]
        weights = trainer.fresh(keys)
        if folder is not None:
            weights = _inherited(weights, rows[0], evaluated, folder)
        trained = trainer.train(weights, rows, keys, steps, pause)
        scores = trainer.score(trained.weights, rows, part)
        value = scores.log_likelihood + np.asarray(bonus(rows), np.float32)
        named = {OBJECTIVE: scores.accuracy, LIKELIHOOD: scores.log_likelihood, VALUE: value}
        told = np.stack([named[name] for name in objectives], 1)
        told[np.isnan(trained.loss) | np.isnan(scores.accuracy)] = np.nan
        kept = jax.device_get(trained.weights)
        for at in range(count):
            own = jax.tree.map(itemgetter(at), kept)
            own = child_weights(space, shape, own, space.decode(rows[at]))
            if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own)):
                told[at] = np.nan
            # Kept before the score is known to anyone, so that whoever knows the score finds the weights.
            elif folder is not None and np.isfinite(told[at]).all():
                save_child(child_file(folder, order + at), own)
        return told[:count]

    def _inherited(weights: Weights, row: np.ndarray, evaluated: Evaluated, folder: Path) -> Weights:
        parent = nearest(row, evaluated.architectures, evaluated.scores[:, 0])
        if parent is None:
            return weights
        start = jax.tree.map(lambda leaf: leaf[0], weights)
        before = space.decode(evaluated.architectures[parent])
        start, _ = inherit(start, kinds, space.decode(row), before, load_child(child_file(folder, parent)))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[None], start)

    return Evaluator(objectives, evaluate, together=trainer.together, cost=cost)


def child_file(folder: Path, order: int) -> Path:
    """Returns where the weights of the n-th evaluated child are kept."""
    return folder / f"{order:06d}.npz"
