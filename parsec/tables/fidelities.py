"""How long a table's architectures were trained: columns such as `valid_12` and `valid_200` are one score, twice.

A column `NAME_E` of a benchmark holds what was measured after a training of E epochs; an objective `valid_200` then
has `valid_12` for a lower fidelity, where the table has that column. What does not end in epochs, such as parameters,
is the same at all of them.
"""

import re
from collections.abc import Sequence

import numpy as np

from parsec.errors import UserError
from parsec.tables.objectives import LOG, Objectives, objective_column
from parsec.tables.table import Table

_AFTER = re.compile(r"(.+_)(\d+)")
# In this benchmark a number at the end of a name is that of a repeated training.
_REPEATED = ("digits201",)


def read_fidelities(table: Table, benchmark: str, objectives: Sequence[str], wanted: Sequence[int]) -> tuple[int, ...]:
    """Returns the epochs, rising, after which a table has every objective that training changes.

    Args:
      table: whose columns are meant.
      benchmark: where it is from.
      objectives: names without their sign, as of `Objectives.names`; the highest fidelity is theirs.
      wanted: epochs to be used; empty takes all that there are up to the objectives' own.

    Raises:
      UserError: objectives of different epochs or of none, fewer than two fidelities, or epochs that the table does not
        have; each names what it has.
    """
    own = {name: _epochs(name) for name in objectives}
    ends = sorted({e for e in own.values() if e})
    if len(ends) != 1 or benchmark in _REPEATED:
        ends_in = ", ".join(map(str, ends)) or "none"
        raise UserError(
            f"objectives {', '.join(objectives)} of table {table.name} end in epochs {ends_in}; a strategy of several "
            "fidelities needs one number of epochs that they end in, as valid_200 does"
        )
    trained = [name for name in objectives if own[name]]
    held = {name: _held(table, name) for name in trained}
    common = sorted(set.intersection(*map(set, held.values())))
    listed = "; ".join(f"{name} after {', '.join(map(str, epochs))}" for name, epochs in held.items())
    missing = [e for e in wanted if e not in common]
    chosen = tuple(sorted(set(wanted) | set(ends))) if wanted else tuple(e for e in common if e <= ends[0])
    if missing or chosen[-1] > ends[0] or len(chosen) < 2:
        said = f"config.epochs={','.join(map(str, wanted))} does not fit" if wanted else "there is one fidelity only"
        raise UserError(f"{said}: table {table.name} has {listed} epochs; two or more up to {ends[0]} are needed")
    return chosen


def scaled_columns(table: Table, objectives: Objectives, fidelities: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns every objective after every training, scaled as the highest is, float64 [N] by `name_after`.

    Args:
      table: whose columns are meant.
      objectives: of the highest fidelity.
      fidelities: as of `read_fidelities`, or empty.
    """
    columns = {}
    for name, point, ideal in zip(objectives.names, objectives.reference, objectives.ideal, strict=True):
        for after in fidelities or (0,):
            column = name_after(name, after) if fidelities else name
            columns[column] = (objective_column(table, column) - point) / (ideal - point)
    return columns


def name_after(name: str, epochs: int) -> str:
    """Returns an objective's name after a training of other epochs; its own where it does not end in epochs."""
    parsed = _AFTER.fullmatch(name)
    return f"{parsed[1]}{epochs}" if parsed else name


def _epochs(name: str) -> int | None:
    parsed = _AFTER.fullmatch(name)
    return int(parsed[2]) if parsed else None


def _held(table: Table, name: str) -> list[int]:
    """Returns after which epochs a table has the objective, rising."""
    stem = name_after(name.removeprefix(LOG), 0)[:-1]
    found = [_epochs(column) for column in table.columns if column.startswith(stem)]
    return sorted(e for e in found if e and name_after(name.removeprefix(LOG), e) in table.columns)
