"""Training on streamed images as a job: what is written, the same after a kill, and one line for what cannot work."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import assert_same_bytes, finish, start, stop_after

import main
from configs import imagenet_train
from parsec.data.images import CENTRE
from parsec.errors import UserError
from parsec.jobs.train.job import run_train
from parsec.run.metrics import read_metrics
from parsec.settings.train import RegularisationSettings, TrainConfig, TrainNetworkSettings
from parsec.train.model_file import LAST, WEIGHTS, load_metadata

TEXT = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|skip_connect~2|"
OVERRIDES = (
    f"--config.genotype={TEXT}", "--config.steps=12", "--config.metrics_every=1", "--config.save_minutes=0",
    "--config.data.batch_size=16", "--config.data.image_size=16", "--config.data.eval_batch_size=7",
    "--config.data.valid_fraction=0.2", "--config.network.channels=4", "--config.network.cells=1",
    "--config.network.stem=cifar", "--config.regularisation.auxiliary_weight=0",
)  # fmt: skip


def config_of(folder: Path) -> TrainConfig:
    config = imagenet_train.get_config("quick")
    return replace(
        config,
        data_dir=str(folder),
        genotype=TEXT,
        steps=12,
        metrics_every=1,
        save_minutes=0.0,
        data=replace(config.data, batch_size=16, image_size=16, eval_batch_size=7, valid_fraction=0.2),
        network=TrainNetworkSettings(channels=4, cells=1),
        regularisation=RegularisationSettings(drop_path=0.0, auxiliary_weight=0.0, label_smoothing=0.1),
    )


@pytest.fixture
def folder(noise_images: Callable[[str], Path]) -> Path:
    return noise_images("jpg")


@pytest.mark.slow
def test_a_training_skips_what_it_cannot_read_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = ["train/dark/03.jpg", "train/light/00.jpg", "val/light/04.jpg"]
    for name in broken:
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    result = run_train(config_of(folder), tmp_path / "run")
    assert result["unreadable"] == {"count": 3, "files": ", ".join(broken)}
    assert json.loads((tmp_path / "run" / "unreadable.json").read_text()) == broken
    assert f"3 skipped: {broken[0]}" in " ".join(capsys.readouterr().out.split())
    # Nine images are tested, eight validate; one of the latter may be among the broken.
    assert result["test_accuracy"] * 9 / 100 == pytest.approx(round(result["test_accuracy"] * 9 / 100), abs=1e-4)
    assert result["epochs"] == 6 and result["image"] == [16, 16, 3]
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if "valid_accuracy" in line] == list(range(2, 13))
    timing = json.loads((tmp_path / "run" / "timing.json").read_text())
    assert 0 < timing["waited_seconds"] < timing["seconds"] and 0 < timing["waited_share"] < 1
    metadata = load_metadata(tmp_path / "run")
    assert (
        metadata.centre == CENTRE
        and metadata.class_names == ("dark", "light")
        and metadata.mean == pytest.approx((123.675, 116.28, 103.53))
    )
    # What a run goes on with is known by names and sizes.
    (folder / "val" / "dark" / "00.jpg").unlink()
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="belongs to a run with another images"):
        run_train(config_of(folder), tmp_path / "run")


@pytest.mark.slow
def test_more_unreadable_images_than_allowed_end_the_run_and_a_higher_limit_goes_on(folder: Path, tmp_path: Path):
    for i in range(4):
        (folder / "train" / "dark" / f"{i:02d}.jpg").write_bytes(b"no image")
    config = replace(config_of(folder), data=replace(config_of(folder).data, unreadable_limit=3, valid_fraction=0.0))
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            run_train(config, tmp_path / "run")
        assert str(caught.value).startswith(
            "4 unreadable files, more than config.data.unreadable_limit=3: train/dark/00"
        )
        assert "\n" not in str(caught.value)
    higher = replace(config, data=replace(config.data, unreadable_limit=4))
    assert run_train(higher, tmp_path / "run")["unreadable"]["count"] == 4


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config.data_dir=NOWHERE"], "does not exist"),
        (["--config.data_dir=EMPTY"], "for each of at least 2 classes; it has none"),
        (["--config.data_dir=images", "--config.data.batch_size=41"], "batch_size=41 is larger than the 40 images"),
        # All in the first batch, so that nothing is compiled.
        (
            ["--config.data_dir=images", "--config.data.unreadable_limit=1", "--config.data.batch_size=40"],
            "2 unreadable files, more than config.data",
        ),
        (
            ["--config.data_dir=images", "--config.dataset=images"],
            "config.data.crop_area=0.25 is for streamed datasets",
        ),
        ([], "imagenet2012 is not prepared in"),
    ],
)
@pytest.mark.usefixtures("typed_here")
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], says: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if "unreadable" in says:
        for name in ("train/dark/03.jpg", "train/light/00.jpg"):
            (folder / name).write_bytes(b"no image")
    assert main.main(["--config=imagenet_train:quick", *OVERRIDES, "--config.data.valid_fraction=0", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "valid_fraction"), [(0, 0.2), (2, 0.0)])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    folder: Path, tmp_path: Path, workers: int, valid_fraction: float
):
    (folder / "train" / "dark" / "03.jpg").write_bytes(b"no image")
    command = ["--config=imagenet_train:quick", *OVERRIDES, f"--config.data_dir={folder}"]
    command += [f"--config.data.workers={workers}", f"--config.data.valid_fraction={valid_fraction}"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _, errors = finish(start(*command, f"--workdir={whole}"))
    assert errors == ""
    stop_after(7, start(*command, f"--workdir={cut}"), cut)
    output, _ = finish(start(*command, f"--workdir={cut}"))
    assert "resuming after step" in output
    assert_same_bytes(cut, whole, ("result.json", "metrics.jsonl", "model.json", "unreadable.json", WEIGHTS, LAST))
