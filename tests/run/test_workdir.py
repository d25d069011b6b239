"""The run directory: one process, one config, and nothing harmed by a refusal or a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from parsec.config import option
from parsec.errors import UserError
from parsec.run.workdir import append, claim, read_json, versions, write_json_atomic


@dataclass(frozen=True)
class Inner:
    rate: float = option(0.1, "rate")


@dataclass(frozen=True)
class Settings:
    seed: int = option(0, "seed")
    inner: Inner = option(Inner(), "group")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_new_directory_gets_the_resolved_config_and_a_second_claim_resumes(tmp_path: Path):
    with claim(tmp_path / "a" / "b", Settings(seed=4)) as run:
        assert run == (tmp_path / "a" / "b", True, False, ())
        stored = read_json(run.path / "config.json")
        assert stored["config"] == {"seed": 4, "inner": {"rate": 0.1}}
        assert stored["seed"] == 4
        assert stored["versions"] == versions()
        assert {"python", "jax", "flax", "optax", "numpy"} <= set(stored["versions"])
        assert stored["device"]["platform"] == "cpu"
        write_json_atomic(run.path / "result.json", {"accuracy": 1.0})
    with claim(tmp_path / "a" / "b", Settings(seed=4)) as run:
        assert not run.fresh
        assert run.finished


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with claim("here", Settings()) as run:
        assert run.path == tmp_path / "here"


def test_a_changed_config_is_refused_and_its_keys_named(tmp_path: Path):
    with claim(tmp_path, Settings()):
        pass
    before = contents(tmp_path)
    with (
        pytest.raises(UserError, match=r"inner\.rate was 0\.1, now 0\.5") as refused,
        claim(tmp_path, Settings(inner=Inner(0.5))),
    ):
        pass
    assert "seed" not in str(refused.value)
    assert contents(tmp_path) == before


def test_changed_versions_are_noted_and_the_run_goes_on(tmp_path: Path):
    with claim(tmp_path, Settings()):
        pass
    stored = read_json(tmp_path / "config.json")
    stored["versions"]["jax"] = "0.0.1"
    write_json_atomic(tmp_path / "config.json", stored)
    with claim(tmp_path, Settings()) as run:
        assert len(run.notes) == 1
        assert "jax was 0.0.1" in run.notes[0]


def test_two_claims_at_once_are_refused_in_one_process(tmp_path: Path):
    refused = pytest.raises(UserError, match=f"in use by process {os.getpid()}")
    with claim(tmp_path, Settings()), refused, claim(tmp_path, Settings()):
        pass
    with claim(tmp_path, Settings()):
        pass


def test_the_lock_of_another_process_holds_until_it_is_killed(tmp_path: Path):
    with claim(tmp_path, Settings()):
        pass
    code = (
        "import fcntl, sys, time\n"
        f"lock = open({str(tmp_path / '.lock')!r}, 'a+')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\ntime.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="in use"), claim(tmp_path, Settings()):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    with claim(tmp_path, Settings()):
        pass


@pytest.mark.parametrize("text", ['{"config": {"seed"', "[]", '{"config": 3}', ""])
def test_a_damaged_config_file_is_refused_and_left_alone(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json is not"), claim(tmp_path, Settings()):
        pass
    assert (tmp_path / "config.json").read_text() == text


def test_files_of_a_run_without_its_config_are_refused(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text("mine\n")
    with pytest.raises(UserError, match=r"holds metrics\.jsonl but no config\.json"), claim(tmp_path, Settings()):
        pass
    assert (tmp_path / "metrics.jsonl").read_text() == "mine\n"


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot write .*file"), claim(folder, Settings()):
            pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where others may not")
def test_a_read_only_directory_is_one_line(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"), claim(tmp_path, Settings()):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_write_that_fails_keeps_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    target = tmp_path / "result.json"
    write_json_atomic(target, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"{os.strerror(code)}.*MiB free"):
        write_json_atomic(target, {"new": list(range(1000))})
    assert json.loads(target.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_appending_to_a_full_disk_is_one_line():
    with pytest.raises(UserError, match=r"cannot write /dev/full: No space left"):
        append(Path("/dev/full"), "line\n")
