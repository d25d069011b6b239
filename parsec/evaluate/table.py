"""Scores architectures by looking them up in a table, on the host and inside compiled programs."""

from collections.abc import Sequence

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
      UserError: for an unknown column, or one without two finite numbers.
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


def fidelity_evaluator(table: Table, fidelities: Sequence[tuple[str, ...]]) -> Evaluator:
    """Returns the evaluator of pairs of an architecture and a fidelity, rows int32 [B, L + 1].

    Args:
      table: of N architectures and their scores.
      fidelities: the columns of the M objectives at each of them, the index of which ends a row. Architecture n at
        fidelity f has the number f * N + n.

    Raises:
      UserError: as of `table_evaluator`.
    """
    each = [table_evaluator(table, objectives) for objectives in fidelities]
    count, last = len(table), len(fidelities) - 1

    def rows(pairs: np.ndarray) -> np.ndarray:
        found = table.find(pairs[:, :-1])
        return np.where(found >= 0, pairs[:, -1] * count + found, -1)

    def evaluate(pairs: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        scores = np.stack([one.evaluate(pairs[:, :-1], evaluated, pause) for one in each])
        return scores[pairs[:, -1], np.arange(len(pairs))]

    def traced(pairs: ArrayLike) -> tuple[jax.Array, jax.Array]:
        given = jnp.asarray(pairs)
        # A row of -1 proposes nothing; what it is looked up as is not used.
        fidelity = jnp.clip(given[:, -1], 0, last)
        looked_up = [one.traced(given[:, :-1]) for one in each if one.traced is not None]
        scores = jnp.stack([scores for _, scores in looked_up])[fidelity, jnp.arange(len(given))]
        found = looked_up[0][0]
        return jnp.where(found >= 0, fidelity * count + found, -1), scores

    return Evaluator(fidelities[last], evaluate, rows, traced, len(fidelities) * count)
