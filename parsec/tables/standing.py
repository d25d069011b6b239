"""Where an architecture stands among those of a published table.

By the table's own figures where it holds the architecture. A table that holds only a sample of its space hardly ever
does; a surrogate fitted to the sample (`parsec.tables.surrogate`) then predicts the figure, which is always named as a
prediction and told with how well held-out cells of the sample are ranked.

What the surrogate sees of a cell are counts, for each kind of cell: how often a node is read through an operation, how
often a node is fed through an operation, and how often a node is read by another. They do not depend on the order of
slots. On 1,218 DARTS cells with NAS-Bench-301's values, held-out Kendall's tau is 0.79 with them, 0.70 with one-hot
choices; the number of parameters beside them adds nothing.
"""

import math
from typing import Any

import numpy as np

from parsec.cells.space import Space
from parsec.tables.surrogate import cross_validate, fit, predict
from parsec.tables.table import Table

# Uniform architectures that a prediction is compared with.
_RANDOM = 2000
_FIT = {"iterations": 200, "epochs": 25}


def standing(space: Space, table: Table, architecture: np.ndarray) -> dict[str, Any]:
    """Returns what a table says of an architecture; plain numbers for JSON, None where one is not finite.

    Args:
      space: of the architecture.
      table: of that space, ranked by its column `ranked_by`.
      architecture: int32 [L].

    Returns:
      Where the table holds it: its figure in every column, and `share_above`, the share of the table's architectures
      that are ranked above it. Else `predicted_COLUMN` of the column that ranks, predicted by a surrogate;
      `share_above`, the share of the table's figures above that prediction; `random_share_above`, the share of 2,000
      uniform architectures of the space whose prediction is above it; `kendall` and `kendall_deviation` over five folds
      of the table, of a surrogate's predictions with figures that it was not fitted to; `architectures`, how many it
      was fitted to; and `extrapolated`, whether some kind of cell has more of an operation than any of these, where a
      prediction is little more than a guess.
    """
    row, figures = int(table.find(architecture[None])[0]), table.columns[table.ranked_by]
    known = np.isfinite(figures)
    if row >= 0:
        held = {name: _rounded(column[row]) for name, column in table.columns.items()}
        above = (figures[known] > figures[row]).mean() if known[row] else math.nan
        return {**held, "share_above": _rounded(above)}
    features, scores = edge_counts(space, table.architectures[known]), figures[known]
    surrogate = fit(features, scores, **_FIT)
    others = np.random.default_rng(0).integers(0, space.sizes, (_RANDOM, len(space.sizes)))
    predicted, *random = predict(surrogate, edge_counts(space, np.concatenate([architecture[None], others])))
    quality = cross_validate(features, scores, **_FIT)
    return {
        f"predicted_{table.ranked_by}": _rounded(predicted),
        "share_above": _rounded((scores > predicted).mean()),
        "random_share_above": _rounded((np.array(random) > predicted).mean()),
        "kendall": _rounded(quality["kendall"]),
        "kendall_deviation": _rounded(quality["kendall_deviation"]),
        "architectures": int(known.sum()),
        "extrapolated": _extrapolated(space, architecture, table.architectures[known]),
    }


def edge_counts(space: Space, architectures: np.ndarray) -> np.ndarray:
    """Returns counts of (source, operation), (target, operation) and (source, target) in each kind of cell.

    Args:
      space: of the architectures.
      architectures: int [N, L].

    Returns:
      float32 [N, D]; equal for architectures that differ only in the order of slots into the same node.
    """
    architectures = np.asarray(architectures)
    rows, counts = np.arange(len(architectures)), []
    for layout in space.cells.values():
        nodes = layout.num_inputs + layout.num_nodes
        read, fed = (np.zeros((len(rows), nodes, len(space.operations)), np.float32) for _ in range(2))
        wired = np.zeros((len(rows), nodes, nodes), np.float32)
        for slot in layout.slots:
            source = slot.source if slot.source_choice < 0 else architectures[:, slot.source_choice]
            operation = architectures[:, slot.operation]
            read[rows, source, operation] += 1
            fed[rows, slot.target, operation] += 1
            wired[rows, source, slot.target] += 1
        counts += [each.reshape(len(rows), -1) for each in (read, fed, wired)]
    return np.concatenate(counts, 1)


def _extrapolated(space: Space, architecture: np.ndarray, sample: np.ndarray) -> bool:
    for layout in space.cells.values():
        slots = [slot.operation for slot in layout.slots]
        for operation in range(len(space.operations)):
            own, most = ((each[..., slots] == operation).sum(-1).max() for each in (architecture, sample))
            if own > most:
                return True
    return False


def _rounded(value: Any) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
