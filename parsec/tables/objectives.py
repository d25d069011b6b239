"""Several objectives of a table: what is wanted of each column, what is constrained, and the reference point.

An objective is a column, maximised, or `-column`, minimised; `log10_column` is the decimal logarithm of one. A
constraint such as `params<500000` bounds what is known before anything is trained, and leaves a smaller table: whoever
searches it proposes only what satisfies it.

Hypervolumes compare only where the reference point is the same, so that each benchmark has one, written here. What a
strategy is told is scaled by it: 0 at the reference point, 1 at the ideal one, higher is better. Ideal is 100 percent
for an accuracy of a benchmark, and otherwise the best finite number of the column, which for a cost is known
beforehand. In these units MONAS's mixed reward is what its authors write, costs scaled to [0, 1].
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike
from parsec.errors import UserError, shown, unknown
from parsec.tables.table import Table

LOG = "log10_"
_ACCURACY = (0.0, 100.0)
# After which NAS-Bench-101's cells were measured: 2 and 4 by EC-NAS, from 4 on by the benchmark itself.
_EPOCHS_101 = (2, 4, 12, 36, 108)
# Reference and ideal of columns by benchmark, in the column's own unit; ideal NaN is the best of the table. Base-10
# logarithm of parameters 8 and accuracy 0 are those of Izquierdo et al. 2021, "Bag of baselines for multi-objective
# joint neural architecture search and hyperparameter optimization", arXiv 2105.01015; the others are round numbers
# that no cell exceeds. Of a device's cost it is `round_above` the costliest cell of the table.
_CELLS = {
    "params": (2e6, math.nan),
    "log10_params": (8.0, math.nan),
    "log10_params_m": (2.0, math.nan),
    "params_m": (2.0, math.nan),
    "flops_m": (250.0, math.nan),
    "log10_flops_m": (4.0, math.nan),
    "flops": (2.5e8, math.nan),
    "log10_flops": (10.0, math.nan),
}
BOUNDS: dict[str, Mapping[str, tuple[float, float]]] = {
    "nasbench201": {**_CELLS, **dict.fromkeys(("valid_12", "valid_200", "test_12", "test_200"), _ACCURACY)},
    "nasbench101": {
        "params": (5e7, math.nan),
        "log10_params": (8.0, math.nan),
        **dict.fromkeys(("energy_kwh_2", "energy_kwh_4"), (0.1, math.nan)),
        **dict.fromkeys(("log10_energy_kwh_2", "log10_energy_kwh_4"), (-1.0, math.nan)),
        **dict.fromkeys(("seconds_2", "seconds_4"), (500.0, math.nan)),
        **{f"{part}_{e}": _ACCURACY for part in ("train", "valid", "test") for e in _EPOCHS_101},
        "surrogate_valid_108": _ACCURACY,
    },
    "digits201": {
        **_CELLS,
        **{f"{part}{run}": _ACCURACY for part in ("valid", "test") for run in ("", "_0", "_1", "_2")},
    },
}
# What is known of an architecture before it is trained; in a table of one's own, any column may be.
COSTS = {
    "nasbench201": ("params", "params_m", "flops_m"),
    "nasbench101": ("params",),
    "digits201": ("params", "flops"),
}
_COMPARE: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_CONSTRAINT = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S+)\s*")


class Objectives(NamedTuple):
    """What is wanted of every architecture of a table, N of them.

    Attributes:
      names: M of them, without their sign.
      minimised: whether less is better, bool [M].
      values: in the columns' own units, float64 [N, M], all finite.
      reference: the reference point, float64 [M], in these units.
      ideal: what is 1 to a strategy, float64 [M], in these units.
    """

    names: tuple[str, ...]
    minimised: np.ndarray
    values: np.ndarray
    reference: np.ndarray
    ideal: np.ndarray

    @property
    def gains(self) -> np.ndarray:
        """How much better than the reference point, float64 [N, M], in the columns' own units; higher is better."""
        return np.where(self.minimised, -1.0, 1.0) * (self.values - self.reference)

    @property
    def scaled(self) -> np.ndarray:
        """What strategies are told, float64 [N, M]: 0 at the reference point, 1 at the ideal one."""
        return (self.values - self.reference) / (self.ideal - self.reference)

    @property
    def beyond(self) -> int:
        """How many architectures do no better than the reference point in some objective."""
        return int((self.gains <= 0).any(1).sum())


