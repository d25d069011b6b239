"""Making a table: what is trained, what is written, going on after any end, and mistakes told in a line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs import digits201_table
from parsec import cells
from parsec.cells.costs import network_cost
from parsec.cells.network import BuildCell, Head, Shape, Stem
from parsec.cells.operations import Norm
from parsec.cells.space import CellLayout, Choice, Slot, Space
from parsec.errors import UserError
from parsec.jobs.tables import build as job
from parsec.jobs.tables.build import choose_rows, run_build_table
from parsec.jobs.tables.compare import run_compare
from parsec.run.metrics import read_metrics
from parsec.run.workdir import read_json
from parsec.settings.compare import CompareConfig
from parsec.settings.search import NetworkSettings
from parsec.settings.table import TableConfig, TrainingSettings
from parsec.tables.table import load_table
from parsec.train.each import Outcome, train_each
from parsec.train.many import Trainer

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1")
CONFIG = TableConfig(
    space="small",
    seeds=2,
    chunk=4,
    save_minutes=0.0,
    network=NetworkSettings(channels=4, cells=1, stem_stride=2),
    training=TrainingSettings(steps=100, batch_size=16, learning_rate=0.2),
)


class SmallNetwork(nn.Module):
    """A stem, one cell, a head."""

    shape: Shape
    build_cell: BuildCell
    norm: Norm

    @nn.compact
    def __call__(self, images: jax.Array, routes: dict | None = None) -> jax.Array:
        x = Stem(self.shape.channels, self.shape.stem_stride, self.norm, self.shape.dtype, name="stem")(images)
        cell = self.build_cell("cell", self.shape.channels, 1, "cell")
        x = cell((x,), (routes or {}).get("cell"))
        return Head(self.shape.num_classes, name="head")(nn.relu(x))


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    """A registered space of nine architectures."""
    small = Space(
        name="small",
        choices=(Choice("first", OPERATIONS), Choice("second", OPERATIONS)),
        operations=OPERATIONS,
        cells={"cell": CellLayout(1, 2, (Slot(1, 0, 0), Slot(2, 1, 1)))},
        network=SmallNetwork,
    )
    monkeypatch.setitem(cells.SPACES, "small", small)
    return small


def without_clock(path: Path) -> dict[str, np.ndarray]:
    columns = dict(load_table(path).columns)
    assert (columns.pop("seconds") > 0).all()
    return columns


def test_every_architecture_is_trained_and_the_table_can_be_compared_on(space: Space, tmp_path: Path, capsys):
    result = run_build_table(CONFIG, tmp_path / "run")
    table = load_table(tmp_path / "run" / "table.npz")
    assert table.complete and result["trained"] == result["rows"] == 9 and result["failed"] == 0
    columns = without_clock(tmp_path / "run" / "table.npz")
    for name in ("valid", "test", "loss"):
        seeds = np.stack([columns[f"{name}_0"], columns[f"{name}_1"]])
        np.testing.assert_allclose(columns[name], seeds.mean(0), rtol=1e-6)
    connected = (table.architectures > 0).all(1)
    # Where the image reaches the head, 100 steps beat a constant answer by far.
    assert (columns["valid"][connected] > 18).all() and (columns["valid"][~connected] < 12).all()
    shape = Shape(4, 1, 10, 2)
    costs = [network_cost(space, architecture, shape, (8, 8, 1)) for architecture in table.architectures]
    np.testing.assert_array_equal(np.stack([columns["params"], columns["flops"]], 1), costs)
    best = int(np.argmax(columns["valid"]))
    assert result["best"]["architecture"] == table.architectures[best].tolist()
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert read_json(tmp_path / "run" / "timing.json")["steps"] == 3

    capsys.readouterr()
    assert run_build_table(CONFIG, tmp_path / "run") == result
    printed = capsys.readouterr().out
    assert "9 trained" in printed and "compiling" not in printed

    compare = CompareConfig(
        benchmark="table",
        table=str(tmp_path / "run" / "table.npz"),
        objective="valid",
        report="test",
        strategies=("random",),
        seeds=2,
        budget=9,
    )
    found = run_compare(compare, tmp_path / "compare")["strategies"]["random"]
    assert found["objective"]["mean"] == pytest.approx(columns["valid"].max())


def test_a_run_cut_short_goes_on_and_gives_the_same(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_build_table(CONFIG, tmp_path / "whole")
    trained: list[list[int]] = []

    def fail_at_the_third(trainer: Trainer, architectures: np.ndarray, *arguments: Any) -> Outcome:
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(architectures.tolist())
        return train_each(trainer, architectures, *arguments)

    monkeypatch.setattr(job, "train_each", fail_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_build_table(CONFIG, tmp_path / "cut")
    assert not (tmp_path / "cut" / "table.npz").exists()
    # The third call now succeeds, and only it is made.
    trained.append([])
    run_build_table(CONFIG, tmp_path / "cut")
    assert len(trained) == 4
    for name in ("result.json", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    cut, whole = (without_clock(tmp_path / name / "table.npz") for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(cut[name], values)


def test_failed_runs_are_nan_and_counted(space: Space, tmp_path: Path):
    wild = replace(CONFIG, seeds=1, training=replace(CONFIG.training, learning_rate=1e30))
    result = run_build_table(wild, tmp_path)
    table = load_table(tmp_path / "table.npz")
    unconnected = (table.architectures == 0).any(1)
    assert np.isnan(table.columns["valid"]).all() and np.isnan(table.columns["loss_0"][~unconnected]).all()
    assert result["failed"] == 9 and result["best"] is None
    json.dumps(result, allow_nan=False)


def test_distinct_networks_are_trained_once_and_their_rows_share_the_figures():
    rows = choose_rows(cells.NASBENCH201, 40, seed=1)
    assert len(rows.trained) == 40 <= len(rows.architectures)
    np.testing.assert_array_equal(rows.representative[rows.representative], rows.representative)
    every = choose_rows(cells.NASBENCH201, 0, seed=1)
    assert len(every.trained) == 6466 and len(every.architectures) == 15625
    figures = {name: np.arange(40 * 3, dtype=np.float32).reshape(40, 3) for name in ("valid", "test", "loss")}
    figures["seconds"] = np.arange(40, dtype=np.float32)
    costs = np.ones((len(rows.architectures), 2), np.int64)
    table = job.assemble(rows, cells.NASBENCH201, figures, costs, has_test=True)
    for column in table.columns.values():
        np.testing.assert_array_equal(column, column[rows.representative])
    np.testing.assert_array_equal(table.columns["seconds"][rows.trained], np.arange(40))
    assert "test" not in job.assemble(rows, cells.NASBENCH201, figures, costs, has_test=False).columns


def test_a_space_too_large_to_list_is_drawn_from():
    rows = choose_rows(cells.DARTS, 50, seed=2)
    assert len(rows.architectures) == 50 == len(np.unique(rows.architectures, axis=0))
    assert (rows.architectures < cells.DARTS.sizes).all()
    np.testing.assert_array_equal(rows.architectures, choose_rows(cells.DARTS, 50, seed=2).architectures)
    with pytest.raises(UserError, match=r"darts has .* too many to train all .*config.architectures=N"):
        choose_rows(cells.DARTS, 0, seed=2)


def test_every_chunk_is_full_and_all_are_trained():
    flops = np.random.default_rng(0).integers(0, 5, 23) * 1000
    chunks = job._chunks(flops, 5, seed=3)
    assert chunks.shape == (5, 5) and set(chunks.ravel().tolist()) == set(range(23))
    spans = sorted((flops[chunk].min(), flops[chunk].max()) for chunk in chunks[np.ptp(chunks, axis=1) >= 0])
    assert sum(high - low for low, high in spans) <= 2 * 4000
    assert job._chunks(flops, 50, seed=3).shape == (1, 23)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "nasbench20"}, "unknown space 'nasbench20'.*did you mean 'nasbench201'"),
        ({"space": "nasbench201", "dataset": "digit"}, "unknown dataset 'digit'.*did you mean 'digits'"),
        ({"training": TrainingSettings(batch_size=5000)}, "batch_size=5000 is larger than the 719 images"),
    ],
)
def test_mistakes_are_told_before_anything_is_compiled(changes: dict, message: str, tmp_path: Path, capsys):
    with pytest.raises(UserError, match=message):
        run_build_table(replace(digits201_table.get_config("quick"), **changes), tmp_path)
    assert "compiling" not in capsys.readouterr().out


def test_variants_of_the_config():
    full, quick = digits201_table.get_config(), digits201_table.get_config("quick")
    assert quick == replace(full, architectures=40, chunk=8)
    with pytest.raises(UserError, match=r"unknown variant of digits201_table 'quik'.*did you mean 'quick'"):
        digits201_table.get_config("quik")
