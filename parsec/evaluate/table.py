"""Scores architectures by looking them up in a table, on the host and inside compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.tables.table import Table


def table_evaluator(table: Table, objectives: tuple[str, ...]) -> Evaluator:
    """Returns the evaluator of a table's columns.

    Args:
      table: of known scores.
      objectives: columns, `-column` for those to be minimised.

    Raises:
      UserError: for an unknown column, or one without a finite number.
    """
    scores = np.stack([table.objective(name) for name in objectives], 1).astype(np.float32)
    # Both are made here, outside of any trace.
    on_device, lookup = jnp.asarray(scores), table.lookup

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        del evaluated, pause
        rows = table.find(architectures)
        return np.where((rows >= 0)[:, None], scores[rows], np.float32(np.nan))

    def traced(architectures: ArrayLike) -> tuple[jax.Array, jax.Array]:
        rows = lookup(architectures)
        return rows, jnp.where((rows >= 0)[:, None], on_device[rows], jnp.nan)

    return Evaluator(objectives, evaluate, table.find, traced, len(table))
