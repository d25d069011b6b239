"""The loop: resumed equals uninterrupted, stops save first, and what is fatal is said after saving."""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from parsec.config import option
from parsec.errors import UserError
from parsec.run.loop import run_steps
from parsec.run.metrics import read_metrics
from parsec.run.signals import StoppedError
from parsec.run.workdir import claim, read_json


@dataclass(frozen=True)
class Settings:
    seed: int = option(0, "seed")


@jax.jit
def walk(state: dict[str, Any], index: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    at = state["at"] + jax.random.normal(jax.random.fold_in(state["key"], index), (3,))
    return {"at": at, "key": state["key"]}, {"distance": jnp.linalg.norm(at), "at": at}


def step(state: dict[str, Any], index: int) -> tuple[dict[str, Any], dict[str, Any]]:
    return walk(state, jnp.int32(index))


def start() -> dict[str, Any]:
    return {"at": jnp.zeros(3), "key": jax.random.key(5)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The run directory and final state of 12 uninterrupted steps."""
    folder = tmp_path_factory.mktemp("whole")
    with claim(folder, Settings()) as run:
        return folder, run_steps(run, start(), step, 12)


def test_metrics_events_and_timing_are_written(whole: tuple[Path, dict[str, Any]]):
    folder, state = whole
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["distance"] == pytest.approx(float(jnp.linalg.norm(state["at"])))
    assert len(lines[0]["at"]) == 3
    assert len(list((folder / "tensorboard").iterdir())) == 1
    timing = read_json(folder / "timing.json")
    assert timing["steps"] == 12
    assert timing["seconds"] >= timing["first_step_seconds"] > 0
    assert "waited_seconds" not in timing
    # What a clock said stays out of the file that two equal runs share.
    assert set(lines[0]) == {"step", "distance", "at"}


def test_a_finished_loop_is_restored_without_a_step(whole: tuple[Path, dict[str, Any]]):
    folder, state = whole
    before = (folder / "metrics.jsonl").read_bytes()

    def never(state: dict[str, Any], index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        raise AssertionError

    with claim(folder, Settings()) as run:
        again = run_steps(run, start(), never, 12)
    assert (again["at"] == state["at"]).all()
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("stops", [[1], [3, 4, 11], [12]])
def test_stopped_and_resumed_equals_uninterrupted(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, stops: list[int], capsys: pytest.CaptureFixture[str]
):
    folder, state = whole
    for stop in stops:

        def interrupted(state: dict[str, Any], index: int, stop: int = stop) -> tuple[dict[str, Any], dict[str, Any]]:
            if index + 1 == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(state, index)

        with claim(tmp_path, Settings()) as run, pytest.raises(StoppedError) as stopped:
            run_steps(run, start(), interrupted, 12)
        assert (stopped.value.step, stopped.value.signal) == (stop, signal.SIGTERM)
    with claim(tmp_path, Settings()) as run:
        again = run_steps(run, start(), step, 12)
    assert (again["at"] == state["at"]).all()
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    if stops[-1] < 12:
        assert f"resuming after step {stops[-1]} of 12" in capsys.readouterr().out


def test_an_error_between_checkpoints_loses_only_what_is_done_again(whole: tuple[Path, dict[str, Any]], tmp_path: Path):
    folder, _ = whole

    def breaks(state: dict[str, Any], index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        if index == 7:
            raise RuntimeError("a bug")
        return step(state, index)

    with claim(tmp_path, Settings()) as run, pytest.raises(RuntimeError):
        run_steps(run, start(), breaks, 12)
    assert 0 < len(read_metrics(tmp_path)) < 8
    with claim(tmp_path, Settings()) as run:
        run_steps(run, start(), step, 12, save_minutes=0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["11", "12"]


def test_a_start_that_fails_leaves_the_metrics_as_they_were(whole: tuple[Path, dict[str, Any]], tmp_path: Path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "metrics.jsonl").read_bytes()

    def fails(state: dict[str, Any], index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        raise MemoryError

    with claim(tmp_path, Settings()) as run, pytest.raises(MemoryError):
        run_steps(run, start(), fails, 12)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    with claim(tmp_path, Settings()) as run:
        run_steps(run, start(), step, 12)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("damage", [None, slice(0, 4), slice(2, 9), slice(0, 0)])
def test_lines_that_metrics_lost_are_said_when_the_run_goes_on(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, damage: slice | None, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    metrics = tmp_path / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.unlink()
    if damage is not None:
        kept = lines[damage]
        metrics.write_text("".join(kept) + "torn")
    (tmp_path / "timing.json").write_text("[]")
    with claim(tmp_path, Settings()) as run:
        run_steps(run, start(), step, 13)
        run_steps(run, start(), step, 14)
    left = len(lines[damage]) if damage is not None else 0
    assert capsys.readouterr().out.count(f"metrics.jsonl lacks {12 - left} of its 12 lines up to here") == 1
    assert [line["step"] for line in read_metrics(tmp_path)][left:] == [13, 14]


def test_lines_at_another_interval_are_no_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for total, every in ((6, 1), (9, 4), (12, 2)):
        with claim(tmp_path, Settings()) as run:
            run_steps(run, start(), step, total, metrics_every=every, tensorboard=False)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6, 8, 9, 10, 12]
    assert "lacks" not in capsys.readouterr().out


def test_seconds_of_waiting_are_told_and_add_up_over_processes(tmp_path: Path):
    for total in (2, 4):
        with claim(tmp_path, Settings()) as run:
            run_steps(run, start(), step, total, tensorboard=False, waited=lambda: 0.25)
    timing = read_json(tmp_path / "timing.json")
    assert timing["waited_seconds"] == 0.5
    assert timing["waited_share"] == pytest.approx(0.5 / timing["seconds"], rel=1e-2)


def test_a_run_without_tensorboardx_writes_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with claim(tmp_path, Settings()) as run:
        run_steps(run, start(), step, 2)
    assert len(read_metrics(tmp_path)) == 2
    assert not (tmp_path / "tensorboard").exists()


def test_fatal_metrics_stop_the_run_unsaved_so_that_it_ends_alike_again(tmp_path: Path):
    def sick(state: dict[str, Any], index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        state, metrics = step(state, index)
        return state, {**metrics, "finite": int(index != 11)}

    # The last step is the sick one: a checkpoint of it would pass for a run that came to its end.
    for _ in range(2):
        with (
            claim(tmp_path, Settings()) as run,
            pytest.raises(UserError, match="stopped after step 12: no child had a finite loss"),
        ):
            run_steps(run, start(), sick, 12, fatal=lambda m: None if m["finite"] else "no child had a finite loss")
    with claim(tmp_path, Settings()) as run:
        run_steps(run, start(), step, 12)
    assert len(read_metrics(tmp_path)) == 12


def test_metrics_every_keeps_the_last_line(tmp_path: Path):
    with claim(tmp_path, Settings()) as run:
        run_steps(run, start(), step, 12, metrics_every=5, tensorboard=False)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [5, 10, 12]
    assert not (tmp_path / "tensorboard").exists()
