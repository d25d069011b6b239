"""Tables: architectures whose scores are already known, as an evaluator and as the domain it covers.

A table is an .npz with `sizes` int [L], `architectures` int [N, L] and any number of numeric columns [N] (see
docs/strategies.md). A column is maximised under its own name and minimised as `-name`. A score that is NaN or infinite
is a failed evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain, mutation_within, one_change, product_domain
from parsec.errors import UserError, unknown
from parsec.files import arrays_digest, read_npz, replacing
from parsec.tables.lookup import dense_lookup, sorted_lookup

# Spaces up to this many combinations are looked up in one dense array; larger ones by binary search.
_DENSE = 2**22
# Most options of a choice that are read from a table.
LARGEST_CHOICE = 2**14
# Strategies are told float32 numbers, and square and add them.
_LARGEST_SCORE = 1e15


@dataclass(frozen=True)
class Table:
    """Architectures and their known scores.

    Attributes:
      name: shown in reports.
      sizes: options of each choice; L of them.
      architectures: distinct, int32 [N, L].
      columns: named numbers, float64 [N] each; NaN where the evaluation failed.
      resolve: for spaces in which several vectors describe one architecture: int32 [B, L] to the row int32 [B] or -1,
        on traced arrays; None where every vector stands for itself.
      ranked_by: the column whose highest figure is the best architecture, where the table's makers have one; else "".
    """

    name: str
    sizes: tuple[int, ...]
    architectures: np.ndarray
    columns: dict[str, np.ndarray]
    resolve: Callable[[ArrayLike], jax.Array] | None = None
    ranked_by: str = ""

    def __len__(self) -> int:
        return len(self.architectures)

    @property
    def digest(self) -> str:
        """The sha256 of the architectures and columns, as hexadecimal text."""
        names = np.array(sorted(self.columns))
        return arrays_digest(np.array(self.sizes), self.architectures, names, *map(self.columns.__getitem__, names))

    @property
    def complete(self) -> bool:
        """Whether the table holds every combination of options."""
        return len(self) == _cardinality(self.sizes)

    def objective(self, name: str) -> np.ndarray:
        """Returns a column as scores to maximise, float64 [N]: negated for `-name`, NaN where it is not finite.

        Raises:
          UserError: for an unknown column (naming the nearest), one with fewer than two finite numbers, or numbers too
            large for float32.
        """
        sign, column = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
        if column not in self.columns:
            raise unknown(f"column of table {self.name}", column, self.columns)
        scores = np.where(np.isfinite(self.columns[column]), sign * self.columns[column], np.nan)
        finite = int(np.isfinite(scores).sum())
        if finite < 2:
            held = "only one finite number" if finite else "no finite number"
            raise UserError(f"column {column!r} of table {self.name} holds {held}; strategies need two or more")
        largest = float(np.nanmax(np.abs(scores)))
        if largest > _LARGEST_SCORE:
            raise UserError(
                f"column {column!r} of table {self.name} holds {largest:g} in size; strategies compute with numbers up "
                f"to {_LARGEST_SCORE:g}, so rescale it"
            )
        return scores

    def find(self, architectures: np.ndarray) -> np.ndarray:
        """Returns the row of each architecture, int32 [B], or -1 where the table has none; on the host."""
        keys = np.asarray(architectures, np.int32)
        if self.resolve is not None:
            return np.asarray(self.lookup(keys))
        return np.array([self._row_of_bytes.get(key.tobytes(), -1) for key in keys], np.int32)

    @cached_property
    def _row_of_bytes(self) -> dict[bytes, int]:
        return {row.tobytes(): at for at, row in enumerate(self.architectures)}

    @cached_property
    def lookup(self) -> Callable[[ArrayLike], jax.Array]:
        """`find` for traced architectures: int32 [B, L] to int32 [B]."""
        if self.resolve is not None:
            return jax.jit(self.resolve)
        if _cardinality(self.sizes) <= _DENSE:
            return dense_lookup(self.sizes, self.architectures)
        return sorted_lookup(self.sizes, self.architectures)


def load_table(path: Path) -> Table:
    """Returns the table of an .npz file.

    Args:
      path: the file, with `sizes` int [L], `architectures` int [N, L] and at least one numeric column [N].

    Raises:
      UserError: if the file is missing, truncated or corrupt (with its size and SHA-256), or if the arrays do not fit
        together: wrong shapes or types, options out of range, duplicate architectures, no column.
    """
    arrays = read_npz(path)
    for needed in ("sizes", "architectures"):
        if needed not in arrays:
            raise UserError(f"table {path} has no array {needed!r}; it holds {', '.join(sorted(arrays)) or 'nothing'}")
    columns = {
        name: values.astype(np.float64)
        for name, values in arrays.items()
        if name not in ("sizes", "architectures") and values.dtype.kind in "fiu" and values.ndim == 1
    }
    return make_table(path.stem, arrays["sizes"], arrays["architectures"], columns)


def make_table(name: str, sizes: np.ndarray, architectures: np.ndarray, columns: dict[str, np.ndarray]) -> Table:
    """Returns a checked table.

    Args:
      name: shown in reports and errors.
      sizes: int [L], each at least 1.
      architectures: int [N, L].
      columns: numbers [N] by name; at least one.

    Raises:
      UserError: if the arrays do not fit together; the message names the first row that is wrong.
    """
    sizes, architectures = np.asarray(sizes), np.asarray(architectures)
    if sizes.ndim != 1 or not sizes.size or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        raise UserError(f"sizes of table {name} is {_shape(sizes)}; it must be integers [L], each at least 1")
    if architectures.dtype.kind not in "iu" or architectures.ndim != 2 or architectures.shape[1] != len(sizes):
        raise UserError(
            f"architectures of table {name} is {_shape(architectures)}; it must be integers [N, {len(sizes)}], "
            "one column for each entry of sizes"
        )
    if not len(architectures):
        raise UserError(f"table {name} holds no architecture")
    outside = np.argwhere((architectures < 0) | (architectures >= sizes))
    if outside.size:
        row, choice = map(int, outside[0])
        raise UserError(
            f"row {row} of table {name} has option {int(architectures[row, choice])} of choice {choice}, "
            f"outside 0..{int(sizes[choice]) - 1}; {len(np.unique(outside[:, 0]))} of its rows are invalid"
        )
    architectures = architectures.astype(np.int32)
    _, first, inverse, counts = np.unique(
        architectures, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) < len(architectures):
        inverse = inverse.reshape(-1)
        row = int(np.flatnonzero(first[inverse] != np.arange(len(architectures)))[0])
        raise UserError(
            f"row {row} of table {name} repeats the architecture of row {int(first[inverse[row]])}; "
            f"{int((counts - 1).sum())} of its rows are duplicates"
        )
    if sizes.max() > LARGEST_CHOICE:
        raise UserError(
            f"choice {int(sizes.argmax())} of table {name} has {int(sizes.max()):,} options; strategies keep a "
            f"number for each, so at most {LARGEST_CHOICE:,} are read"
        )
    if sizes.max() < 2:
        raise UserError(f"sizes of table {name} are all 1; there is nothing to choose")
    signed = [column for column in columns if column.startswith("-")]
    if signed:
        raise UserError(
            f"table {name} has a column {signed[0]!r}; a name may not begin with '-', which asks for the smallest "
            f"{signed[0].lstrip('-')!r}"
        )
    if not columns:
        raise UserError(f"table {name} has no numeric column [{len(architectures)}] beside sizes and architectures")
    for column, values in columns.items():
        if values.shape != (len(architectures),):
            raise UserError(f"column {column!r} of table {name} is {_shape(values)}; it must be [{len(architectures)}]")
    numbers = {column: np.asarray(values, np.float64) for column, values in columns.items()}
    return Table(name, tuple(int(size) for size in sizes), architectures, numbers)


def save_table(path: Path, table: Table) -> None:
    """Writes a table, whole or not at all, in the format that `load_table` reads."""
    arrays: dict[str, np.ndarray] = {
        "sizes": np.array(table.sizes, np.int32),
        "architectures": table.architectures,
        **table.columns,
    }
    with replacing(path) as hidden, hidden.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def table_domain(table: Table) -> Domain:
    """Returns the domain a table covers.

    A complete table is the product of its choices. Otherwise an architecture is valid when the table holds it: samples
    are rows, neighbours are the rows one decision away (an architecture without any mutates to a uniform sample), and
    an option is legal when some row begins so. All but `neighbours` and `legal` are plain `jax.numpy`.
    """
    if table.complete:
        return product_domain(table.sizes, largest_pool=len(table))
    rows = jnp.asarray(table.architectures)
    changes = one_change(table.sizes)
    lookup = table.lookup
    ordered = table.architectures[np.lexsort(table.architectures.T[::-1])]

    def valid(architectures: ArrayLike) -> jax.Array:
        return lookup(architectures) >= 0

    def sample(key: jax.Array, n: int) -> jax.Array:
        return rows[jax.random.randint(key, (n,), 0, len(table))]

    def neighbours(architecture: np.ndarray) -> np.ndarray:
        around = np.asarray(changes(architecture))
        return around[table.find(around) >= 0]

    def legal(prefix: tuple[int, ...]) -> np.ndarray:
        low, high = 0, len(ordered)
        for at, option in enumerate(prefix):
            column = ordered[low:high, at]
            low, high = low + int(np.searchsorted(column, option)), low + int(np.searchsorted(column, option, "right"))
        return np.isin(np.arange(table.sizes[len(prefix)]), ordered[low:high, len(prefix)])

    product = product_domain(table.sizes, largest_pool=0)
    return replace(
        product,
        sample=sample,
        mutate=mutation_within(table.sizes, valid, sample),
        neighbours=neighbours,
        valid=valid,
        legal=legal,
        pool=table.architectures,
    )


def _cardinality(sizes: tuple[int, ...]) -> int:
    return int(np.prod(np.array(sizes, object)))


def _shape(values: np.ndarray) -> str:
    return f"{values.dtype} {list(values.shape)}"
