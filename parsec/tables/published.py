"""Published benchmarks by name: how each is read, and for which datasets it has figures.

A space names the benchmark that knows its cells (`Space.benchmark`); a search's cell is judged where space, dataset
and table match, and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from parsec.cells.space import Space
from parsec.errors import UserError
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.nasbench301 import load_nasbench301
from parsec.tables.table import Table


@dataclass(frozen=True)
class Benchmark:
    """A published table.

    Attributes:
      load: `load(path, its name of a dataset) -> Table`.
      datasets: our name of a dataset -> its own.
    """

    load: Callable[[Path, str], Table]
    datasets: Mapping[str, str]


BENCHMARKS: dict[str, Benchmark] = {
    "nasbench201": Benchmark(
        load_nasbench201, {"cifar10": "cifar10", "tfds:cifar10": "cifar10", "cifar100": "cifar100"}
    ),
    "nasbench301": Benchmark(
        lambda path, dataset: load_nasbench301(path), {"cifar10": "cifar10", "tfds:cifar10": "cifar10"}
    ),
}


def open_published(space: Space, dataset: str, path: Path) -> Table:
    """Returns the figures of a space's benchmark for a dataset, read from a file.

    Raises:
      UserError: the file is unusable, or there are no figures for this space or dataset.
    """
    if space.benchmark not in BENCHMARKS:
        raise UserError(
            f"config.table={path} means nothing in space {space.name}; benchmarks known are {', '.join(BENCHMARKS)}"
        )
    benchmark = BENCHMARKS[space.benchmark]
    if dataset not in benchmark.datasets:
        raise UserError(
            f"config.table={path} has no figures for config.dataset={dataset}; it has them for "
            f"{', '.join(benchmark.datasets)}"
        )
    return benchmark.load(path, benchmark.datasets[dataset])
