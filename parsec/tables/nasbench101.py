"""Tables of NAS-Bench-101 cells: the official file, published parts of it, and a surrogate for all of it.

Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019, arXiv 1902.09635. Every
table has the canonical architectures of `parsec.cells.nasbench101_cells` as its rows and answers for every
description of them. Accuracies are in percent. Where a table holds all cells of its space, strategies search that
space; where it holds only some, they search those.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.cells.nasbench101 import canonical_features, domain
from parsec.cells.nasbench101_cells import ABSENT, cells, choices, lookup, place, resized, rows
from parsec.cells.nasbench101_graphs import MAX_VERTICES, OPERATIONS
from parsec.errors import UserError, unknown
from parsec.files import file_digest, read_npz
from parsec.tables.cache import cached
from parsec.tables.surrogate import cross_validate, fit, predict
from parsec.tables.table import Table, table_domain
from parsec.tables.tfrecord import read_records

# Part of the name of kept files: raise it when what they hold changes.
_REVISION = 2
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Source:
    """Where a table comes from: the file's usual name and what reads it for cells of at most so many vertices."""

    file: str
    read: Callable[[Path, int], Table]
    help: str


def load_nasbench101(source: str, folder: Path, max_vertices: int) -> tuple[Table, Domain]:
    """Returns a table of cells of at most `max_vertices` (3 to 7) vertices, and the domain it covers.

    Args:
      source: a name in `SOURCES`.
      folder: holds the source's file, or is that file.
      max_vertices: V.

    Raises:
      UserError: for an unknown source, or a file that is missing, damaged, of another format or without a cell of
      that size.
    """
    if source not in SOURCES:
        raise unknown("NAS-Bench-101 table", source, SOURCES)
    path = folder / SOURCES[source].file if folder.is_dir() else folder
    table = SOURCES[source].read(path, max_vertices)
    if len(table) == len(cells(max_vertices).pool):
        return table, domain(max_vertices)
    return table, replace(table_domain(table), features=canonical_features(max_vertices))


