"""The benchmark of short trainings: both contestants learn the same cells from the same weights, in turns."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import short_trainings
from benchmarks.short_trainings import main, make_images, our_training, take_turns, torch_training
from parsec.cells import get_space
from parsec.cells.network import Shape
from parsec.supernet.supernet import make_supernet
from parsec.train.recipe import Recipe

SPACE, SHAPE, CELL = get_space("nasbench201"), Shape(2, 1, 10, stem_stride=2), np.array([[3, 1, 3, 3, 2, 3]], np.int32)


def test_contestants_take_turns_and_the_first_turn_is_not_timed():
    order: list[tuple[str, int]] = []

    def contestant(name: str):
        return lambda cells, weights: order.append((name, int(cells[0, 0]))) or np.zeros(1)

    cells = np.arange(3, dtype=np.int32)[:, None, None]
    seconds = take_turns({name: contestant(name) for name in ("ours", "theirs")}, cells, None)
    assert order == [(name, turn) for turn in range(3) for name in ("ours", "theirs")]
    assert {name: len(values) for name, values in seconds.items()} == {"ours": 2, "theirs": 2}


def test_both_begin_with_the_same_network():
    """Without a step's worth of learning, the loss is that of the given weights, up to which images are drawn."""
    pytest.importorskip("torch")
    recipe, part = Recipe(2, 1024, 1e-9, augmentation="flip"), make_images(8)
    weights = make_supernet(SPACE, SHAPE).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    theirs = torch_training(SPACE, SHAPE, recipe, part)(CELL, weights)
    ours = our_training(SPACE, SHAPE, recipe, part, 1)(CELL, weights)
    np.testing.assert_allclose(ours, theirs, rtol=0.02)


@pytest.mark.slow
def test_it_runs_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(short_trainings.importlib.util, "find_spec", lambda name: None)
    sizes = ["--space=nasbench201", "--cells=1", "--channels=2", "--batch=8", "--image=8", "--steps=2", "--trainings=1"]
    try:
        report = main([*sizes, f"--out={tmp_path / 'trainings.json'}"])
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert json.loads((tmp_path / "trainings.json").read_text())["training_seconds"] == report["training_seconds"]
    assert report["training_seconds"]["ours"] > 0 and report["ours_to_this"] == {}
