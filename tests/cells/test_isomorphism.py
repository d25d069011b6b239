"""Which cells are the same network: NAS-Bench-201's own count and partition, and a check by what the cells compute."""

import math
from pathlib import Path

import numpy as np
import pytest

from parsec.cells import DARTS, NASBENCH201
from parsec.cells.isomorphism import cell_expression, representatives
from parsec.cells.space import Cell

# Any functions will do that no identity relates, with f(0) = 0 as a convolution's without bias.
FUNCTIONS = {
    "none": lambda x: 0.0,
    "skip_connect": lambda x: x,
    "nor_conv_1x1": lambda x: math.sin(1.7 * x),
    "nor_conv_3x3": lambda x: math.atan(2.3 * x),
    "avg_pool_3x3": lambda x: 0.83 * x,
}


def value(cell: Cell) -> float:
    nodes = [0.9] + [0.0] * cell.num_nodes
    for edge in cell.edges:
        nodes[edge.target] += FUNCTIONS[edge.operation](nodes[edge.source])
    return nodes[-1]


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(5**6), (5,) * 6), 1).astype(np.int32)


@pytest.fixture(scope="module")
def same_as(cells: np.ndarray) -> np.ndarray:
    return representatives(NASBENCH201, cells)


def test_nasbench201_has_as_many_distinct_cells_as_published(cells: np.ndarray, same_as: np.ndarray):
    assert len(np.unique(same_as)) == 6466
    assert (same_as <= np.arange(len(cells))).all()
    np.testing.assert_array_equal(same_as[same_as], same_as)


def test_cells_that_are_the_same_compute_the_same(cells: np.ndarray, same_as: np.ndarray):
    values = np.array([value(NASBENCH201.decode(cell)["cell"]) for cell in cells])
    np.testing.assert_allclose(values, values[same_as], rtol=1e-12)


def test_the_order_of_terms_does_not_matter_and_operations_do():
    def text(*operations: str) -> str:
        cell = [NASBENCH201.operations.index(operation) for operation in operations]
        return cell_expression(NASBENCH201.decode(cell)["cell"])

    skip, none, conv, pool = "skip_connect", "none", "nor_conv_3x3", "avg_pool_3x3"
    assert text(skip, conv, pool, none, none, skip) == text(skip, pool, conv, none, none, skip)
    assert text(skip, conv, none, none, none, skip) != text(skip, pool, none, none, none, skip)
    assert text(none, conv, conv, none, conv, none) == text(none, none, none, none, none, none)


def test_a_space_without_a_rule_keeps_every_architecture():
    drawn = np.random.default_rng(0).integers(0, DARTS.sizes, (20, len(DARTS.sizes)))
    np.testing.assert_array_equal(representatives(DARTS, np.concatenate([drawn, drawn])), np.arange(40))


@pytest.mark.shared_data
def test_the_partition_is_the_benchmarks(shared_data: Path):
    with np.load(shared_data / "nasbench201.npz", allow_pickle=False) as arrays:
        cells, published = arrays["ops"].astype(np.int32), arrays["iso_rep"].astype(int)
    own = representatives(NASBENCH201, cells)
    assert len(set(zip(own.tolist(), published.tolist(), strict=True))) == 6466 == len(np.unique(published))
