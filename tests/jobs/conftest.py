"""What jobs of one test share: a search's step that is traced and compiled once, and where commands are typed."""

from pathlib import Path
from typing import Any

import pytest

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
def typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are typed in the folder of the test, which has a folder EMPTY; no dataset was prepared before."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(launch, "prepare_process", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
