"""The joint job: equal epochs, resumed to the same bytes, fronts with test accuracies, mistakes told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.fashion_joint import get_config
from configs.flowers_joint import get_config as flowers
from parsec.errors import UserError
from parsec.evaluate.goals import scaled
from parsec.hyper import bulk_and_cut, evaluator
from parsec.hyper.network import Trained
from parsec.jobs.hyper import runs as hyper_runs
from parsec.jobs.hyper.job import run_hyper
from parsec.jobs.hyper.problem import load_problem
from parsec.search.registry import make_strategy
from parsec.settings.hyper import HyperConfig, LevelSettings

FILES = ("result.json", "table.md", "front.md", "front.json", "curves.npz", "hypervolume.png", "attained.png")
CONFIG = HyperConfig(
    dataset="digits",
    valid_fraction=0.5,
    train_images=40,
    levels=LevelSettings(
        conv=(2, 4),
        conv_levels=2,
        fc=(2, 4),
        fc_levels=2,
        rate=(1e-3, 1e-1),
        rate_levels=3,
        batch=(8, 32),
        batch_levels=2,
    ),
    epochs=(2, 6),
    strategies=("random", "sh_emoa", "bulk_and_cut"),
    options=("sh_emoa.population=2", "sh_emoa.stage=1"),
    seeds=2,
    budget=6,
)


class KilledError(Exception):
    """What stands for the end of the process."""


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces training by an accuracy that follows from widths and epochs; counts, and can kill before one."""
    state: dict[str, Any] = {"count": 0, "kill": -1}

    def fake(hyper, task, variables, epochs, seed, pause, teacher=None) -> Trained:
        pause()
        if state["count"] == state["kill"]:
            raise KilledError
        state["count"] += 1
        # The largest rate diverges.
        if hyper.learning_rate > 0.05:
            return Trained(variables, float("nan"), float("nan"))
        reached = 40.0 + sum(hyper.conv) + sum(hyper.fc) + epochs + seed[0]
        return Trained(variables, reached, reached - 5)

    monkeypatch.setattr(evaluator, "train", fake)
    monkeypatch.setattr(bulk_and_cut, "train", fake)
    return state


