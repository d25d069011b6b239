"""Where the table of a comparison comes from: published benchmarks, the one in the package, or a file of one's own."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from parsec.cells.domain import Domain
from parsec.errors import UserError, shown, unknown
from parsec.files import expanded
from parsec.tables.devices import DEVICES, load_device_costs
from parsec.tables.digits201 import load_digits201
from parsec.tables.nasbench101 import SOURCES, load_nasbench101
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, load_table, table_domain


class Source(NamedTuple):
    """Which table.

    Attributes:
      benchmark: a key of `BENCHMARKS`.
      data_dir: folder of the benchmark's file, for published ones.
      table: the file of benchmark "table".
      dataset: which numbers, for benchmarks that have several.
      max_vertices: most vertices of a cell, for NAS-Bench-101.
      costs: of devices, as of `parsec.tables.devices`, to stand beside the table's own columns; for NAS-Bench-201.
    """

    benchmark: str
    data_dir: str
    table: str
    dataset: str
    max_vertices: int = 6
    costs: tuple[str, ...] = ()


def load_benchmark(source: Source) -> tuple[Table, Domain]:
    """Returns the table of a source and the domain that strategies see.

    Raises:
      UserError: for an unknown benchmark, or a table that is missing or cannot be used.
    """
    if source.benchmark not in BENCHMARKS:
        raise unknown("benchmark", source.benchmark, BENCHMARKS)
    if source.costs and source.benchmark != "nasbench201":
        raise UserError(
            f"config.costs={','.join(source.costs)} were measured for the cells of nasbench201, not of "
            f"{source.benchmark}; leave config.costs out"
        )
    if source.table and source.benchmark != "table":
        raise UserError(f"config.table={shown(source.table)} means nothing here; it needs config.benchmark=table")
    return BENCHMARKS[source.benchmark](source)


def _nasbench201(source: Source) -> tuple[Table, Domain]:
    if not source.data_dir:
        raise UserError(
            "the NAS-Bench-201 comparison needs nasbench201.npz; name its folder with --config.data_dir=DIR "
            "(its format is in docs/strategies.md)"
        )
    folder = expanded(source.data_dir)
    table = load_nasbench201(folder / "nasbench201.npz", source.dataset)
    if source.costs:
        costs = load_device_costs(folder / DEVICES, source.dataset, source.costs)
        table = replace(table, columns=table.columns | costs)
    return table, table_domain(table)


def _nasbench101(source: Source) -> tuple[Table, Domain]:
    if not source.data_dir:
        raise UserError(
            "the NAS-Bench-101 comparison needs a file of its cells; name it or its folder with --config.data_dir=DIR "
            f"(--config.dataset chooses one of {', '.join(SOURCES)})"
        )
    return load_nasbench101(source.dataset, expanded(source.data_dir), source.max_vertices)


def _digits201(source: Source) -> tuple[Table, Domain]:
    del source
    table = load_digits201()
    return table, table_domain(table)


def _file(source: Source) -> tuple[Table, Domain]:
    if not source.table:
        raise UserError(
            "no table given; name an .npz file with --config.table=FILE (its format is in docs/strategies.md)"
        )
    table = load_table(expanded(source.table))
    return table, table_domain(table)


# Where a table comes from: a function from its source to the table and the domain that strategies see.
BENCHMARKS: dict[str, Callable[[Source], tuple[Table, Domain]]] = {
    "nasbench201": _nasbench201,
    "nasbench101": _nasbench101,
    "digits201": _digits201,
    "table": _file,
}
