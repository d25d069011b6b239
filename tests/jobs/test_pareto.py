"""A search for fronts: its files, resuming, genotypes that can be trained, constraints, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.digits201_pareto import get_config
from parsec.errors import UserError
from parsec.jobs.tables.pareto import load_problem, load_told, run_pareto
from parsec.jobs.train.cell_source import cell_of_text
from parsec.search.registry import names
from parsec.settings.pareto import ParetoConfig
from parsec.tables.table import make_table, save_table

SIZES = (3, 3, 4)
FILES = ("result.json", "table.md", "front.md", "front.json", "curves.npz", "hypervolume.png", "attained.png")


@pytest.fixture
def config(tmp_path: Path) -> ParetoConfig:
    rows = np.stack(np.unravel_index(np.arange(36), SIZES), 1)
    columns = {"score": 2 + np.sin(rows * [1.0, 2.0, 3.0]).sum(1), "params": 10.0 ** rows.sum(1), "same": np.ones(36)}
    save_table(tmp_path / "small.npz", make_table("small", np.array(SIZES), rows, columns))
    return ParetoConfig(
        benchmark="table",
        table=str(tmp_path / "small.npz"),
        objectives=("score", "-log10_params"),
        strategies=("random", "lanas_pareto"),
        seeds=2,
        budget=12,
        workers=1,
    )


def test_files_resume_and_a_second_run_byte_for_byte(
    config: ParetoConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_pareto(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    whole = {name: (tmp_path / "run" / name).read_bytes() for name in FILES}
    assert whole["attained.png"].startswith(b"\x89PNG")
    with np.load(config.table) as table:
        assert result["reference"] == pytest.approx([table["score"].min(), 7.0])
    # By default the reference point is the worst of each column, which its own architectures do not surpass.
    shown = capsys.readouterr().out
    assert result["beyond_reference"] == load_problem(config).objectives.beyond > 0
    assert f"{result['beyond_reference']} architectures do not surpass" in shown
    assert json.loads(whole["front.json"]) == result["front"] and result["front"][0]["genotype"].count(" ") == 2
    with np.load(tmp_path / "run" / "curves.npz") as curves:
        final = result["strategies"]["random"]["hypervolume"]["12"]["mean"]
        assert curves["random/mean"][-1] == pytest.approx(final) and 0 < final <= 1
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    (tmp_path / "cut" / "strategies" / "lanas_pareto.npz").unlink()
    run_pareto(config, tmp_path / "cut")
    assert "random was finished before" in capsys.readouterr().out
    assert {name: (tmp_path / "cut" / name).read_bytes() for name in FILES} == whole
    assert run_pareto(config, tmp_path / "run") == result
    with pytest.raises(UserError, match=r"config: objectives was .* now"):
        run_pareto(replace(config, objectives=("-score", "-params")), tmp_path / "run")


def test_every_architecture_keeps_the_constraints_and_genotypes_can_be_trained(tmp_path: Path) -> None:
    config = replace(get_config(), constraints=("params<40000",), strategies=("random",), seeds=2, budget=30)
    result = run_pareto(config, tmp_path / "run")
    table = load_problem(config).table
    assert result["architectures"] == len(table) < 15_625 and table.columns["params"].max() < 40_000
    with np.load(tmp_path / "run" / "strategies" / "random.npz") as saved:
        assert table.columns["params"][saved["rows"]].max() < 40_000
    best = max(found["values"]["test"] for found in result["front"])
    assert best <= table.columns["test"].max()
    for found in result["front"]:
        assert found["values"]["params"] < 40_000
        assert cell_of_text(found["genotype"]).genotype == found["genotype"]


def test_strategies_are_told_scores_scaled_by_the_reference_point() -> None:
    told, domain = load_told(get_config())
    objectives = load_problem(get_config()).objectives
    assert list(told.columns) == ["test", "log10_params"] and domain.pool is not None
    np.testing.assert_array_equal(told.columns["log10_params"], objectives.scaled[:, 1])
    assert told.columns["log10_params"].max() == 1 and told.columns["test"].max() < 1


def test_three_objectives_have_a_hypervolume_and_no_plane_to_be_drawn_in(config: ParetoConfig, tmp_path: Path) -> None:
    three = replace(config, objectives=("score", "-log10_params", "params"), strategies=("random", "sobol"))
    result = run_pareto(three, tmp_path / "run")
    assert result["exact_hypervolume"] > 0 and not (tmp_path / "run" / "attained.png").exists()


def test_strategies_that_choose_how_long_to_train_are_compared_at_equal_epochs(
    config: ParetoConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(config.table) as table:
        np.savez(tmp_path / "two.npz", **table, after_2=table["score"] / 2, after_8=table["score"])
    two = replace(
        config,
        table=str(tmp_path / "two.npz"),
        objectives=("after_8", "-log10_params"),
        strategies=("random", *names(many=True, multi_fidelity=True)),
        options=("sh_emoa.stage=1", "sh_emoa.population=3", "mo_bohb.initial=2", "sh_mo_bananas.initial=2"),
    )
    result = run_pareto(two, tmp_path / "run")
    assert result["fidelities"] == [2, 8] and "a query is 8 epochs" in " ".join(capsys.readouterr().out.split())
    told, domain = load_told(two)
    assert domain.fidelities == (2, 8) and list(told.columns) == ["after_2", "after_8", "log10_params"]
    for name, found in result["strategies"].items():
        # Some of the epochs of the three went into short trainings; what these say is no part of any front.
        assert found["queries"] == 12 if name == "random" else 0 < found["queries"] < 12
    assert load_told(replace(two, strategies=("random",)))[1].fidelities == ()
    with pytest.raises(UserError, match=r"config\.epochs=4 does not fit: table two has after_8 after 2, 8 epochs"):
        run_pareto(replace(two, epochs=(4,)), tmp_path / "none")
    with pytest.raises(UserError, match=r"objectives score, log10_params of table two end in epochs none"):
        run_pareto(replace(two, objectives=("score", "-log10_params")), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objectives": ("scor", "-params")}, r"unknown objective or cost of table small 'scor'.*did you mean 'score'"),
        ({"objectives": ("score", "-same")}, "same is 1 in every architecture"),
        ({"constraints": ("params<0.5",)}, r"has params<0\.5; the smallest params is 1$"),
        ({"constraints": ("latency_ms<8",)}, "unknown objective or cost of table small 'latency_ms'"),
        ({"constraints": ("params<1000",), "budget": 36}, r"config\.budget=36 is larger than table small"),
        ({"reference": (9.0, 8.0)}, "better than the reference point in score, 9"),
        ({"strategies": ("eoma",)}, r"unknown strategy 'eoma'.*did you mean 'emoa'"),
        ({"options": ("random.bach=3",)}, "unknown option of strategy random 'bach'"),
        ({"space": "nasbench201"}, r"has choices of 5, 5, 5, 5, 5, 5 options; table small has 3, 3, 4"),
        ({"table": ""}, r"--config\.table=FILE"),
        ({"benchmark": "nasbench201", "table": ""}, r"--config\.data_dir=DIR"),
        ({"benchmark": "digits201"}, r"config\.table=.* means nothing here; it needs config\.benchmark=table"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(
    config: ParetoConfig, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        run_pareto(replace(config, **changed), tmp_path / "run")
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()
