"""From a folder to a trained network: the stages, going on between any of them, and mistakes told in a line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import main
from configs import images, images_search, images_train
from parsec.command import launch
from parsec.config import check, to_json
from parsec.errors import UserError
from parsec.jobs.images import budget
from parsec.jobs.images import job as pipeline
from parsec.jobs.images.budget import BUDGET, Speed
from parsec.jobs.images.job import check_trainings, make_stages, run_pipeline
from parsec.jobs.search.problem import load_problem
from parsec.jobs.train.cell_source import cell_of_run
from parsec.jobs.train.export import run_export
from parsec.jobs.train.predict import run_predict
from parsec.settings.images import PipelineConfig, leave_shared
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    SamplerSettings,
    SearchConfig,
    VerifySettings,
)
from parsec.settings.train import RegularisationSettings, TrainConfig, TrainDataSettings, TrainNetworkSettings

SIZE = 8


def photos(folder: Path, classes: int = 3) -> Path:
    """Returns a folder of small pictures, a class the brighter the later, and a file that is none."""
    rng = np.random.default_rng(0)
    for at in range(classes):
        (folder / f"class {at}").mkdir(parents=True)
        for number in range(24):
            pixels = np.clip(rng.normal(60 + 60 * at, 40, (SIZE + 2, SIZE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"class {at}" / f"{number}.png")
    (folder / "class 0" / "broken.png").write_bytes(b"no picture")
    return folder


SEARCH = SearchConfig(
    space="nasbench201",
    steps=3,
    metrics_every=1,
    data=DataSettings(batch_size=8, valid_batch_size=8),
    network=NetworkSettings(channels=2, cells=1),
    sampler=SamplerSettings(num_children=2),
    derive=DeriveSettings(random_children=2, valid_images=24),
    verify=VerifySettings(random=0),
)
TRAIN = TrainConfig(
    epochs=3.0,
    metrics_every=1,
    data=TrainDataSettings(batch_size=16, valid_fraction=0.0, augmentation="flip", cutout=0),
    network=TrainNetworkSettings(channels=2, cells=1),
    regularisation=RegularisationSettings(auxiliary_weight=0.0, drop_path=0.0),
)
CONFIG = PipelineConfig(image_size=SIZE, minutes=0.0, search=leave_shared(SEARCH), train=leave_shared(TRAIN))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of pictures."""
    return photos(tmp_path_factory.mktemp("photos") / "mine")


@pytest.fixture(scope="module")
def config(folder: Path) -> PipelineConfig:
    """The whole line on those pictures."""
    return replace(CONFIG, data_dir=str(folder))