def test_killed_anywhere_it_ends_in_the_same_bytes_and_trains_nothing_twice(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_hyper(CONFIG, tmp_path / "whole")
    whole, count = {name: (tmp_path / "whole" / name).read_bytes() for name in FILES}, trained["count"]
    assert json.loads(whole["result.json"]) == result and result["budget_epochs"] == 36
    # Every run of every strategy spent the same epochs, within the last training that did not fit.
    for at in range(2):
        lines = (tmp_path / "whole" / "searches" / f"bulk_and_cut-{at}" / "journal.jsonl").read_text().splitlines()
        assert 34 < sum(json.loads(line)["epochs"] for line in lines) <= 36
    assert not list((tmp_path / "whole" / "searches").glob("*/children"))
    for kill in (3, count - 4):
        trained.update(count=0, kill=kill)
        cut = tmp_path / f"cut{kill}"
        with pytest.raises(KilledError):
            run_hyper(CONFIG, cut)
        journal = max(cut.glob("searches/*/journal.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        with journal.open("a") as file:
            file.write('{"half a li')
        trained.update(kill=-1)
        run_hyper(CONFIG, cut)
        assert trained["count"] == count
        assert {name: (cut / name).read_bytes() for name in FILES} == whole
    capsys.readouterr()
    trained.update(kill=0, count=0)
    assert run_hyper(CONFIG, tmp_path / "whole") == result
    assert "hypervolume after so many trained epochs" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"config: budget was 6, now 7"):
        run_hyper(replace(CONFIG, budget=7), tmp_path / "whole")


def test_a_front_holds_what_was_fully_trained_and_did_not_diverge(trained: dict[str, Any], tmp_path: Path) -> None:
    result = run_hyper(CONFIG, tmp_path / "run")
    strategies = result["strategies"]
    assert strategies["random"]["trained"] == 6 and strategies["sh_emoa"]["trained"] > 6
    # Of the population's short trainings nothing counts; of the networks that were cut everything does.
    assert strategies["sh_emoa"]["counted"] < strategies["sh_emoa"]["trained"]
    assert sum(each["failed"] for each in strategies.values()) > 0
    cut = strategies["bulk_and_cut"]
    assert cut["counted"] == cut["trained"] - cut["failed"] / 2
    with np.load(tmp_path / "run" / "curves.npz") as curves:
        for name, found in strategies.items():
            assert curves[name].shape == (2, 36) and (np.diff(curves[name]) >= 0).all()
            assert curves[name][:, -1].tolist() == found["runs"] and curves[name][:, 4].max() == 0
    for each in result["front"]:
        values = each["values"]
        assert values["epochs"] >= 6 and values["test accuracy"] == pytest.approx(values["accuracy"] - 5)
        assert values["log10_params"] == pytest.approx(np.log10(values["params"]), abs=1e-4)
    told = [each["values"]["accuracy"] for each in result["front"]]
    assert told == sorted(told)
    assert all(sum(each["met_by"].values()) == 1 for each in result["front"])


def test_networks_beyond_the_reference_point_are_counted_and_said(
    trained: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, strategies=("random",), reference=(0.0, 2.4), seeds=3)
    result = run_hyper(config, tmp_path / "run")
    rows = (tmp_path / "run" / "searches").glob("*/journal.jsonl")
    scores = [json.loads(line).get("scores") for path in rows for line in path.read_text().splitlines()]
    beyond = sum(each is not None and each[0] is not None and -each[1] >= 2.4 for each in scores)
    assert result["beyond_reference"] == beyond > 0
    assert f"{beyond} of {result['networks']} networks do not surpass the reference point" in capsys.readouterr().out


def test_strategies_are_never_told_the_test_accuracy(trained: dict[str, Any], tmp_path: Path) -> None:
    problem = load_problem(CONFIG)
    widths: list[int] = []

    def tell(state: Any, architectures: Any, scores: Any) -> tuple[Any, dict[str, Any]]:
        widths.append(np.asarray(scores).shape[1])
        return state, {}

    inner = make_strategy("random", problem.domain, {}, 2)._replace(tell=tell, jittable=False)
    hyper_runs.play_strategy(
        problem, "random", scaled(inner, problem.goals), False, 0, tmp_path / "run", lambda spent: None, lambda: None
    )
    assert widths and set(widths) == {2}


def test_it_really_trains(tmp_path: Path) -> None:
    config = replace(CONFIG, strategies=("random", "bulk_and_cut"), seeds=1, budget=4, epochs=(3,))
    result = run_hyper(config, tmp_path / "run")
    # Two random networks, one that grew, three that were cut and took an epoch each.
    assert result["networks"] == 4 + 6
    assert max(each["values"]["accuracy"] for each in result["front"]) > 12


def test_a_folder_of_photos_is_searched_at_sixteen_pixels(trained: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("rose", "tulip"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for at in range(12):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{at}.png")
    config = replace(
        flowers(), data_dir=str(tmp_path / "photos"), levels=CONFIG.levels, strategies=("random",), seeds=1, budget=2
    )
    with pytest.raises(UserError, match=r"config\.levels\.batch allows 32 images; there are \d+ to train on"):
        run_hyper(config, tmp_path / "run")
    result = run_hyper(replace(config, levels=replace(CONFIG.levels, batch=(2, 8))), tmp_path / "run")
    assert result["train_images"] + result["valid_images"] + result["test_images"] == 24


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objectives": ("accuracy", "-log10_parms")}, r"unknown cost in config\.objectives '-log10_parms'.*did you"),
        ({"objectives": ("acuracy", "-params")}, r"unknown first objective.*'acuracy'.*did you mean 'accuracy'"),
        ({"objectives": ("log_likelihood", "-params")}, r"unknown first objective in config\.objectives"),
        ({"objectives": ("accuracy",)}, r"two or more make a front"),
        ({"reference": (0.0,)}, r"config\.reference has 1 numbers for 2 objectives"),
        ({"reference": (0.0, 1.0)}, r"no network is better than the reference point in -log10_params"),
        ({"strategies": ("bulk_and_cat",)}, r"unknown strategy 'bulk_and_cat'.*did you mean 'bulk_and_cut'"),
        ({"strategies": ("random", "random")}, r"names random more than once"),
        ({"strategies": ()}, r"config\.strategies is empty"),
        ({"options": ("bulk_and_cut.x=1",)}, r"strategy bulk_and_cut has no options; 'x' was given"),
        ({"options": ("sh_emoa.popluation=3",)}, r"unknown option of strategy sh_emoa 'popluation'"),
        ({"epochs": (13, 7)}, r"config\.epochs=13,7; epochs rise"),
        ({"image_size": 7}, r"the images are 7 x 7 pixels; 3 halvings need 8 at least"),
        ({"levels": replace(CONFIG.levels, fc=(2, 4, 8))}, r"config\.levels\.fc has 3 numbers"),
        ({"levels": replace(CONFIG.levels, conv_levels=9)}, r"config\.levels\.conv has 9 levels from 2 to 4"),
        ({"dataset": "fashion_mnist", "data_dir": "/none/such"}, r"data_dir '/none/such' does not exist"),
        (
            {"options": ("sh_emao.population=3",)},
            r"unknown strategy in config\.options 'sh_emao'.*did you mean 'sh_emoa'",
        ),
        ({"dataset": "images", "image_size": 8}, r"this dataset needs --config\.data_dir=FOLDER"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        run_hyper(replace(CONFIG, **changed), tmp_path / "run")
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_the_paper_s_space_is_the_default_and_reaches_beyond_its_reference_point() -> None:
    config = get_config()
    assert config.levels == LevelSettings() and config.epochs == (7, 13, 25) and config.reference == ()
    problem = load_problem(replace(config, dataset="digits_on_photos"))
    assert problem.goals.reference.tolist() == [0.0, -8.0] and len(problem.space.sizes) == 13
    assert (
        problem.space.conv[0] == 16
        and problem.space.conv[-1] == 1024
        and problem.space.batches == tuple(2**power for power in range(10))
    )


def test_a_damaged_journal_of_networks_is_told(trained: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CONFIG, strategies=("bulk_and_cut",), seeds=1)
    run_hyper(config, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "bad")
    (tmp_path / "bad" / "result.json").unlink()
    journal = tmp_path / "bad" / "searches" / "bulk_and_cut-0" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"stage"', '"stag"', 1))
    with pytest.raises(UserError, match=r"line 1 of .* is not a network of a journal"):
        run_hyper(config, tmp_path / "bad")