def load_official(path: Path, max_vertices: int) -> Table:
    """Returns the table in an official `nasbench_only108.tfrecord` or `nasbench_full.tfrecord`.

    Columns are means over the trainings of a cell (three in the official files): `valid_E`, `test_E` and `train_E`
    after a training of E epochs, `seconds_E`, and `params`. The first reading takes minutes; the columns are kept in
    the user's cache folder under the file's SHA-256.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    kept = cached(f"nasbench101-{file_digest(path)[:32]}-{_REVISION}", partial(_official_columns, path))
    columns = {name: values for name, values in kept.items() if name != "row"}
    row = kept["row"]
    if max_vertices < MAX_VERTICES:
        largest = cells(MAX_VERTICES).pool[row]
        small = np.flatnonzero((largest[:, : MAX_VERTICES - 2] != ABSENT).sum(1) <= max_vertices - 2)
        brought = rows(max_vertices, resized(largest[small], MAX_VERTICES, max_vertices))
        row = np.full(len(row), -1, np.int32)
        row[small] = brought
    return _table(f"nasbench101-official-{max_vertices}", row, columns, max_vertices)


def load_sample(path: Path, max_vertices: int) -> Table:
    """Returns the table of a sample of cells with one training each: `valid_E` after E epochs, `seconds_108` and
    `params`.

    Args:
      path: an .npz with `adjacency` [N, 7, 7], `ops` [N, 5], `n_vertices`, `valid_acc` [N, E] of images out of
        `valid_acc_denominator`, `epochs` [E], `train_time_s` and `params`.
      max_vertices: cells with more vertices are left out.
    """
    arrays = _read(path, ("adjacency", "ops", "n_vertices", "valid_acc", "valid_acc_denominator", "epochs"))
    percent = 100.0 * arrays["valid_acc"] / arrays["valid_acc_denominator"][0]
    columns = {f"valid_{int(e)}": percent[:, at] for at, e in enumerate(arrays["epochs"])}
    columns |= {"seconds_108": arrays["train_time_s"], "params": arrays["params"]}
    return _table(f"nasbench101-sample-{max_vertices}", _npz_rows(path, arrays, max_vertices), columns, max_vertices)


def load_five_vertices(path: Path, max_vertices: int) -> Table:
    """Returns the complete table of cells of at most five vertices, trained for 2 and 4 epochs.

    Bakhtiarifard, Igel and Selvan, "EC-NAS: Energy Consumption Aware Tabular Benchmarks for Neural Architecture
    Search", ICASSP 2024, arXiv 2210.06015. Columns `train_E`, `valid_E`, `test_E`, `seconds_E` and `energy_kwh_E` for
    E in 2 and 4, and `params`.

    Args:
      path: an .npz with `adjacency`, `ops`, `n_vertices`, `epochs` and the columns.
      max_vertices: at most 5.
    """
    if max_vertices > 5:
        raise UserError(f"the table {path.name} has cells of at most 5 vertices, not {max_vertices}")
    arrays = _read(path, ("adjacency", "ops", "n_vertices", "epochs", "train_acc", "valid_acc", "test_acc"))
    columns = {"params": arrays["params"]}
    for at, e in enumerate(arrays["epochs"].tolist()):
        columns |= {f"{split}_{e}": 100.0 * arrays[f"{split}_acc"][:, at] for split in ("train", "valid", "test")}
        columns |= {f"seconds_{e}": arrays["train_time_s"][:, at], f"energy_kwh_{e}": arrays["energy_kwh"][:, at]}
    return _table(
        f"nasbench101-5-vertices-{max_vertices}", _npz_rows(path, arrays, max_vertices), columns, max_vertices
    )


def load_surrogate(path: Path, max_vertices: int) -> Table:
    """Returns a SURROGATE for every cell: column `surrogate_valid_108`, predicted from a sample of trained cells.

    No cell is looked up: also the cells of the sample get predictions, so that all are judged alike and the same cell
    always gets the same number. `surrogate_quality` says how far to trust it. Kept in the user's cache folder after
    the first time.

    Args:
      path: a sample as `load_sample` reads it.
      max_vertices: V.
    """
    sample = load_sample(path, MAX_VERTICES)

    def compute() -> dict[str, np.ndarray]:
        scores = sample.columns["valid_108"]
        model = fit(_features(sample.architectures, MAX_VERTICES), scores)
        return {"surrogate_valid_108": predict(model, _features(cells(max_vertices).pool, max_vertices))}

    kept = cached(f"nasbench101-surrogate-{file_digest(path)[:32]}-{max_vertices}-{_REVISION}", compute)
    return _table(f"nasbench101-surrogate-{max_vertices}", np.arange(len(cells(max_vertices).pool)), kept, max_vertices)


def surrogate_quality(path: Path, folds: int = 5) -> dict[str, float]:
    """Returns how well the surrogate ranks cells it was not fitted to, by name (see `surrogate.cross_validate`).

    Args:
      path: a sample as `load_sample` reads it.
      folds: parts of the sample, each predicted by a surrogate fitted to the others.
    """
    sample = load_sample(path, MAX_VERTICES)

    def compute() -> dict[str, np.ndarray]:
        quality = cross_validate(_features(sample.architectures, MAX_VERTICES), sample.columns["valid_108"], folds)
        return {name: np.array(value) for name, value in quality.items()}

    kept = cached(f"nasbench101-surrogate-quality-{file_digest(path)[:32]}-{folds}-{_REVISION}", compute)
    return {name: float(value) for name, value in kept.items()}


SOURCES = {
    "official": Source(
        "nasbench_only108.tfrecord", load_official, "the benchmark's own file, every cell trained 3 times"
    ),
    "five_vertices": Source("ecnas_5v_4epochs.npz", load_five_vertices, "all cells of <= 5 vertices, 4 epochs"),
    "sample": Source("nasbench101_sample30k.npz", load_sample, "30,001 cells trained once for 108 epochs"),
    "surrogate": Source(
        "nasbench101_sample30k.npz", load_surrogate, "predictions fitted to the sample, for every cell"
    ),
}


def _table(name: str, row: np.ndarray, columns: dict[str, np.ndarray], max_vertices: int) -> Table:
    """Returns the table of rows int [B] of the pool, those of -1 left out, in the pool's order."""
    found = cells(max_vertices)
    kept = np.flatnonzero(row >= 0)
    kept = kept[np.argsort(row[kept], kind="stable")]
    ordered = row[kept]
    if not len(ordered):
        raise UserError(f"table {name} has no cell of at most {max_vertices} vertices")
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if repeated.size:
        first, second = sorted(kept[repeated[0] : repeated[0] + 2].tolist())
        raise UserError(f"row {second} of table {name} repeats the cell of row {first}; {repeated.size} are duplicates")
    position = np.full(len(found.pool), -1, np.int32)
    position[ordered] = np.arange(len(ordered))

    def resolve(architectures: ArrayLike) -> jax.Array:
        at = lookup(max_vertices, architectures)
        return jnp.where(at >= 0, jnp.asarray(position)[at], -1)

    return Table(
        name=name,
        sizes=tuple(len(choice.options) for choice in choices(max_vertices)),
        architectures=found.pool[ordered] if len(ordered) < len(found.pool) else found.pool,
        columns={column: np.asarray(values, np.float64)[kept] for column, values in columns.items()},
        resolve=resolve,
    )


