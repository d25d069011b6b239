"""Searches on streamed images: the images that would lie in memory, the same bytes after a kill, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import assert_same_bytes, finish, start, stop_after
from PIL import Image

import main
from configs import imagenet_search, imagenet_train
from parsec.cells import get_space
from parsec.data.examples import FolderExamples
from parsec.data.folder import class_files
from parsec.data.images import decode, to_square
from parsec.data.stream import MEAN, STD, StreamedPart
from parsec.errors import UserError
from parsec.jobs.search.job import run_search
from parsec.jobs.search.problem import in_memory, load_problem, make_joint, make_step, open_sources, start_state
from parsec.jobs.transfer import run_transfer
from parsec.run.metrics import read_metrics
from parsec.settings.search import DeriveSettings, NetworkSettings, SearchConfig, StrategySettings
from parsec.settings.train import RegularisationSettings, TrainConfig, TrainNetworkSettings

SIZE = 16
OVERRIDES = (
    "--config.space=nasbench201", "--config.steps=8", "--config.metrics_every=1", "--config.save_minutes=0",
    "--config.data.batch_size=8", "--config.data.valid_batch_size=8", f"--config.data.image_size={SIZE}",
    "--config.network.channels=2", "--config.network.cells=1", "--config.network.stem=cifar",
    "--config.sampler.num_children=2", "--config.derive.random_children=2", "--config.derive.valid_images=12",
)  # fmt: skip
LASTING = ("result.json", "prior.json", "metrics.jsonl", "cell.svg", "unreadable.json")


def config_of(folder: Path) -> SearchConfig:
    config = imagenet_search.get_config("quick")
    return replace(
        config,
        data_dir=str(folder),
        space="nasbench201",
        steps=8,
        metrics_every=1,
        save_minutes=0.0,
        data=replace(config.data, batch_size=8, valid_batch_size=8, image_size=SIZE),
        network=NetworkSettings(channels=2, cells=1),
        sampler=replace(config.sampler, num_children=2),
        derive=DeriveSettings(random_children=2, valid_images=12),
    )


@pytest.fixture
def folder(noise_images: Callable[[str], Path]) -> Path:
    return noise_images("png")


def test_what_is_streamed_are_the_images_and_labels_that_would_lie_in_memory(folder: Path):
    config = config_of(folder)
    config = replace(config, data=replace(config.data, augmentation="none", crop_area=1.0))
    streamed, held = load_problem(config), load_problem(replace(config, dataset="images"))
    dataset, *parts = in_memory(held)
    assert (streamed.image, streamed.shape, streamed.steps) == (held.image, held.shape, held.steps)
    assert streamed.dataset.class_names == dataset.class_names
    with open_sources(config, streamed) as sources:
        assert sources.waited is not None
        for source, part, streamed_part in zip(sources, parts, (streamed.train, streamed.valid), strict=False):
            assert isinstance(streamed_part, StreamedPart)
            there = {image.tobytes(): int(label) for image, label in zip(*map(np.asarray, part[:2]), strict=True)}
            assert (source.num_examples, source.steps_per_epoch) == (len(there), len(there) // 8)
            # An epoch, and the first batch of the next.
            seen: dict[bytes, int] = {}
            for index in range(source.steps_per_epoch):
                batch = source.batch(index)
                pixels = np.round(np.asarray(batch.images) * STD + MEAN).astype(np.uint8)
                seen |= {
                    image.tobytes(): int(label) for image, label in zip(pixels, np.asarray(batch.labels), strict=True)
                }
            assert len(seen) == 8 * source.steps_per_epoch and seen.items() <= there.items()
        assert 0 < sources.waited() < 60
    with open_sources(replace(config, dataset="images"), held) as sources:
        assert sources.waited is None


def test_the_weights_see_crops_and_the_prior_sees_centres(folder: Path):
    config = config_of(folder)
    config = replace(config, data=replace(config.data, augmentation="none"))
    problem = load_problem(config)
    with open_sources(config, problem) as sources:
        for source, part, whole in ((sources.train, problem.train, False), (sources.valid, problem.valid, True)):
            assert isinstance(part, StreamedPart) and isinstance(part.examples, FolderExamples)
            files = [Path(part.examples.folder, part.examples.paths[row]) for row in part.rows]
            centres = {np.asarray(to_square(decode(file, "RGB"), SIZE)).tobytes() for file in files}
            pixels = np.round(np.asarray(source.batch(0).images) * STD + MEAN).astype(np.uint8)
            assert [image.tobytes() in centres for image in pixels] == [whole] * 8


@pytest.mark.slow
def test_a_search_skips_what_it_cannot_read_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    broken = ["train/dark/03.png", "train/light/00.png"]
    for name in broken:
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    result = run_search(config_of(folder), tmp_path / "run")
    assert result["unreadable"] == {"count": 2, "files": ", ".join(broken)}
    assert json.loads((tmp_path / "run" / "unreadable.json").read_text()) == broken
    assert result["num_classes"] == 2 and result["retrained"] is None
    printed = " ".join(capsys.readouterr().out.split())
    assert f"2 skipped: {broken[0]}" in printed and "(16, 16, 3) each, streamed" in printed
    assert "images in memory only" not in printed and "config.verify.random=0" in printed
    lines = read_metrics(tmp_path / "run")
    # The first half is warm-up.
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert [line["valid_loss"] is not None for line in lines] == [False] * 4 + [True] * 4
    timing = json.loads((tmp_path / "run" / "timing.json").read_text())
    assert 0 < timing["waited_seconds"] < timing["seconds"]
    (folder / "val" / "dark" / "00.png").unlink()
    (tmp_path / "run" / "result.json").unlink()
    # As another process would list them.
    load_problem.cache_clear()
    with pytest.raises(UserError, match="belongs to a run with another images"):
        run_search(config_of(folder), tmp_path / "run")


@pytest.mark.slow
def test_a_strategy_is_told_scores_of_streamed_images(folder: Path, tmp_path: Path):
    for path in class_files(folder / "train" / "dark")[:2]:
        path.write_bytes(b"no image")
    config = config_of(folder)
    plain = SearchConfig()
    config = replace(
        config, steps=2, prior=plain.prior, likelihood=plain.likelihood,
        strategy=StrategySettings(name="random", evaluations=3),
    )  # fmt: skip
    result = run_search(config, tmp_path / "run")
    assert result["evaluations"] == 3 and result["valid_accuracy"] is not None
    # Told in whichever pass came to them: of the weights, or of the scores.
    assert set(json.loads((tmp_path / "run" / "unreadable.json").read_text())) <= {
        "train/dark/00.png",
        "train/dark/01.png",
    }
    assert result["unreadable"]["count"] == len(json.loads((tmp_path / "run" / "unreadable.json").read_text())) > 0


def test_more_unreadable_images_than_allowed_end_the_search(folder: Path, tmp_path: Path):
    for path in class_files(folder / "train" / "dark")[:5]:
        path.write_bytes(b"no image")
    config = replace(config_of(folder), data=replace(config_of(folder).data, unreadable_limit=1))
    with pytest.raises(
        UserError, match=r"^\d unreadable files, more than config\.data\.unreadable_limit=1: train/dark"
    ):
        run_search(config, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config.data_dir=NOWHERE"], "does not exist"),
        (["--config.data_dir=EMPTY"], "for each of at least 2 classes; it has none"),
        (["--config.data_dir=HOLLOW"], "b holds no image: no file"),
        (["--config.data_dir=images", "--config.data.batch_size=29"], "batch_size=29 is larger than the 28 images"),
        (["--config.data_dir=images", "--config.data.valid_batch_size=13"], "batch_size=13 is larger than the 12"),
        (["--config.data_dir=images", "--config.dataset=images"], "config.data.crop_area=0.25 means nothing here"),
        (["--config.data_dir=images", "--config.verify.random=5", "--config.verify.steps=9"], "config.verify.random=5"),
        (
            ["--config.data_dir=images", "--config.network.stem=imagenet", "--config.network.stem_stride=2"],
            "stem_stride means nothing to the stem of imagenet",
        ),
        ([], "imagenet2012 is not prepared in"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.usefixtures("typed_here")
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], says: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in ("a", "b"):
        (tmp_path / "HOLLOW" / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "HOLLOW" / "a" / "0.png")
    assert main.main(["--config=imagenet_search:quick", *OVERRIDES, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_short_trainings_of_streamed_images_are_refused_before_they_are_listed(tmp_path: Path):
    config = replace(SearchConfig(), dataset="stream:images", data_dir="/nowhere")
    trained = replace(config, strategy=StrategySettings(name="additive", evaluator="train"))
    with pytest.raises(UserError) as raised:
        run_search(trained, tmp_path / "run")
    assert "config.strategy.evaluator=train needs images in memory" in str(raised.value)
    assert "'stream:images' is streamed" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_transfer_goes_on_to_train_the_cell_on_the_streamed_target(folder: Path, tmp_path: Path):
    # The same program, so that it is compiled once: only the seed differs.
    source = config_of(folder)
    target = replace(source, seed=1)
    preset = imagenet_train.get_config("quick")
    training = replace(
        preset,
        steps=3,
        data=replace(preset.data, batch_size=8, image_size=SIZE, eval_batch_size=5),
        network=TrainNetworkSettings(channels=2, cells=1),
        regularisation=RegularisationSettings(drop_path=0.0, auxiliary_weight=0.0),
    )
    wild = replace(training, optimizer=replace(training.optimizer, final_learning_rate=9.0))
    unfit = replace(training, data=replace(training.data, batch_size=41))
    for other, says in (
        (unfit, "batch_size=41 is larger than the 40 images"),
        (wild, r"^train\.optimizer\.final_learning_rate=9\.0 is above the first"),
    ):
        with pytest.raises(UserError, match=says):
            run_transfer(source, target, tmp_path / "run", other)
        assert not (tmp_path / "run").exists()
    trained = run_transfer(source, target, tmp_path / "run", training)
    found = json.loads((tmp_path / "run" / "target" / "result.json").read_text())
    assert trained == json.loads((tmp_path / "run" / "train" / "result.json").read_text())
    assert trained["genotype"] == found["genotype"] and trained["steps"] == 3
    assert trained["config"]["dataset"] == "imagenet" and trained["config"]["from_run"] == "../target"
    assert found["config"]["prior"]["initial"] == "../source"
    # Without the training the same command reports the search.
    assert run_transfer(source, target, tmp_path / "run") == found
    assert run_transfer(source, target, tmp_path / "run", training) == trained


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_killed_anywhere_a_streamed_search_ends_in_the_same_bytes(folder: Path, tmp_path: Path, workers: int):
    (folder / "train" / "dark" / "03.png").write_bytes(b"no image")
    command = ["--config=imagenet_search:quick", *OVERRIDES, f"--config.data_dir={folder}"]
    command.append(f"--config.data.workers={workers}")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _, errors = finish(start(*command, f"--workdir={whole}"))
    assert errors == ""
    # Killed in the warm-up, and after it some steps past the last checkpoint.
    for count, more in ((3, ()), (6, ("--config.save_minutes=60",))):
        stop_after(count, start(*command, f"--workdir={cut}", *more), cut)
    output, _ = finish(start(*command, f"--workdir={cut}"))
    assert "resuming after step" in output
    assert_same_bytes(cut, whole, LASTING)


@pytest.mark.slow
def test_the_full_size_network_takes_steps_on_streamed_images(folder: Path):
    """14 cells behind ImageNet's stem, as the preset has them, on fewer pixels and channels."""
    preset = imagenet_search.get_config()
    data = replace(preset.data, batch_size=8, valid_batch_size=8, image_size=64, workers=0)
    config = replace(
        preset, steps=2, data_dir=str(folder), data=data, network=replace(preset.network, channels=4),
        sampler=replace(preset.sampler, num_children=2),
    )  # fmt: skip
    assert (config.network.cells, config.network.stem) == (14, "imagenet")
    problem, joint = load_problem(config), make_joint(config)
    state = start_state(config, joint, problem)
    with open_sources(config, problem) as sources:
        step = make_step(config, joint, problem, sources)
        for index in range(2):
            state, info = step(state, index)
            assert np.isfinite(info["loss"]) and int(info["failed"]) == 0
    # The prior rests in the first half, and learns in the second.
    logits = np.asarray(joint.search.logits(state)) if joint.search.logits else None
    mask = get_space("darts").mask
    assert logits is not None and len(np.unique(logits[mask])) > 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.weights))


def test_the_presets_training_is_of_the_presets_size():
    search, training = imagenet_search.get_config(), imagenet_train.get_config()
    assert isinstance(training, TrainConfig)
    for name in ("channels", "cells", "stem"):
        assert getattr(search.network, name) == getattr(training.network, name)
    assert search.data.image_size == training.data.image_size
