"""The main job as a user meets it: a found cell and its files, exact resume, and one line for what cannot work."""

import contextlib
import io
import json
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import assert_same_bytes, finish, start, stop_after
from PIL import Image

from configs import images_search
from configs.digits_search import get_config
from parsec.cells import get_space
from parsec.cells.genotypes import from_text
from parsec.errors import UserError
from parsec.jobs.search.job import run_search
from parsec.jobs.search.problem import load_problem, make_joint, make_step, open_sources, start_state
from parsec.run.metrics import read_metrics
from parsec.settings.search import SearchConfig
from parsec.tables.published import open_published

CONFIG: SearchConfig = replace(get_config("quick"), steps=8, save_minutes=0.0)
COMMAND = ["--config=digits_search:quick", "--config.steps=8", "--config.save_minutes=0"]
LASTING = ("result.json", "prior.json", "metrics.jsonl", "cell.svg")


def begin(workdir: Path, *more: str) -> "subprocess.Popen[str]":
    return start(*COMMAND, f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An uninterrupted run, and what it printed."""
    workdir, out = tmp_path_factory.mktemp("finished") / "run", io.StringIO()
    with contextlib.redirect_stdout(out):
        run_search(CONFIG, workdir)
    return workdir, out.getvalue()


def test_a_run_says_what_it_does_and_ends_with_a_cell(finished: tuple[Path, str]):
    workdir, out = finished
    result = json.loads((workdir / "result.json").read_text())
    space = get_space("nasbench201")
    assert result["space"] == "nasbench201"
    np.testing.assert_array_equal(from_text(space, result["genotype"]), result["architecture"])
    assert 0 <= result["valid_accuracy"] <= 100
    assert 0 <= result["random_valid_accuracy"] <= 100
    assert result["params"] > 0
    assert result["flops"] > 0
    assert result["table"] is None
    assert result["seed"] == 0
    assert result["config"]["steps"] == 8
    assert not any("second" in key or "time" in key for key in result)
    for name in ("config.json", "timing.json", "report.html", "cell.png", "checkpoints", "tensorboard", *LASTING):
        assert (workdir / name).exists(), name
    assert out.index("images") < out.index("8/8") < out.index(result["genotype"])
    for shown in ("random children", "parameters", "FLOPs", str(workdir)):
        assert shown in out
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert {"loss", "accuracy", "entropy", "control_entropy", "ess", "num_children", "failed"} <= set(lines[0])
    assert {"mode_skip", "mode_pool"} <= set(lines[0])
    for entropy in ("entropy", "control_entropy"):
        assert result[entropy] == pytest.approx(lines[-1][entropy], rel=1e-6)
    assert result["control_entropy"] != result["entropy"]
    assert "where likelihoods say nothing" in out


@pytest.mark.slow
def test_killed_anywhere_the_same_command_ends_in_the_same_bytes(tmp_path: Path):
    workdir, whole = tmp_path / "run", tmp_path / "whole"
    assert finish(begin(whole))[1] == ""
    # The second is killed steps after its last checkpoint: how often to save is nothing that results depend on.
    for lines, how, more in ((2, signal.SIGTERM, ()), (5, signal.SIGKILL, ("--config.save_minutes=60",))):
        stop_after(lines, begin(workdir, *more), workdir, how)
    saved = max(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert saved < len((workdir / "metrics.jsonl").read_text().splitlines())
    out, _ = finish(begin(workdir))
    assert "resuming" in out
    assert_same_bytes(workdir, whole, LASTING)


def test_the_same_config_on_a_finished_run_reports_it(finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]):
    before = {path: path.read_bytes() for path in finished[0].iterdir() if path.is_file() and path.name != ".lock"}
    result = run_search(CONFIG, finished[0])
    assert result == json.loads((finished[0] / "result.json").read_text())
    assert "found cell" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before


def test_another_config_in_a_used_directory_is_refused_by_key(finished: tuple[Path, str]):
    other = replace(CONFIG, optimizer=replace(CONFIG.optimizer, learning_rate=0.5))
    with pytest.raises(UserError, match=r"optimizer\.learning_rate") as refused:
        run_search(other, finished[0])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": replace(CONFIG.data, batch_size=5000)}, "5000"),
        ({"dataset": "cifar10", "data_dir": "nowhere-at-all"}, "nowhere-at-all"),
        ({"dataset": "digit"}, "digits"),
    ],
    ids=["batch", "missing data", "dataset"],
)
def test_unusable_data_is_one_line_and_leaves_no_result(changes: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message) as raised:
        run_search(replace(CONFIG, **changes), tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.usefixtures("one_program")
def test_a_search_whose_children_all_fail_fails_again_and_concludes_nothing(tmp_path: Path):
    wild = replace(
        CONFIG,
        steps=2,
        optimizer=replace(CONFIG.optimizer, learning_rate=1e30, final_learning_rate=1e30, clip=1e30, weight_decay=1e4),
    )
    # Its last step is the first that fails; what a checkpoint of it held would look like a finished search.
    for _ in range(2):
        with pytest.raises(UserError, match=r"stopped after step \d: every child's loss.*learning_rate"):
            run_search(wild, tmp_path / "run")
        assert not (tmp_path / "run" / "result.json").exists()


def test_a_kind_of_cell_without_a_place_in_the_network_is_refused(tmp_path: Path):
    few = replace(CONFIG, space="darts", network=replace(CONFIG.network, cells=2))
    with pytest.raises(UserError, match=r"config\.network\.cells=2 leaves no normal cell in darts"):
        run_search(few, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_table_of_another_space_or_dataset_is_refused_before_anything_is_written(tmp_path: Path):
    digits = replace(CONFIG, table="nasbench201.npz")
    with pytest.raises(UserError, match=r"has no figures for config\.dataset=digits; it has them for cifar10"):
        run_search(digits, tmp_path / "run")
    darts = replace(digits, space="darts", network=replace(CONFIG.network, cells=3))
    with pytest.raises(UserError, match=r"nasbench201\.npz has no figures for config\.dataset=digits"):
        run_search(darts, tmp_path / "run")
    with pytest.raises(UserError, match="means nothing in space mine; benchmarks known are nasbench201, nasbench301"):
        open_published(replace(get_space("darts"), name="mine", benchmark=""), "cifar10", Path("nasbench201.npz"))
    assert not (tmp_path / "run").exists()


def test_the_parts_of_a_problem_are_disjoint_and_the_test_part_is_every_seeds():
    parts = []
    for seed in (0, 1):
        problem = load_problem(replace(CONFIG, dataset="digits_on_photos", seed=seed))
        images = problem.train.images, problem.valid.images, problem.dataset.test_images
        parts.append([{image.tobytes() for image in np.asarray(part)} for part in images])
    for train, valid, test in parts:
        assert not train & valid and not train & test and not valid & test
    assert parts[0][2] == parts[1][2] and parts[0][0] != parts[1][0]


def test_a_small_folder_of_images_is_searched_by_short_trainings_alone(tmp_path: Path):
    """Fewer validation images than the prior's batch has, which short trainings know nothing of."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(60):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    config = replace(images_search.get_config(), data_dir=str(tmp_path))
    assert load_problem(config).valid.num_examples == 24
    shared = replace(config.strategy, name="parsec", evaluator="supernet")
    with pytest.raises(
        UserError, match=r"config\.data\.valid_batch_size=64 is larger than the 24 images .* at most 24"
    ):
        load_problem(replace(config, strategy=shared))
    with pytest.raises(UserError, match=r"config\.data\.batch_size=80 is larger than the 72 images"):
        load_problem(replace(config, data=replace(config.data, batch_size=80)))


@pytest.mark.usefixtures("one_program")
def test_a_step_takes_over_the_memory_of_the_state_before_it_and_the_seed_decides_what_it_is(
    finished: tuple[Path, str],
):
    losses = []
    for seed in (0, 1):
        config = replace(CONFIG, seed=seed)
        problem, joint = load_problem(config), make_joint(config)
        before = start_state(config, joint, problem)
        with open_sources(config, problem) as sources:
            _, info = make_step(config, joint, problem, sources)(before, 0)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.weights, before.optimizer)) if leaf.size > 1)
        losses.append(float(info["loss"]))
    assert losses[0] == pytest.approx(read_metrics(finished[0])[0]["loss"], rel=1e-6) != losses[1]


def test_the_found_cell_is_the_mode_of_the_prior_that_was_saved(finished: tuple[Path, str]):
    result, stored = (json.loads((finished[0] / name).read_text()) for name in ("result.json", "prior.json"))
    space = get_space("nasbench201")
    best = [
        max(range(len(c.options)), key=lambda at, c=c: stored["logits"][c.name][c.options[at]]) for c in space.choices
    ]
    assert result["architecture"] == best
    probabilities = [np.array(list(stored["logits"][choice.name].values())) for choice in space.choices]
    # A tie would hide a mode that is no mode.
    assert all((row == row.max()).sum() == 1 for row in probabilities)
