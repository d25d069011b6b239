"""How a job opens: what is finished is shown and left alone, what is not is claimed and announced."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from parsec.config import option
from parsec.errors import UserError
from parsec.run.opening import begin, report_finished
from parsec.run.workdir import claim, write_json_atomic


@dataclass(frozen=True)
class Settings:
    seed: int = option(0, "seed")


def show(result: Any, path: Path) -> None:
    print(f"{float(result['accuracy'])} % in {path}")


def test_a_finished_run_is_shown_and_an_unfinished_one_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with claim(tmp_path, Settings()):
        assert report_finished(Settings(), tmp_path, show) is None
    assert not capsys.readouterr().out
    write_json_atomic(tmp_path / "result.json", {"accuracy": 1.0})
    with claim(tmp_path, Settings()):
        assert report_finished(Settings(), tmp_path, show) == {"accuracy": 1.0}
    assert capsys.readouterr().out == f"finished before, in {tmp_path}:\n1.0 % in {tmp_path}\n"
    with pytest.raises(UserError, match="seed was 0, now 1"):
        report_finished(Settings(seed=1), tmp_path, show)


@pytest.mark.parametrize("value", [[], {}, 3, {"accuracy": None}])
def test_a_result_of_another_shape_is_one_line(tmp_path: Path, value: Any):
    with claim(tmp_path, Settings()):
        write_json_atomic(tmp_path / "result.json", value)
    with pytest.raises(UserError, match=r"result\.json is not a result of this job"):
        report_finished(Settings(), tmp_path, show)


def test_a_job_tells_its_plan_then_what_changed_since_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):
        with begin(Settings(), tmp_path, {}, "a search", {"cells": 8}, ["an image is missing"]) as run:
            assert run.path == tmp_path and (tmp_path / "config.json").exists()
            with pytest.raises(UserError, match="is in use by"), claim(tmp_path, Settings()):
                raise AssertionError
        title, cells, place, *notes = capsys.readouterr().out.splitlines()
        assert title.strip() == "a search" and cells.split() == ["cells", "8"]
        assert place.startswith("run directory") and notes[-1] == "an image is missing"
        stored = (tmp_path / "config.json").read_text()
        (tmp_path / "config.json").write_text(stored.replace('"platform": "cpu"', '"platform": "abacus"'))
    # The path of the run directory may take several lines.
    assert notes[-2:] == ["device platform was abacus, now cpu", "an image is missing"]
