"""Training as a job: what is written, the same after any end, and one line for what cannot work."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import assert_same_bytes, finish, start, stop_after
from safetensors.numpy import load_file

from configs import digits_train
from parsec.data import load
from parsec.errors import UserError
from parsec.files import file_digest
from parsec.jobs.train.job import run_train
from parsec.run.metrics import read_metrics
from parsec.settings.train import RegularisationSettings, TrainConfig, TrainDataSettings, TrainNetworkSettings
from parsec.train.model_file import LAST, WEIGHTS, load_model, logits

ROOT = Path(__file__).parents[2]
TEXT = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|skip_connect~2|"
CONFIG: TrainConfig = replace(
    digits_train.get_config(),
    genotype=TEXT,
    steps=24,
    metrics_every=1,
    data=TrainDataSettings(batch_size=128, valid_fraction=0.15, augmentation="shift", cutout=2),
    network=TrainNetworkSettings(channels=4, cells=2),
    regularisation=RegularisationSettings(drop_path=0.2, auxiliary_weight=0.4, label_smoothing=0.1, average=0.8),
)
COMMAND = (
    "--config=digits_train:quick", f"--config.genotype={TEXT}", "--config.steps=24", "--config.metrics_every=1",
    "--config.save_minutes=0", "--config.data.batch_size=128", "--config.data.cutout=2", "--config.network.channels=4",
    "--config.network.cells=2", "--config.regularisation.drop_path=0.2", "--config.regularisation.auxiliary_weight=0.4",
    "--config.regularisation.label_smoothing=0.1", "--config.regularisation.average=0.8",
)  # fmt: skip
LASTING = ("result.json", "metrics.jsonl", "model.json", WEIGHTS, LAST)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run_train(CONFIG, workdir)
    return workdir


def test_a_training_ends_with_weights_that_do_what_the_result_says(finished: Path, capsys: pytest.CaptureFixture[str]):
    result = json.loads((finished / "result.json").read_text())
    assert (result["space"], result["genotype"]) == ("nasbench201", TEXT)
    assert result["steps"] == 24 and result["tested"] == "best"
    digits = load("digits")
    model = load_model(finished)
    correct = np.asarray(jax.jit(partial(logits, model))(digits.test_images).argmax(-1)) == digits.test_labels
    assert result["test_accuracy"] == pytest.approx(100 * correct.mean(), abs=1e-3)
    assert result["test_accuracy"] > 15  # a guess is right for 10
    lines = read_metrics(finished)
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert lines[-1]["loss"] < lines[0]["loss"]
    rates = [line["learning_rate"] for line in lines]
    np.testing.assert_allclose(rates, [0.025 * (1 + np.cos(np.pi * at / 24)) for at in range(24)], rtol=1e-4)
    # An epoch is nine batches of 1,222 images; it is judged at its end, and after the last step.
    judged = [line["step"] for line in lines if "valid_accuracy" in line]
    assert judged == list(range(9, 25))
    assert result["valid_accuracy"] == pytest.approx(max(line["valid_accuracy"] for line in lines[8:]))
    assert result["last_valid_accuracy"] == pytest.approx(lines[-1]["valid_accuracy"])
    run_train(CONFIG, finished)
    printed = capsys.readouterr().out
    assert "test accuracy" in printed and "compiling" not in printed


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(*COMMAND, f"--workdir={whole}"))
    stop_after(11, start(*COMMAND, f"--workdir={cut}"), cut)
    output, _ = finish(start(*COMMAND, f"--workdir={cut}"))
    assert "resuming after step" in output
    assert_same_bytes(cut, whole, LASTING)


@pytest.mark.slow
def test_a_found_cell_is_trained_and_trained_on(finished: Path, tmp_path: Path):
    anew = replace(CONFIG, genotype="", from_run=str(finished), steps=1, data=replace(CONFIG.data, valid_fraction=0.0))
    result = run_train(anew, tmp_path / "anew")
    assert result["genotype"] == TEXT
    assert result["valid_accuracy"] is None and result["tested"] == "last"
    assert (tmp_path / "anew" / WEIGHTS).read_bytes() == (tmp_path / "anew" / LAST).read_bytes()
    still = replace(anew, weights=str(finished), optimizer=replace(CONFIG.optimizer, learning_rate=0.0))
    still = replace(still, regularisation=RegularisationSettings(drop_path=0.0, auxiliary_weight=0.4))
    assert run_train(still, tmp_path / "still")["steps"] == 1
    before, after = load_file(finished / WEIGHTS), load_file(tmp_path / "still" / WEIGHTS)
    for name, value in before.items():
        assert np.array_equal(value, after[name]) == name.startswith("params."), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"genotype": ""}, "no cell is given"),
        ({"from_run": "SOMEWHERE"}, "both name a cell"),
        ({"genotype": "DARTS_V3"}, "did you mean 'DARTS_V"),
        ({"genotype": TEXT.replace("none", "nine")}, "node 2, edge 2: unknown operation 'nine'"),
        ({"genotype": "Genotype(normal=[('sep_conv', 0)])"}, "normal_concat is missing"),
        ({"genotype": "", "from_run": "nowhere"}, "there is no such directory"),
        ({"genotype": "", "from_run": "EMPTY"}, "that is no run directory"),
        ({"genotype": "", "from_run": "UNFINISHED"}, "that run has not finished"),
        ({"genotype": "", "from_run": "FOREIGN"}, "names no cell"),
        ({"genotype": "", "from_run": "DAMAGED"}, "not valid JSON"),
        ({"genotype": "", "from_run": "OTHER"}, "the space 'mine', which is not registered"),
        ({"weights": "EMPTY"}, "holds no trained network"),
        ({"weights": "~nosuchuser/run"}, "~nosuchuser"),
        ({"network": TrainNetworkSettings(params=9000)}, "config.network.params=9000 means nothing here"),
        ({"network": TrainNetworkSettings(channels=100_000, cells=1000)}, "of memory (weights, gradients"),
        ({"network": TrainNetworkSettings(stem="imagenet", stem_stride=2)}, "means nothing to the stem of imagenet"),
        ({"network": TrainNetworkSettings(channels=4, stem_stride=2)}, "fewer than 2 x 2"),
        ({"data": replace(CONFIG.data, batch_size=5000)}, "batch_size=5000 is larger than"),
        ({"data": replace(CONFIG.data, workers=2)}, "config.data.workers=2 is for streamed datasets"),
        ({"optimizer": replace(CONFIG.optimizer, final_learning_rate=1.0)}, "above the first"),
    ],
)
def test_what_cannot_work_is_told_in_a_line_before_the_directory_is_claimed(change: dict, says: str, tmp_path: Path):
    for name, files in {
        "EMPTY": {}, "UNFINISHED": {"config.json": "{}"}, "FOREIGN": {"result.json": '{"strategies": {}}'},
        "DAMAGED": {"result.json": "{"}, "OTHER": {"result.json": '{"space": "mine", "genotype": "x"}'},
    }.items():  # fmt: skip
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
    change = {key: str(tmp_path / value) if str(value).isupper() and value != "DARTS_V3" else value
              for key, value in change.items()}  # fmt: skip
    with pytest.raises(UserError) as raised:
        run_train(replace(CONFIG, **change), tmp_path / "run")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_weights_of_other_classes_or_another_network_are_refused(finished: Path, tmp_path: Path):
    description = json.loads((finished / "model.json").read_text())
    for name in (WEIGHTS, LAST):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    short = replace(CONFIG, weights=str(finished), network=TrainNetworkSettings(channels=4, cells=1))
    with pytest.raises(UserError, match="its network is another: nasbench201, 2 cells, 4 channels"):
        run_train(short, tmp_path / "short")
    weights = {name: value[..., :7] if "head.linear" in name else value for name, value in load_file(finished / WEIGHTS).items()}  # fmt: skip  # noqa: E501
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, tmp_path / WEIGHTS)
    description["shape"]["num_classes"], description["class_names"] = 7, list("abcdefg")
    description["sha256"][WEIGHTS] = file_digest(tmp_path / WEIGHTS)
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"its weights are of 7 classes, these images of 10; train its cell anew"):
        run_train(replace(CONFIG, weights=str(tmp_path)), tmp_path / "seven")


def test_refusals_reach_the_command_line():
    command = [sys.executable, str(ROOT / "main.py"), "--config=digits_train", "--config.genotype=DARTS_V22"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'DARTS_V2'" in done.stderr and len(done.stderr.splitlines()) == 1
