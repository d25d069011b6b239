"""The benchmark of final training takes turns, and runs whole on a tiny network."""

import json
from pathlib import Path

import jax
import pytest

from benchmarks import train_step
from benchmarks.train_step import main, take_turns


def test_contestants_take_turns_and_only_every_second_step_is_timed():
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in ("ours", "theirs")}
    seconds = take_turns(steps, 3)
    assert order == ["ours", "ours", "theirs", "theirs"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 3, "theirs": 3}


@pytest.mark.slow
def test_it_runs_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_step.importlib.util, "find_spec", lambda name: None)
    cell = "|skip_connect~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|"
    sizes = ["--cells=1", "--channels=2", "--batch=4", "--image=8", "--repeats=1"]
    try:
        report = main([f"--genotype={cell}", *sizes, f"--out={tmp_path / 'step.json'}"])
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert json.loads((tmp_path / "step.json").read_text())["step_seconds"] == report["step_seconds"]
    assert report["batch_share"] > 0 and report["params"] > 0 and 0.1 < report["peak_gigabytes"] < 100
    assert report["images_per_second"]["ours"] == pytest.approx(4 / report["step_seconds"]["ours"])