def _features(architectures: np.ndarray, max_vertices: int) -> np.ndarray:
    """Returns features in the frame of seven vertices, so that cells of every space are described alike, [B, D]."""
    given = architectures
    if max_vertices < MAX_VERTICES:
        given = resized(architectures, max_vertices, MAX_VERTICES)
    describe = canonical_features(MAX_VERTICES)
    return np.concatenate([np.asarray(describe(given[i : i + _CHUNK])) for i in range(0, len(given), _CHUNK)])


def _read(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    arrays = read_npz(path)
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise UserError(
            f"{path} is no such NAS-Bench-101 table: it has no array {', '.join(missing)}; it holds {', '.join(arrays)}"
        )
    count = len(arrays["adjacency"])
    for name, values in arrays.items():
        if (values.ndim > 1 or name in ("n_vertices", "params", "train_time_s")) and len(values) != count:
            raise UserError(f"{name} of {path} has {len(values)} rows; adjacency has {count}")
    return arrays


def _npz_rows(path: Path, arrays: dict[str, np.ndarray], max_vertices: int) -> np.ndarray:
    """Returns the pool's row of each described cell, int32 [B]; -1 for cells with more than V vertices."""
    sizes, adjacency, operations = arrays["n_vertices"], arrays["adjacency"], arrays["ops"]
    largest = adjacency.shape[-1]
    if adjacency.shape[1:] != (largest, largest) or operations.shape[1:] != (largest - 2,):
        raise UserError(
            f"adjacency {list(adjacency.shape)} and ops {list(operations.shape)} of {path} do not fit together"
        )
    row = np.full(len(sizes), -1, np.int32)
    for n in range(2, min(max_vertices, largest) + 1):
        of_size = np.flatnonzero(sizes == n)
        if of_size.size:
            described = place(adjacency[of_size, :n, :n], operations[of_size, : n - 2], max_vertices)
            row[of_size] = rows(max_vertices, described)
            invalid = of_size[row[of_size] < 0]
            if invalid.size:
                raise UserError(f"row {invalid[0]} of {path} is no valid cell; {invalid.size} such rows")
    return row


def _official_columns(path: Path) -> dict[str, np.ndarray]:
    """Returns the pool's rows of seven vertices, `row` int32 [B], and the means of every column, float64 [B]."""
    seen: dict[tuple[str, str], int] = {}
    of_cell, epochs, numbers = array("i"), array("i"), array("d")
    for record in read_records(path):
        last = record.evaluations[-1]
        of_cell.append(seen.setdefault((record.adjacency, record.operations), len(seen)))
        epochs.append(record.epochs)
        numbers.extend((100 * last.train, 100 * last.valid, 100 * last.test, last.seconds, record.parameters))
    cell, epoch, measured = np.array(of_cell), np.array(epochs), np.array(numbers).reshape(-1, 5)
    columns: dict[str, np.ndarray] = {"row": _described_rows(path, list(seen))}
    for e in np.unique(epoch).tolist():
        with_epoch = epoch == e
        count = np.bincount(cell[with_epoch], minlength=len(seen))
        for at, column in enumerate((f"train_{e}", f"valid_{e}", f"test_{e}", f"seconds_{e}", "params")):
            total = np.bincount(cell[with_epoch], measured[with_epoch, at], len(seen))
            columns[column] = np.divide(total, count, out=np.full(len(seen), np.nan), where=count > 0)
    return columns


def _described_rows(path: Path, described: list[tuple[str, str]]) -> np.ndarray:
    """Returns the pool's rows of seven vertices for cells as the official file writes them, int32 [B]."""
    by_size: dict[int, list[int]] = {}
    for at, (_, operations) in enumerate(described):
        by_size.setdefault(operations.count(",") + 1, []).append(at)
    row = np.full(len(described), -1, np.int32)
    for n, members in by_size.items():
        text = "".join(described[at][0] for at in members)
        words = [described[at][1].split(",") for at in members]
        if not 2 <= n <= MAX_VERTICES or len(text) != n * n * len(members) or set(text) > set("01"):
            raise UserError(f"{path} describes a cell of {n} vertices whose adjacency is not {n} x {n} digits 0 and 1")
        foreign = {word for names in words for word in names[1:-1]} - set(OPERATIONS)
        if foreign:
            raise unknown(f"operation in {path}", min(foreign), OPERATIONS)
        operations = np.array([[OPERATIONS.index(word) for word in names[1:-1]] for names in words], np.int32)
        adjacency = np.frombuffer(text.encode(), np.uint8).reshape(-1, n, n) - ord("0")
        row[members] = rows(MAX_VERTICES, place(adjacency, operations.reshape(len(members), n - 2), MAX_VERTICES))
    if (row < 0).any():
        adjacency, operations = described[int(np.flatnonzero(row < 0)[0])]
        raise UserError(
            f"{path} describes a cell that is not valid: {adjacency} {operations}; {int((row < 0).sum())} such"
        )
    return row
