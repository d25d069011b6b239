"""Objectives of a table: what they are in the columns' units and as strategies are told, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsec.errors import UserError
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.objectives import constrain, read_objectives
from parsec.tables.table import Table, make_table


def small_table(**changed: Any) -> Table:
    columns = {"test": [50.0, 90.0, 80.0, 70.0], "params": [1e5, 1e6, 1e4, 1e5], "zero": [0.0, 1, 2, 3], **changed}
    arrays = {name: np.array(column, float) for name, column in columns.items()}
    return make_table("four", np.array([4]), np.arange(4)[:, None], arrays)


def test_gains_and_what_strategies_are_told() -> None:
    found = read_objectives(small_table(), "digits201", ("test", "-log10_params"), ())
    assert found.names == ("test", "log10_params") and found.reference.tolist() == [0, 8]
    np.testing.assert_allclose(found.values[:, 1], [5, 6, 4, 5])
    np.testing.assert_allclose(found.gains, [[50, 3], [90, 2], [80, 4], [70, 3]])
    # 100 percent and the fewest parameters are one; the reference point is zero.
    np.testing.assert_allclose(found.scaled, [[0.5, 0.75], [0.9, 0.5], [0.8, 1.0], [0.7, 0.75]])
    assert found.beyond == 0


def test_a_table_of_ones_own_has_its_worst_numbers_for_a_reference() -> None:
    found = read_objectives(small_table(), "table", ("test", "-params"), ())
    assert found.reference.tolist() == [50, 1e6] and found.ideal.tolist() == [90, 1e4]
    # The worst of either objective are no better than the reference point there.
    assert found.beyond == 2


def test_a_reference_that_architectures_exceed_is_counted() -> None:
    found = read_objectives(small_table(), "digits201", ("test", "-log10_params"), (60.0, 5.5))
    assert found.beyond == 2 and (found.gains > 0).all(1).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("changed", "wanted", "reference", "said"),
    [
        ({}, ("tets", "-params"), (), r"unknown objective or cost of table four 'tets'.*did you mean 'test'"),
        ({}, ("test", "-log10_param"), (), r"unknown objective or cost of table four 'param'.*did you mean 'params'"),
        ({}, ("test",), (), "names 1; two or more make a front"),
        ({}, ("test", "-test"), (), "names test more than once"),
        ({"test": [1.0, np.nan, 2, 3]}, ("test", "-params"), (), "test is not a finite number in 1 of 4 architectures"),
        ({"test": [7.0, 7, 7, 7]}, ("test", "-params"), (), "test is 7 in every architecture"),
        ({}, ("test", "-log10_zero"), (), "log10_zero has no value where zero of table four is 0"),
        ({}, ("test", "-params"), (0.0,), "config.reference has 1 numbers; config.objectives has 2 objectives"),
        ({}, ("test", "-params"), (95.0, 2e6), "better than the reference point in test, 95; the best is 90"),
        ({}, ("test", "-zero"), (), r"zero of digits201 has no documented reference point.*--config\.reference=R,R"),
    ],
)
def test_what_cannot_be_an_objective_is_refused(
    changed: dict[str, Any], wanted: tuple[str, ...], reference: tuple[float, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read_objectives(small_table(**changed), "digits201", wanted, reference)
    assert "\n" not in str(refused.value)


def test_constraints_leave_what_satisfies_them_all() -> None:
    table, rows = constrain(small_table(), "table", ("params <= 1e5", "log10_params>4"))
    assert rows.tolist() == [0, 3] and table.architectures.tolist() == [[0], [3]]
    assert table.columns["test"].tolist() == [50, 70] and not table.complete
    whole, rows = constrain(small_table(), "table", ())
    assert len(whole) == len(rows) == 4 and whole.complete


@pytest.mark.parametrize(
    ("constraints", "said"),
    [
        (("params<9e3",), r"no architecture of table four has params<9e3; the smallest params is 10000$"),
        (("params>1e5", "params<1e6"), "params<1e6 beside the other constraints; the smallest params is 1000000"),
        (("params>1e7",), "the largest params is 1000000"),
        (("param<9e3",), r"unknown objective or cost of table four 'param'.*did you mean 'params'"),
        (("params=3",), "write COLUMN<NUMBER"),
        (("params<few",), "write COLUMN<NUMBER"),
        (("params<nan",), "write COLUMN<NUMBER"),
        (("test>80",), "test is only known once it is measured; on digits201 constrain one of params, flops"),
        (("params<5e4",), "only one architecture of table four meets config.constraints"),
    ],
)
def test_a_constraint_that_cannot_be_kept_is_refused(constraints: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        constrain(small_table(), "digits201", constraints)
    assert "\n" not in str(refused.value)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("dataset", "exact"), [("cifar10", 292.851), ("cifar100", 224.520), ("ImageNet16-120", 140.870)]
)
def test_the_published_table_has_the_exact_hypervolume_that_others_computed(
    shared_data: Path, dataset: str, exact: float
) -> None:
    from parsec.report.pareto import hypervolume

    table = load_nasbench201(shared_data / "nasbench201.npz", dataset)
    found = read_objectives(table, "nasbench201", ("test_200", "-log10_params"), ())
    assert hypervolume(found.gains) == pytest.approx(exact, abs=5e-4)
