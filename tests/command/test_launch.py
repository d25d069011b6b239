"""Configs of one's own: whatever their code does is one line that names the place; and the job they ask for."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import main
from parsec.command.config_files import list_configs, load_config
from parsec.command.launch import check_paths, prepare_process
from parsec.errors import UserError
from parsec.settings.search import SearchConfig

ROOT = Path(__file__).parents[2]
CONFIG = """from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from parsec.config import option

@dataclass(frozen=True)
class Mine:
    JOB: ClassVar[str] = {job!r}
    seed: int = option(0, "seed")

def get_config(variant=""):
    return Mine()

def run(config, workdir):
    print("ran", config.seed)
"""


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Configs of one's own are modules; forgets those of a test."""
    yield monkeypatch
    for name in ("own", "strange_config"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import sys\nsys.exit(3)\n", ["line 2: SystemExit: 3"]),
        ("x = 1 / 0\n", ["line 1: ZeroDivisionError"]),
        ("def get_config(variant=''):\n    return {}['a']\n", ["line 2: KeyError"]),
        ("def get_config(variant=''):\n    raise SystemExit\n", ["line 2: SystemExit"]),
        ("def get_config(variant=''):\n    return get_config(variant)\n", ["line 2: RecursionError"]),
        ("def get_config():\n    return None\n", ["must take the variant", "get_config(variant='')"]),
        ("def get_config(a, b):\n    return None\n", ["must take the variant"]),
        ("get_config = 3\n", ["has no function get_config"]),
        ("import nowhere_to_be_found\n", ["line 1: ModuleNotFoundError", "nowhere_to_be_found"]),
        ("\x00", ["cannot load"]),
        ("def get_config(variant=''):\n    return int\n", ["returns a type, not a config dataclass"]),
    ],
)
def test_what_the_code_of_a_config_does_is_one_line(
    tmp_path: Path, forgotten: pytest.MonkeyPatch, text: str, named: list[str]
):
    path = tmp_path / "strange_config.py"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_config(str(path))
    for part in [*named, str(path)]:
        assert part in str(refused.value)
    # A file that could not be run to its end leaves no module behind.
    assert ("strange_config" in sys.modules) == ("get_config" in text)


@pytest.mark.parametrize(
    ("job", "named"),
    [
        ("", "names no job"),
        ("nowhere.at_all:run", "no module nowhere"),
        ("parsec.nowhere:run", "no module parsec.nowhere"),
        ("parsec.config:nothing", "does not exist"),
        ("parsec.config_values:LARGEST_INTEGER", "does not exist"),
        (".config:run", "not '.config:run'"),
        ("a b:run", "not 'a b:run'"),
        ("parsec.config", "names no job"),
        (3, "not 3"),
    ],
)
def test_a_job_that_does_not_exist_is_one_line(
    tmp_path: Path, forgotten: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], job: object, named: str
):
    forgotten.chdir(tmp_path)
    (tmp_path / "own.py").write_text(CONFIG.format(job=job))
    assert main.main(["--config=own.py"]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_the_job_of_a_config_may_lie_beside_it(
    tmp_path: Path, forgotten: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    forgotten.chdir(tmp_path)
    (tmp_path / "own.py").write_text(CONFIG.format(job="own:run"))
    assert main.main(["--config=own.py", "--config.seed=3"]) == 0
    assert capsys.readouterr().out == "ran 3\n"


@pytest.mark.parametrize("name", ["n" * 300 + ".py", "n/" * 2500 + "a.py", "~nosuchuser/a.py", "folder.py"])
def test_a_config_file_that_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError) as refused:
        load_config(name)
    assert len(str(refused.value)) < 400


def test_paths_that_lead_nowhere_are_told_and_those_that_may_be_made_are_not(tmp_path: Path):
    (tmp_path / "table.npz").write_bytes(b"")
    for config in (
        SearchConfig(data_dir=str(tmp_path), table=str(tmp_path / "table.npz")),
        SearchConfig(dataset="tfds:mnist", data_dir=str(tmp_path / "new")),
        object(),
    ):
        check_paths(config)
    for config, said in (
        (SearchConfig(data_dir=str(tmp_path / "new")), "config.data_dir=.* does not exist"),
        (SearchConfig(dataset="tfds:mnist", table="n" * 300), "config.table=.*File name too long"),
    ):
        with pytest.raises(UserError, match=said):
            check_paths(config)
        with pytest.raises(UserError, match=said.replace("config", "target")):
            check_paths(config, "target")


def test_a_damaged_file_among_the_configs_is_listed_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("")
    (tmp_path / "configs" / "broken.py").write_text("def (\n")
    (tmp_path / "configs" / "sound.py").write_text('"""Sound."""\n')
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = list_configs()
    assert listed["sound"] == "Sound."
    assert listed["broken"].startswith("(cannot be read")
    with pytest.raises(UserError, match=r"broken\.py.*SyntaxError"):
        load_config("broken")
    for name in [name for name in sys.modules if name.partition(".")[0] == "configs"]:
        del sys.modules[name]


def test_writes_that_end_after_their_loop_are_passed_over_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    monkeypatch.setattr(os, "environ", {"JAX_COMPILATION_CACHE_DIR": "kept"})
    prepare_process()
    loop = asyncio.new_event_loop()
    loop.close()
    # As a thread of TensorStore's calls: nothing of Python is above.
    with pytest.raises(RuntimeError) as late:
        loop.call_soon_threadsafe(print)
    assert late.tb.tb_next is not None
    lost = SimpleNamespace(exc_value=late.value, exc_traceback=late.tb.tb_next)
    sys.unraisablehook(lost)
    assert shown == []
    for other in (
        SimpleNamespace(exc_value=ValueError(), exc_traceback=late.tb.tb_next),
        SimpleNamespace(exc_value=RuntimeError(), exc_traceback=late.tb),
        SimpleNamespace(exc_value=RuntimeError(), exc_traceback=None),
    ):
        sys.unraisablehook(other)
    assert len(shown) == 3


def test_a_device_that_jax_does_not_have_is_one_line(tmp_path: Path):
    command = [sys.executable, "main.py", "--config=digits_search:quick", f"--workdir={tmp_path / 'run'}"]
    environment = {**os.environ, "JAX_PLATFORMS": "abacus"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS=abacus cannot be had")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
