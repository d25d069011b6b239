"""How long a table's architectures were trained: which columns are one score, how they are scaled, what is refused."""

from typing import Any

import numpy as np
import pytest

from parsec.errors import UserError
from parsec.tables.fidelities import name_after, read_fidelities, scaled_columns
from parsec.tables.objectives import read_objectives
from parsec.tables.table import Table, make_table


def table() -> Table:
    columns: dict[str, Any] = {f"valid_{e}": np.array([1.0, 2, 4]) * e for e in (4, 12, 36)}
    columns |= {f"energy_{e}": np.array([0.1, 0.2, 0.3]) * e for e in (12, 36)}
    columns |= {"params": [100, 1000, 10], "plain": [1, 2, 3]}
    return make_table(
        "three", np.array([3]), np.arange(3)[:, None], {n: np.array(c, float) for n, c in columns.items()}
    )


@pytest.mark.parametrize(
    ("objectives", "wanted", "found"),
    [
        (("valid_36", "log10_params"), (), (4, 12, 36)),
        (("valid_12", "log10_params"), (), (4, 12)),
        (("valid_36", "log10_energy_36"), (), (12, 36)),
        (("valid_36", "params"), (4, 36), (4, 36)),
        (("valid_36", "params"), (12,), (12, 36)),
    ],
)
def test_every_objective_that_training_changes_is_there_after_each(
    objectives: tuple[str, ...], wanted: tuple[int, ...], found: tuple[int, ...]
) -> None:
    assert read_fidelities(table(), "table", objectives, wanted) == found


def test_all_are_scaled_as_the_longest_training_is() -> None:
    objectives = read_objectives(table(), "table", ("valid_36", "-log10_energy_36", "-params"), (0.0, 2.0, 2000.0))
    told = scaled_columns(table(), objectives, (12, 36))
    assert list(told) == ["valid_12", "valid_36", "log10_energy_12", "log10_energy_36", "params"]
    np.testing.assert_allclose(told["valid_36"], np.array([36, 72, 144]) / 144)
    np.testing.assert_allclose(told["valid_12"], np.array([12, 24, 48]) / 144)
    np.testing.assert_allclose(told["log10_energy_12"], (2 - np.log10([1.2, 2.4, 3.6])) / (2 - np.log10(3.6)))
    for name, column in zip(objectives.names, objectives.scaled.T, strict=True):
        np.testing.assert_allclose(told[name], column)
        np.testing.assert_array_equal(scaled_columns(table(), objectives, ())[name], told[name])
    assert name_after("log10_energy_36", 12) == "log10_energy_12" and name_after("params_m", 12) == "params_m"


@pytest.mark.parametrize(
    ("benchmark", "objectives", "wanted", "said"),
    [
        ("table", ("plain", "params"), (), "objectives plain, params of table three end in epochs none; a strategy of"),
        ("table", ("valid_36", "valid_12"), (), "end in epochs 12, 36; a strategy of several fidelities needs one"),
        ("digits201", ("valid_36", "params"), (), "a strategy of several fidelities needs one number of epochs"),
        ("table", ("valid_4", "params"), (), "one fidelity only: table three has valid_4 after 4, 12, 36 epochs; two"),
        (
            "table",
            ("valid_36", "params"),
            (4, 8),
            "config.epochs=4,8 does not fit: table three has valid_36 after 4, 1",
        ),
        ("table", ("valid_36", "energy_36"), (4,), "has valid_36 after 4, 12, 36; energy_36 after 12, 36 epochs"),
        ("table", ("valid_12", "params"), (12, 36), "does not fit: .* two or more up to 12 are needed"),
        ("table", ("valid_36", "params"), (36,), "does not fit: .* two or more up to 36 are needed"),
    ],
)
def test_a_table_without_such_trainings_names_those_that_it_has(
    benchmark: str, objectives: tuple[str, ...], wanted: tuple[int, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read_fidelities(table(), benchmark, objectives, wanted)
    assert "\n" not in str(refused.value)
