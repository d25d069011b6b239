"""What comes of training each of many networks: accuracies over several seeds.

All networks draw a seed's weights and batches from the same key, so that they differ by themselves alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from parsec.data.memory import Batches
from parsec.train.many import Trainer


class Parts(NamedTuple):
    """The images to train on, to choose by and to report; either of the last two may be missing."""

    train: Batches
    valid: Batches | None
    test: Batches | None


class Outcome(NamedTuple):
    """What came of training; float32 [N, S] for S seeds. A run that diverged is NaN throughout.

    Attributes:
      loss: as of `Trained`.
      valid: accuracy in percent on the validation part, after the last step; NaN where there is none.
      test: likewise on the test part.
    """

    loss: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def train_each(
    trainer: Trainer,
    architectures: np.ndarray,
    keys: jax.Array,
    steps: int,
    valid: Batches | None,
    test: Batches | None,
    *,
    pause: Callable[[], None] = lambda: None,
) -> Outcome:
    """Returns what came of training each architecture once for each seed, from fresh weights.

    Args:
      trainer: of the architectures.
      architectures: int32 [N, L].
      keys: one for each seed, [S]; all architectures draw a seed's weights and batches from the same key.
      steps: of each training.
      valid: images to choose by, or None.
      test: images to report, or None.
      pause: called between stretches of steps; may raise.

    Returns:
      Arrays of [N, S].
    """
    count, seeds = len(architectures), len(keys)
    runs = [(row, seed) for row in range(count) for seed in range(seeds)]
    found = np.full((3, count, seeds), np.nan, np.float32)
    for first in range(0, len(runs), trainer.together):
        some = runs[first : first + trainer.together]
        # Devices that are left over train the last run again.
        rows, of = np.array(some + [some[-1]] * (trainer.together - len(some))).T
        used = keys[of]
        fresh = trainer.fresh(_folded(used, 0))
        trained = trainer.train(fresh, architectures[rows], _folded(used, 1), steps, pause)
        scores = [
            None if part is None else trainer.score(trained.weights, architectures[rows], part).accuracy
            for part in (valid, test)
        ]
        bad = np.isnan(trained.loss) | np.isnan([s for s in scores if s is not None]).any(0)
        for place, values in enumerate((trained.loss, *scores)):
            if values is not None:
                for at, (row, seed) in enumerate(some):
                    found[place, row, seed] = np.nan if bad[at] else values[at]
    return Outcome(*found)


def _folded(keys: jax.Array, number: int) -> jax.Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