def read_objectives(
    table: Table, benchmark: str, wanted: Sequence[str], reference: Sequence[float], devices: Sequence[str] = ()
) -> Objectives:
    """Returns the objectives of a table.

    Args:
      table: whose columns are meant.
      benchmark: a key of `BOUNDS`, or any other name for a table without documented reference points, whose reference
        is then the worst number of each column.
      wanted: `column` or `-column`, at least two of them.
      reference: the reference point in the columns' units, one for each objective; empty takes the documented one.
      devices: columns that are costs of devices.

    Raises:
      UserError: for an unknown column (naming the nearest), one that is not finite everywhere or the same everywhere,
        an objective named twice, or a reference point of another length or one that nothing is better than.
    """
    if len(wanted) < 2:
        raise UserError(f"config.objectives={','.join(wanted)} names {len(wanted)}; two or more make a front")
    names = tuple(name.removeprefix("-") for name in wanted)
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"config.objectives names {name} more than once")
    if reference and len(reference) != len(names):
        raise UserError(
            f"config.reference has {len(reference)} numbers; config.objectives has {len(names)} objectives, "
            f"{', '.join(names)}"
        )
    minimised = np.array([name.startswith("-") for name in wanted])
    values = np.stack([objective_column(table, name) for name in names], 1)
    for name, column in zip(names, values.T, strict=True):
        _check_column(table, name, column, runs=name.removeprefix(LOG) in devices)
    best = np.where(minimised, values.min(0), values.max(0))
    worst = np.where(minimised, values.max(0), values.min(0))
    bounds = BOUNDS.get(benchmark)
    if bounds is not None:
        bounds = {**bounds, **_device_bounds(table, devices)}
    points, ideals = [], []
    for at, name in enumerate(names):
        point, ideal = (float(worst[at]), math.nan) if bounds is None else bounds.get(name, (math.nan, math.nan))
        points.append(reference[at] if reference else point)
        # An ideal of 100 percent is one for whoever maximises.
        ideals.append(best[at] if math.isnan(ideal) or minimised[at] else ideal)
        if math.isnan(points[-1]):
            raise UserError(
                f"objective {name} of {benchmark} has no documented reference point; give one number for each "
                f"objective: --config.reference={','.join('R' for _ in names)}"
            )
    found = Objectives(names, minimised, values, np.array(points, float), np.array(ideals, float))
    for at in np.flatnonzero((found.gains <= 0).all(0)):
        raise UserError(
            f"no architecture of table {table.name} is better than the reference point in {names[at]}, "
            f"{points[at]:g}; the best is {best[at]:g}"
        )
    return found


