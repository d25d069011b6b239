"""What jobs of one test share: a search's step that is traced and compiled once, and images to be streamed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from parsec.command import launch
from parsec.jobs.search import problem


@pytest.fixture
def one_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches on shared weights have the first one's step: they may differ in seed, and in nothing it is made of."""
    make, made = problem.make_program, []

    def make_once(*given: Any) -> Any:
        if not made:
            made.append(make(*given))
        return made[0]

    monkeypatch.setattr(problem, "make_program", make_once)


@pytest.fixture
def noise_images(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a folder of two classes, light and dark noise: 40 images to learn from and 10 for the test."""

    def make(ending: str) -> Path:
        rng = np.random.default_rng(0)
        for part, count in (("train", 20), ("val", 5)):
            for label, name in enumerate(("dark", "light")):
                (tmp_path / "images" / part / name).mkdir(parents=True)
                for i in range(count):
                    pixels = rng.integers(100 * label, 100 * label + 150, (24, 20, 3)).astype(np.uint8)
                    Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i:02d}.{ending}")
        return tmp_path / "images"

    return make


@pytest.fixture
def typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are typed in the folder of the test, which has a folder EMPTY; no dataset was prepared before."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(launch, "prepare_process", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