@pytest.fixture(scope="module")
def finished(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    path = tmp_path_factory.mktemp("pipeline") / "run"
    run_pipeline(config, path)
    return path


def read(path: Path) -> Any:
    """Returns what a JSON file holds."""
    return json.loads(path.read_text())


def test_a_folder_becomes_a_network_beside_the_plain_one(finished: Path):
    result = read(finished / "result.json")
    search, found, plain = (read(finished / name / "result.json") for name in ("search", "train", "residual"))
    assert result["genotype"] == search["genotype"] == found["genotype"] and plain["genotype"] == "resnet"
    assert result["found"]["test_accuracy"] == found["test_accuracy"]
    assert result["residual"]["test_accuracy"] == plain["test_accuracy"]
    assert result["difference"] == pytest.approx(found["test_accuracy"] - plain["test_accuracy"])
    assert found["steps"] == plain["steps"] == 9  # 3 epochs of 58 images in batches of 16
    assert 0.5 < plain["params"] / found["params"] < 2
    # Alike: nothing but the cell differs.
    assert found["config"] | {"genotype": "resnet"} == plain["config"]
    # Of which 5, 5 and 4 are of the three classes.
    assert result["test_images"] == 14 and result["largest_class"] == pytest.approx(500 / 14)
    # As the binomial distribution has it.
    rates = [each["test_accuracy"] / 100 for each in (found, plain)]
    assert result["difference_interval"] == pytest.approx(196 * sum(p * (1 - p) / 14 for p in rates) ** 0.5)


def test_a_finished_run_is_reported_and_its_network_is_used_by_the_same_name(
    finished: Path, config: PipelineConfig, folder: Path, capsys: pytest.CaptureFixture[str]
):
    run_pipeline(config, finished)
    printed = " ".join(capsys.readouterr().out.split())
    assert "found cell, test" in printed and "plain residual, test" in printed and "compiling" not in printed
    assert f"--predict={finished} " in printed.replace("'", "")
    run_predict(str(finished), [str(folder / "class 2")], None)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 24 and all(": class " in line for line in lines)
    run_export(str(finished), ["stablehlo"])
    assert str(finished / "train" / "model.stablehlo") in capsys.readouterr().out
    assert cell_of_run(str(finished)).genotype == read(finished / "result.json")["genotype"]


def test_the_verdict_of_the_search_leads_what_is_printed(finished: Path, capsys: pytest.CaptureFixture[str]):
    result = read(finished / "result.json") | {"retrained": {"sentence": "The found cell is fine"}}
    pipeline.show_result(result, finished)
    printed = capsys.readouterr().out
    assert printed.index("The found cell is fine.") < printed.index("found cell, test")


def stage_of(finished: Path, ran: list[str]) -> Any:
    """Returns a stage that takes the finished run's own results, if it is given that stage's config and its length."""

    def stage(given: SearchConfig | TrainConfig, path: Path) -> Any:
        ran.append(path.name)
        stored, told = read(finished / path.name / "config.json")["config"], json.loads(to_json(given))
        assert stored | {"steps": told["steps"], "epochs": told["epochs"]} == told
        shutil.copytree(finished / path.name, path)
        return read(path / "result.json") | {"steps": given.steps or read(path / "result.json")["steps"]}

    return stage


@pytest.mark.parametrize("done", [(), ("search",), ("search", "train"), ("search", "train", "residual")], ids="/".join)
def test_a_run_killed_between_stages_skips_what_is_finished_and_ends_in_the_same_bytes(
    finished: Path,
    config: PipelineConfig,
    tmp_path: Path,
    done: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    # What lies on the disk when the stages `done` are finished and the next has not begun.
    shutil.copy(finished / "config.json", tmp_path)
    for name in done:
        shutil.copytree(finished / name, tmp_path / name)
    ran: list[str] = []
    for name in ("run_search", "run_train"):
        monkeypatch.setattr(pipeline, name, stage_of(finished, ran))
    run_pipeline(config, tmp_path)
    assert ran == [name for name in ("search", "train", "residual") if name not in done]
    printed = capsys.readouterr().out
    assert [name for name in done if f"{name}: finished before, in " in printed] == list(done)
    assert (tmp_path / "result.json").read_bytes() == (finished / "result.json").read_bytes()


def test_what_the_minutes_allow_is_chosen_once_and_kept_by_a_run_that_goes_on(
    finished: Path, config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limited = replace(config, minutes=1.0, train=replace(config.train, epochs=20_000.0))

    def searched(given: SearchConfig, path: Path) -> Any:
        shutil.copytree(finished / "search", path)
        return read(path / "result.json")

    monkeypatch.setattr(pipeline, "run_search", searched)
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(0.1, 1e-6))
    monkeypatch.setattr(budget, "training_speed", lambda task: Speed(1.0, 0.001))
    fail, ran = [True], []

    def killed(given: TrainConfig, path: Path) -> Any:
        assert "train" in read(tmp_path / BUDGET)
        if fail.pop():
            raise KeyboardInterrupt
        return stage_of(finished, ran)(given, path)

    monkeypatch.setattr(pipeline, "run_train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(limited, tmp_path)
    chosen = int(read(tmp_path / BUDGET)["train"]["steps"])
    # Two trainings at a thousandth of a second a step: never more than the minute, and most of it.
    assert 10_000 < chosen < 30_000
    # A machine of another speed, and a number that can be waited for.
    monkeypatch.setattr(budget, "training_speed", lambda task: pytest.fail("measured again"))
    (tmp_path / BUDGET).write_text(json.dumps({"search": {}, "train": {"steps": "5"}}))
    fail[:] = [False, False]
    result = run_pipeline(limited, tmp_path)
    assert ran == ["train", "residual"]
    assert result["found"]["steps"] == result["residual"]["steps"] == 5
    assert read(tmp_path / "timing.json")["seconds"] > 0


def test_trainings_keep_half_of_their_time_where_the_search_overran(
    finished: Path,
    config: PipelineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    limited = replace(config, minutes=1.0, train=replace(config.train, epochs=20_000.0))

    def searched(given: SearchConfig, path: Path) -> Any:
        shutil.copytree(finished / "search", path)
        return read(path / "result.json")

    def killed(given: TrainConfig, path: Path) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.Clock, "spent", lambda clock: 100.0)
    monkeypatch.setattr(pipeline, "run_search", searched)
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(0.1, 1e-6))
    monkeypatch.setattr(budget, "training_speed", lambda task: Speed(1.0, 0.001))
    monkeypatch.setattr(pipeline, "run_train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(limited, tmp_path)
    # Half of 0.4 minutes, a tenth of which is kept, two seconds of compiling, two thousandths of a second a step.
    assert 3000 < int(read(tmp_path / BUDGET)["train"]["steps"]) < 4500
    assert "the trainings go on beyond them" in capsys.readouterr().out


def test_a_search_is_shortened_before_it_begins(
    config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limited = replace(config, minutes=10.0, search=replace(config.search, steps=1000))
    # A second a step: as many images as two children of eight that learn and eight that are only looked at.
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(1.0, 1 / (2 * (8 + 8 / 3))))
    given = []

    def searches(search: SearchConfig, path: Path) -> Any:
        given.append(search.steps)
        assert read(tmp_path / BUDGET) == {"search": {"steps": str(search.steps)}}
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run_search", searches)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(limited, tmp_path)
        monkeypatch.setattr(budget, "search_speed", lambda config, problem: pytest.fail("measured again"))
    # A step takes a second, of 0.6 x 10 minutes.
    assert given[0] == given[1] and 250 < given[0] < 360


def test_a_clock_counts_what_killed_stages_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def saves(name: str, **seconds: float) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "timing.json").write_text(json.dumps({"first_step_seconds": 5.0, **seconds}))

    now = 1000.0
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: now)
    saves("search", evaluation_seconds=20.0, final_seconds=12.0, retraining_seconds=8.0)
    assert pipeline.Clock(tmp_path, now).spent() == pytest.approx(40.0)
    # Ten seconds of its own, such as measuring; then a stage that is killed.
    pipeline.Clock(tmp_path, now - 10.0).write()
    saves("train", seconds=7.0)
    clock = pipeline.Clock(tmp_path, now)
    assert clock.spent() == pytest.approx(57.0)
    clock.write()
    assert pipeline.Clock(tmp_path, now).spent() == pytest.approx(57.0)
    (tmp_path / "train" / "timing.json").write_text("[]")
    assert pipeline.Clock(tmp_path, now).spent() == pytest.approx(50.0)


@pytest.mark.parametrize(("difference", "told"), [(-2.0, True), (2.0, False)])
def test_the_network_that_is_better_is_the_one_to_predict_with(
    finished: Path, capsys: pytest.CaptureFixture[str], difference: float, told: bool
):
    pipeline.show_result(read(finished / "result.json") | {"difference": difference}, finished)
    assert (f"--predict={finished / 'residual'} " in capsys.readouterr().out.replace("'", "")) == told


def test_what_is_given_once_reaches_every_stage():
    config = replace(CONFIG, dataset="digits", data_dir="here", seed=7)
    config = replace(config, search=replace(config.search, seed=7))
    for stage in make_stages(config):
        assert (stage.dataset, stage.data_dir, stage.seed, stage.data.image_size) == ("digits", "here", 7, SIZE)


def test_the_preset_is_made_of_those_of_its_stages():
    config = check(images.get_config())
    search, train = images_search.get_config(), images_train.get_config()
    assert config.search == leave_shared(search)
    assert config.image_size == search.data.image_size == train.data.image_size
    assert config.train.optimizer == train.optimizer and config.train.regularisation == train.regularisation
    make_stages(config)
    with pytest.raises(UserError, match="unknown variant of images 'quick'"):
        images.get_config("quick")


@pytest.mark.parametrize(
    ("stage", "change", "says"),
    [
        ("search", {"seed": 5}, "config.search.seed=5 contradicts config.seed=0, which all stages share"),
        ("search", {"dataset": "digits"}, "config.search.dataset='digits' contradicts config.dataset='images'"),
        ("train", {"data_dir": "x"}, "config.train.data_dir='x' contradicts config.data_dir="),
        ("train", {"data": replace(TRAIN.data, image_size=9)}, "data.image_size=9 contradicts config.image_size=8"),
        ("train", {"genotype": "DARTS_V2"}, "config.train.genotype means nothing here"),
        ("train", {"from_run": "runs/x"}, "config.train.from_run means nothing here"),
        ("train", {"weights": "runs/x"}, "config.train.weights means nothing here"),
        ("search", {"verify": VerifySettings(random=2)}, "config.search.verify.random=2 means nothing here; it needs"),
        ("search", {"data": DataSettings(batch_size=500)}, "batch_size=500 is larger than the"),
        ("train", {"data": replace(TRAIN.data, batch_size=500)}, "batch_size=500 is larger than the"),
        (
            "train",
            {"regularisation": RegularisationSettings(auxiliary_weight=0.4)},
            "--config.train.regularisation.auxiliary_weight=0, or --config.image_size above 4",
        ),
        (
            "train",
            {"network": TrainNetworkSettings(channels=100_000, cells=100)},
            "lower config.train.data.batch_size, config.train.network.channels",
        ),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_written(
    stage: str, change: dict, says: str, config: PipelineConfig, tmp_path: Path
):
    changed: Any = replace(config, **{stage: replace(getattr(config, stage), **change)})
    if "auxiliary_weight" in says:
        changed = replace(changed, image_size=4)
    with pytest.raises(UserError) as raised:
        run_pipeline(changed, tmp_path / "run")
    assert says in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_folders_that_cannot_be_learnt_from_are_told_in_a_line(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    photos(tmp_path / "one", classes=1)
    (tmp_path / "void" / "a").mkdir(parents=True)
    (tmp_path / "void" / "b").mkdir()
    for name, says in (
        ("empty", "at least 2 classes; it has none"),
        ("one", "at least 2 classes; it has only 'class 0'"),
        ("void", "holds no readable image: no file"),
    ):
        with pytest.raises(UserError, match=says) as raised:
            run_pipeline(replace(CONFIG, data_dir=str(tmp_path / name)), tmp_path / "run")
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"needs --config\.data_dir=FOLDER"):
        run_pipeline(CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_without_a_test_part_are_refused(config: PipelineConfig):
    stages = make_stages(config)
    problem = load_problem(stages.search)
    dataset = problem.dataset._replace(test_labels=problem.dataset.test_labels[:0])
    with pytest.raises(UserError, match="has no test part, by which the networks could be compared"):
        check_trainings(stages, problem._replace(dataset=dataset))


def test_directories_of_other_runs_are_refused(finished: Path, config: PipelineConfig, folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"another config: minutes was 0\.0, now 3\.0"):
        run_pipeline(replace(config, minutes=3.0), finished)
    (tmp_path / "foreign" / "search").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds search but no config\.json"):
        run_pipeline(config, tmp_path / "foreign")

    other = tmp_path / "other"
    shutil.copytree(finished, other)
    (other / "result.json").unlink()
    (other / BUDGET).write_text('{"search": 3}')
    with pytest.raises(UserError, match=r"budget\.json is not the budget of a run"):
        run_pipeline(config, other)
    (other / BUDGET).unlink()
    stored = read(other / "search" / "config.json")
    stored["config"]["steps"] = 4
    (other / "search" / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"search belongs to a run with another config: steps was 4, now 3"):
        run_pipeline(config, other)

    more = tmp_path / "more"
    shutil.copytree(folder, more)
    Image.new("RGB", (SIZE, SIZE)).save(more / "class 0" / "late.png")
    with pytest.raises(UserError, match="belongs to a run with another images"):
        run_pipeline(replace(config, data_dir=str(more)), other)


def test_a_result_that_is_none_of_this_job_is_told_in_a_line(finished: Path, config: PipelineConfig, tmp_path: Path):
    shutil.copy(finished / "config.json", tmp_path)
    (tmp_path / "result.json").write_text('{"found": {}}')
    with pytest.raises(UserError, match="is not a result of this job"):
        run_pipeline(config, tmp_path)


def test_a_mistake_reaches_the_command_line_as_a_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(launch, "prepare_process", lambda: None)
    photos(tmp_path / "one", classes=1)
    command = ["--config=images", f"--config.data_dir={tmp_path / 'one'}", f"--workdir={tmp_path / 'run'}"]
    assert main.main(command) == 2
    told = capsys.readouterr().err
    assert "at least 2 classes" in told and len(told.splitlines()) == 1
