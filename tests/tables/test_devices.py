"""Costs of devices: their names, what does not run, what is refused, and their reference points."""

from pathlib import Path

import numpy as np
import pytest

from parsec.errors import UserError
from parsec.jobs.tables.benchmarks import Source, load_benchmark
from parsec.tables.devices import DEVICES, load_device_costs
from parsec.tables.objectives import constrain, read_objectives, round_above
from parsec.tables.table import Table, make_table


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / DEVICES
    np.savez(
        path,
        hwnasbench=np.array([[[1.0, -1], [2, 3], [4, 5]], [[10, 20], [20, 30], [40, 50]]]),
        hwnasbench_datasets=np.array([b"cifar10", b"cifar100"]),
        hwnasbench_cols=np.array([b"edgegpu_latency", b"edgetpu_latency"]),
        help_latency_ms=np.array([[7.0], [8], [9]], np.float32),
        help_cols=np.array([b"gold_6226"]),
        edge2025_cifar100=np.array([[0.1, 60.0], [0.2, 70], [0.3, 80]]),
        edge2025_cols=np.array([b"pi5:onnx:lat_ms_median", b"pi5:onnx:energy_mj"]),
    )
    return path


def test_columns_have_one_form_of_name_and_the_dataset_chooses_among_them(file: Path):
    wanted = ("edgegpu_latency", "edgetpu_latency", "gold_6226_latency", "pi5_onnx_latency", "pi5_onnx_energy")
    found = load_device_costs(file, "cifar10", wanted)
    assert tuple(found) == wanted and {column.dtype for column in found.values()} == {np.dtype(np.float64)}
    assert found["edgegpu_latency"].tolist() == [1, 2, 4] and found["gold_6226_latency"].tolist() == [7, 8, 9]
    assert found["pi5_onnx_latency"].tolist() == [0.1, 0.2, 0.3] and found["pi5_onnx_energy"].tolist() == [60, 70, 80]
    np.testing.assert_array_equal(found["edgetpu_latency"], [np.nan, 3, 5])
    assert load_device_costs(file, "cifar100", ("edgegpu_latency",))["edgegpu_latency"].tolist() == [10, 20, 40]


def test_an_unknown_cost_names_the_nearest_and_another_file_is_refused(file: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"unknown device cost 'edgegpu_latenzy'.*did you mean 'edgegpu_latency'"):
        load_device_costs(file, "cifar10", ("edgegpu_latenzy",))
    np.savez(tmp_path / "other.npz", ops=np.zeros(3))
    with pytest.raises(UserError, match=r"other\.npz is no table of device costs: KeyError"):
        load_device_costs(tmp_path / "other.npz", "cifar10", ("edgegpu_latency",))
    with pytest.raises(UserError, match="were measured for the cells of nasbench201, not of digits201"):
        load_benchmark(Source("digits201", "", "", "digits", costs=("edgegpu_latency",)))


def with_costs() -> Table:
    columns = {"test_200": [50.0, 90, 80, 70], "a_latency": [1.0, 4, 2, 3], "b_latency": [np.nan, 40, 20, 30]}
    return make_table("four", np.array([4]), np.arange(4)[:, None], {key: np.array(v) for key, v in columns.items()})


def test_a_device_has_a_round_reference_point_and_its_cost_can_be_constrained():
    found = read_objectives(with_costs(), "nasbench201", ("test_200", "-a_latency"), (), ("a_latency",))
    assert found.reference.tolist() == [0, 5] and found.beyond == 0
    logs = read_objectives(with_costs(), "nasbench201", ("test_200", "-log10_a_latency"), (), ("a_latency",))
    assert logs.reference.tolist() == [0, np.log10(5)]
    part, rows = constrain(with_costs(), "nasbench201", ("a_latency<3",), ("a_latency",))
    assert rows.tolist() == [0, 2] and len(part) == 2
    with pytest.raises(UserError, match="a_latency is only known once it is measured"):
        constrain(with_costs(), "nasbench201", ("a_latency<3",))


@pytest.mark.parametrize(
    ("value", "above"), [(0.99, 1), (1, 2), (1.5, 2), (2, 5), (19.9, 20), (5e-3, 0.01), (7000, 10_000)]
)
def test_a_reference_point_is_the_next_of_one_two_and_five(value: float, above: float):
    assert round_above(value) == above


def test_what_does_not_run_on_a_device_is_said_and_can_be_left_out():
    devices, wanted = ("b_latency",), ("test_200", "-b_latency")
    with pytest.raises(UserError, match=r"1 of 4 architectures .* do not run .*--config\.constraints='b_latency>0'"):
        read_objectives(with_costs(), "nasbench201", wanted, (), devices)
    part, rows = constrain(with_costs(), "nasbench201", ("b_latency>0",), devices)
    assert rows.tolist() == [1, 2, 3]
    assert read_objectives(part, "nasbench201", wanted, (), devices).reference.tolist() == [0, 50]


@pytest.mark.shared_data
def test_the_published_costs_stand_beside_the_table(shared_data: Path):
    names = ("edgegpu_latency", "edgetpu_latency", "gold_6226_latency", "pi5_onnx_energy")
    table, _ = load_benchmark(Source("nasbench201", str(shared_data), "", "cifar10", costs=names))
    plain, _ = load_benchmark(Source("nasbench201", str(shared_data), "", "cifar10"))
    assert set(table.columns) == {*plain.columns, *names} and table.digest != plain.digest
    assert int(np.isnan(table.columns["edgetpu_latency"]).sum()) == 4_699
    # A cell that computes more takes longer, on a processor more clearly than on a board with an accelerator.
    assert np.corrcoef(table.columns["gold_6226_latency"], table.columns["flops_m"])[0, 1] > 0.5