def constrain(
    table: Table, benchmark: str, constraints: Sequence[str], devices: Sequence[str] = ()
) -> tuple[Table, np.ndarray]:
    """Returns the part of a table that satisfies every constraint, and its rows in the whole, int [n].

    Args:
      table: the whole.
      benchmark: where the table is from; of one in `COSTS` only these columns can be constrained.
      constraints: `column<number`, or with <=, > or >=.
      devices: columns that are costs of devices, known of any architecture; what does not run there meets nothing.

    Raises:
      UserError: for a constraint of another form, on a column that is unknown or measured, or that nothing meets; the
        message then names the smallest, or largest, value there is.
    """
    kept = np.ones(len(table), bool)
    for text in constraints:
        name, relation, bound = parse_constraint(text)
        column, costs = objective_column(table, name), COSTS.get(benchmark)
        if costs is not None and name.removeprefix(LOG) not in (*costs, *devices):
            raise UserError(
                f"config.constraints has {text!r}, but {name} is only known once it is measured; on {benchmark} "
                f"constrain one of {', '.join((*costs, *devices))}"
            )
        with np.errstate(invalid="ignore"):
            meets = _COMPARE[relation](column, bound)
        before, kept = kept, kept & meets
        if not kept.any():
            others = "" if before.all() else " beside the other constraints"
            extreme, which = (np.nanmin, "smallest") if relation.startswith("<") else (np.nanmax, "largest")
            raise UserError(
                f"no architecture of table {table.name} has {text}{others}; the "
                f"{which} {name} is {extreme(column[before]):.8g}"
            )
    rows = np.flatnonzero(kept)
    if len(rows) == len(table):
        return table, rows
    if len(rows) < 2:
        raise UserError(
            f"only one architecture of table {table.name} meets config.constraints; there is nothing to search"
        )
    columns = {name: column[rows] for name, column in table.columns.items()}
    resolve = None if table.resolve is None else _within(table.resolve, rows, len(table))
    return replace(table, architectures=table.architectures[rows], columns=columns, resolve=resolve), rows


def parse_constraint(text: str) -> tuple[str, str, float]:
    """Returns name, relation and bound of `name<number`, or with <=, > or >=; raises `UserError` for another form."""
    parsed = _CONSTRAINT.fullmatch(text)
    bound = _number(parsed[3]) if parsed else None
    if parsed is None or bound is None:
        raise UserError(f"config.constraints has {shown(text)}; write COLUMN<NUMBER, or with <=, > or >=")
    return parsed[1], parsed[2], bound


def round_above(value: float) -> float:
    """Returns the least of 1, 2 and 5 times a power of ten above a positive number."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{step * power:.0e}") for step in (1, 2, 5, 10) if step * power > value)


def _within(
    resolve: Callable[[ArrayLike], jax.Array], rows: np.ndarray, count: int
) -> Callable[[ArrayLike], jax.Array]:
    """Returns `Table.resolve` of the part of a table of `count` architectures that has these rows of it, int [n]."""
    # The last entry answers for -1, which no architecture of the whole is either.
    place = np.full(count + 1, -1, np.int32)
    place[rows] = np.arange(len(rows))
    return lambda architectures: jnp.asarray(place)[resolve(architectures)]


def _device_bounds(table: Table, devices: Sequence[str]) -> dict[str, tuple[float, float]]:
    found = {}
    for name in devices:
        point = round_above(float(np.nanmax(table.columns[name])))
        found |= {name: (point, math.nan), f"{LOG}{name}": (math.log10(point), math.nan)}
    return found


def objective_column(table: Table, name: str) -> np.ndarray:
    """Returns a column, or the logarithm of one, float64 [N]; raises `UserError` for an unknown one."""
    plain = name.removeprefix(LOG)
    if plain not in table.columns:
        raise unknown(f"objective or cost of table {table.name}", plain, table.columns)
    column = table.columns[plain]
    if plain == name:
        return column
    if (column <= 0).any():
        raise UserError(f"{name} has no value where {plain} of table {table.name} is {column[column <= 0][0]:g}")
    return np.log10(column)


def _check_column(table: Table, name: str, column: np.ndarray, *, runs: bool) -> None:
    lost = int((~np.isfinite(column)).sum())
    if lost and runs:
        raise UserError(
            f"{lost} of {len(table)} architectures of table {table.name} do not run where {name} was measured; leave "
            f"them out with --config.constraints='{name.removeprefix(LOG)}>0'"
        )
    if lost:
        raise UserError(
            f"objective {name} is not a finite number in {lost} of {len(table)} architectures of table {table.name}; "
            "leave them out, or minimise and maximise columns that hold numbers only"
        )
    if np.ptp(column) == 0:
        raise UserError(
            f"objective {name} is {column[0]:g} in every architecture of table {table.name}; an objective has to differ"
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
