"""The table inside the package: whole, small, and what it says it is."""

import numpy as np
import pytest

from parsec.cells import NASBENCH201
from parsec.cells.costs import cost_table, table_costs
from parsec.cells.isomorphism import representatives
from parsec.cells.network import Shape
from parsec.tables.digits201 import FILE, load_digits201
from parsec.tables.table import Table


@pytest.fixture(scope="module")
def table() -> Table:
    return load_digits201()


def test_it_holds_every_cell_in_less_than_a_megabyte(table: Table):
    assert table.complete and len(table) == 15625 and table.sizes == (5,) * 6
    assert FILE.stat().st_size < 1_000_000


def test_each_cell_has_the_figures_of_the_one_trained_for_it(table: Table):
    same_as = representatives(NASBENCH201, table.architectures)
    np.testing.assert_array_equal(table.columns["representative"], same_as)
    assert len(np.unique(same_as)) == 6466
    for name in ("valid", "valid_0", "test_2", "loss_1", "seconds"):
        np.testing.assert_array_equal(table.columns[name], table.columns[name][same_as])


def test_accuracies_are_shares_of_the_images_and_means_over_the_seeds(table: Table):
    for name, count in (("valid", 719), ("test", 359)):
        seeds = np.stack([table.columns[f"{name}_{seed}"] for seed in range(3)])
        np.testing.assert_allclose(seeds * count / 100, np.rint(seeds * count / 100), atol=1e-3)
        np.testing.assert_allclose(table.columns[name], seeds.mean(0), rtol=1e-6)


def test_costs_are_those_of_the_trained_networks(table: Table):
    costs = table_costs(cost_table(NASBENCH201, Shape(8, 1, 10, 2), (8, 8, 1)), table.architectures)
    np.testing.assert_array_equal(np.stack([table.columns["params"], table.columns["flops"]], 1), costs)


def test_accuracies_spread_and_repeat(table: Table):
    valid = table.columns["valid"]
    # Cells that lead nothing from input to output always answer alike, and are right one time in ten.
    assert 8 < valid.min() < 12 and valid.max() > 90
    middle = np.percentile(valid, [10, 90])
    assert middle[1] - middle[0] > 8
    ranks = [np.argsort(np.argsort(table.columns[f"valid_{seed}"])).astype(float) for seed in range(2)]
    assert np.corrcoef(*ranks)[0, 1] > 0.5
