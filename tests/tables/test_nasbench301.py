"""DARTS cells with NAS-Bench-301's values: the file's numbering, either order of a node's operations, refusals."""

from pathlib import Path

import jax
import numpy as np
import pytest

from parsec.cells.costs import cost_table, table_costs
from parsec.cells.darts import DARTS
from parsec.cells.genotypes import from_text, to_text
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.tables.nasbench301 import OPERATIONS, load_nasbench301, ordered
from parsec.tables.published import open_published

# The slots (input, operation) of two cells, in the file's numbering.
ROW = [[0, 0], [1, 1], [0, 2], [1, 3], [2, 4], [3, 5], [0, 6], [4, 3]]
OTHER = [[1, 2], [0, 6], [1, 1], [2, 0], [3, 1], [2, 5], [1, 3], [4, 6]]
TEXT = (
    "Genotype(normal=[('max_pool_3x3', 0), ('avg_pool_3x3', 1), ('skip_connect', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_5x5', 2), ('dil_conv_3x3', 3), ('dil_conv_5x5', 0), ('sep_conv_3x3', 4)], normal_concat=range(2, 6), "
    "reduce=[('skip_connect', 1), ('dil_conv_5x5', 0), ('avg_pool_3x3', 1), ('max_pool_3x3', 2), ('avg_pool_3x3', 3), "
    "('dil_conv_3x3', 2), ('sep_conv_3x3', 1), ('dil_conv_5x5', 4)], reduce_concat=range(2, 6))"
)


def write(path: Path, **changed: object) -> Path:
    """Writes a file of two cells in the layout of the published one."""
    arrays = {
        "arch": np.array([[ROW, OTHER], [OTHER, ROW]], np.int8),
        "cols": np.array([b"val_accuracy", b"flops", b"params", b"nwot"]),
        "values": np.array([[94.0, 80.0, 0.6, np.nan], [93.0, 90.0, 0.7, 1.0]]),
    }
    np.savez(path, **{name: value for name, value in (arrays | changed).items() if value is not None})  # type: ignore[arg-type]
    return path


def test_cells_are_read_in_the_numbering_of_the_file(tmp_path: Path):
    table = load_nasbench301(write(tmp_path / "a.npz"))
    assert (len(table), table.complete, table.ranked_by) == (2, False, "surrogate_accuracy")
    found = from_text(DARTS, TEXT)
    assert table.find(found[None]).tolist() == [0]
    assert table.columns["surrogate_accuracy"].tolist() == [94.0, 93.0]
    assert (table.columns["params_m"][1], table.columns["flops_m"][1]) == (0.7, 90.0)
    # What the table holds is such a cell, written with the operations of each node in an order of its own.
    text = to_text(DARTS, table.architectures[0])
    assert from_text(DARTS, text).tolist() == table.architectures[0].tolist() == ordered(found[None])[0].tolist()


def test_either_order_of_a_nodes_operations_is_the_same_cell(tmp_path: Path):
    table = load_nasbench301(write(tmp_path / "a.npz"))
    nodes = from_text(DARTS, TEXT).reshape(8, 2, 2)
    for node in range(8):
        turned = nodes.copy()
        turned[node] = turned[node, ::-1]
        assert table.find(turned.reshape(1, -1)).tolist() == [0]
    # Operations that change places between sources are another cell.
    crossed = nodes.copy()
    crossed[0, :, 1] = crossed[0, ::-1, 1]
    assert table.find(crossed.reshape(1, -1)).tolist() == [-1]
    assert jax.jit(table.lookup)(nodes.reshape(1, -1)).tolist() == [0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"arch": None}, "is not a table of NAS-Bench-301 values; it has no array 'arch'"),
        ({"arch": np.zeros((2, 16), np.int8)}, r"arch of .* is int8 \[2, 16\]; it must be integers \[N, 2, 8, 2\]"),
        ({"arch": np.array([[ROW, [[0, 7], *OTHER[1:]]]], np.int8), "values": np.ones((1, 4))}, "operations outside"),
        ({"arch": np.array([[ROW, [[2, 0], *OTHER[1:]]]], np.int8), "values": np.ones((1, 4))}, "has option 2"),
        ({"values": np.ones((3, 4))}, r"values of .* is \[3, 4\]; it must be \[2, 4\]"),
        ({"cols": np.array([b"accuracy", b"flops", b"params", b"nwot"])}, "has no column 'val_accuracy'"),
    ],
    ids=["no array", "shape", "operation", "source", "values", "column"],
)
def test_files_of_another_format_are_refused(changed: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message) as refused:
        load_nasbench301(write(tmp_path / "a.npz", **changed))
    assert "\n" not in str(refused.value)


def test_it_is_the_benchmark_of_the_darts_space_on_cifar10(tmp_path: Path):
    path = write(tmp_path / "a.npz")
    assert len(open_published(DARTS, "cifar10", path)) == len(open_published(DARTS, "tfds:cifar10", path)) == 2
    with pytest.raises(UserError, match=r"has no figures for config\.dataset=cifar100"):
        open_published(DARTS, "cifar100", path)


@pytest.mark.shared_data
def test_its_parameters_are_ours_in_this_order_of_operations_and_in_no_other(shared_data: Path):
    """Any exchange of two operations but the pools, which have no parameters, is further from the file's numbers."""
    table = load_nasbench301(shared_data / "darts_nb301_naslib.npz")
    assert len(table) == 1218
    costs = cost_table(DARTS, Shape(16, 8, 10))

    def agreement(order: list[int]) -> float:
        exchanged = table.architectures.copy()
        exchanged[:, 1::2] = np.array(order)[exchanged[:, 1::2]]
        return float(np.corrcoef(table_costs(costs, exchanged)[:, 0], table.columns["params_m"])[0, 1])

    kept = list(range(len(OPERATIONS)))
    ours = agreement(kept)
    assert ours > 0.997
    pools = {DARTS.operations.index("max_pool_3x3"), DARTS.operations.index("avg_pool_3x3")}
    for a in kept:
        for b in kept[a + 1 :]:
            order = kept.copy()
            order[a], order[b] = b, a
            assert {a, b} == pools or agreement(order) < ours - 0.005
