"""Cells of the DARTS space with values of NAS-Bench-301, read from an .npz: a surrogate's values, of no training.

NAS-Bench-301 is a model fitted to some 60,000 trained cells (Zela et al., "Surrogate NAS Benchmarks: Going Beyond the
Limited Search Spaces of Tabular NAS Benchmarks", ICLR 2022, arXiv 2008.09777). The file holds its noisy values of a
sample of cells, so that a search's cell is hardly ever among them; `parsec.tables.standing` says where it stands.
"""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.darts import DARTS, NUM_NODES
from parsec.cells.domain import ArrayLike
from parsec.errors import UserError
from parsec.files import read_npz
from parsec.tables.lookup import sorted_lookup
from parsec.tables.table import Table, make_table

# The file's numbering. Its parameters correlate with ours at 0.998 so, and less in any order that exchanges more than
# the two pools, which have none.
OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# Our name of a column and the file's.
_COLUMNS = {"surrogate_accuracy": "val_accuracy", "params_m": "params", "flops_m": "flops"}


def load_nasbench301(path: Path) -> Table:
    """Returns the sample of DARTS cells; it answers for either order of the two operations of a node.

    Args:
      path: the .npz, with `arch` int [N, 2, 8, 2], the (input, operation) of each of the eight slots of the normal and
        of the reduction cell; `values` [N, C] and `cols` [C], their names.

    Returns:
      The table with `surrogate_accuracy`, NAS-Bench-301's value in percent, by which it ranks; and `params_m` and
      `flops_m` in millions.

    Raises:
      UserError: if the file cannot be read or is no such table.
    """
    arrays = read_npz(path)
    for needed in ("arch", "values", "cols"):
        if needed not in arrays:
            raise UserError(f"{path} is not a table of NAS-Bench-301 values; it has no array {needed!r}")
    cells, values, labels = arrays["arch"], arrays["values"], arrays["cols"].astype(str).tolist()
    if cells.shape[1:] != (2, 2 * NUM_NODES, 2) or cells.dtype.kind not in "iu":
        raise UserError(f"arch of {path} is {cells.dtype} {list(cells.shape)}; it must be integers [N, 2, 8, 2]")
    if values.shape != (len(cells), len(labels)):
        raise UserError(f"values of {path} is {list(values.shape)}; it must be {[len(cells), len(labels)]}")
    missing = [name for name in _COLUMNS.values() if name not in labels]
    if missing:
        raise UserError(f"values of {path} has no column {missing[0]!r}; its columns are {', '.join(labels)}")
    if cells.size and not 0 <= cells[..., 1].min() <= cells[..., 1].max() < len(OPERATIONS):
        raise UserError(f"arch of {path} has operations outside 0..{len(OPERATIONS) - 1}")
    ours = np.array([DARTS.operations.index(name) for name in OPERATIONS], np.int32)
    slots = np.stack([cells[..., 0].astype(np.int32), ours[cells[..., 1]]], -1)
    architectures = np.asarray(ordered(slots.reshape(len(cells), -1)))
    columns = {name: values[:, labels.index(theirs)].astype(np.float64) for name, theirs in _COLUMNS.items()}
    table = make_table("nasbench301-sample", DARTS.sizes, architectures, columns)
    lookup = sorted_lookup(table.sizes, table.architectures)
    return replace(table, ranked_by="surrogate_accuracy", resolve=lambda given: lookup(ordered(given)))


def ordered(architectures: ArrayLike) -> jax.Array:
    """Returns DARTS cells int32 [B, 32] with the two operations of each node in order of source, then operation.

    A node is the sum of the two, so that both orders are the same network. Works on traced architectures.
    """
    nodes = jnp.asarray(architectures, jnp.int32).reshape(-1, 2 * NUM_NODES, 2, 2)
    rank = nodes[..., 0] * len(OPERATIONS) + nodes[..., 1]
    swap = (rank[:, :, 0] > rank[:, :, 1])[:, :, None, None]
    return jnp.where(swap, nodes[:, :, ::-1], nodes).reshape(nodes.shape[0], -1)
