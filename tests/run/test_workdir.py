"""The run directory: one process, one config, and nothing harmed by a refusal or a full disk."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from parsec.config import option
from parsec.errors import UserError
from parsec.run.workdir import (
    append,
    claim,
    finished_result,
    inspect,
    locate,
    read_json,
    versions,
    write_json_atomic,
)


@dataclass(frozen=True)
class Inner:
    rate: float = option(0.1, "rate")


@dataclass(frozen=True)
class Settings:
    WRITES: ClassVar[tuple[str, ...]] = ("table.md",)
    seed: int = option(0, "seed")
    folder: str = option("", "where the data is", affects_results=False)
    inner: Inner = option(Inner(), "group")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_new_directory_gets_the_resolved_config_and_a_second_claim_resumes(tmp_path: Path):
    with claim(tmp_path / "a" / "b", Settings(seed=4)) as run:
        assert run == (tmp_path / "a" / "b", ())
        stored = read_json(run.path / "config.json")
        assert stored["config"] == {"seed": 4, "folder": "", "inner": {"rate": 0.1}}
        assert stored["seed"] == 4
        assert stored["versions"] == versions()
        assert {"python", "jax", "flax", "optax", "numpy"} <= set(stored["versions"])
        assert stored["device"]["platform"] == "cpu"
        write_json_atomic(run.path / "result.json", {"accuracy": 1.0})
    with claim(tmp_path / "a" / "b", Settings(seed=4)) as run:
        assert read_json(run.path / "result.json") == {"accuracy": 1.0}


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


@pytest.mark.parametrize("text", ['{"config": {"seed"', "[]", '{"config": 3}', "", "[" * 100_000])
def test_a_damaged_config_file_is_refused_and_left_alone(tmp_path: Path, text: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json is not"), claim(tmp_path, Settings()):
        pass
    assert (tmp_path / "config.json").read_text() == text


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "checkpoints", "result.json", "timing.json", "tensorboard", "table.md"]
)
def test_a_name_that_the_job_would_write_is_refused_where_there_is_no_run(tmp_path: Path, name: str):
    (tmp_path / name).write_text("mine\n")
    refused = pytest.raises(UserError, match=rf"holds {name} but no config\.json")
    with refused, claim(tmp_path, Settings()):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine\n"}


def test_other_files_in_a_directory_stay_beside_the_run(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine\n")
    with claim(tmp_path, Settings()):
        assert (tmp_path / "config.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine\n"


def test_what_does_not_affect_results_may_change_and_the_run_keeps_what_it_began_with(tmp_path: Path):
    with claim(tmp_path, Settings(folder="here")):
        pass
    with claim(tmp_path, Settings(folder="there")):
        pass
    assert read_json(tmp_path / "config.json")["config"]["folder"] == "here"


def test_a_run_of_another_job_is_named_by_its_job(tmp_path: Path):
    with claim(tmp_path, Settings()):
        pass
    stored = read_json(tmp_path / "config.json")
    write_json_atomic(tmp_path / "config.json", {**stored, "job": "a:b", "config": {"more": 1}})
    with pytest.raises(UserError, match="another job, a:b"), claim(tmp_path, Settings()):
        pass
    # The module that a job lies in may have had another name.
    write_json_atomic(tmp_path / "config.json", {**stored, "job": f"old:{stored['job']}", "config": {"more": 1}})
    with pytest.raises(UserError, match="with another config: "), claim(tmp_path, Settings()):
        pass


def test_a_run_goes_on_with_the_data_it_began_with_and_no_other(tmp_path: Path):
    images, other = {"images": "a" * 64}, {"images": "b" * 64}
    with claim(tmp_path, Settings(), images):
        pass
    before = contents(tmp_path)
    assert read_json(tmp_path / "config.json")["digests"] == images
    for digests, match in ((other, "was aaaaaaaaaaaa, now bbbbbbbbbbbb"), ({**images, "table": "c"}, "another table")):
        with pytest.raises(UserError, match=match), claim(tmp_path, Settings(), digests):
            pass
    with pytest.raises(UserError, match="another images: its sha256 was aaaaaaaaaaaa, now none"):
        inspect(tmp_path, Settings(), {})
    assert contents(tmp_path) == before
    with claim(tmp_path, Settings(), images):
        assert contents(tmp_path) == before


def test_a_run_that_stored_no_digests_goes_on(tmp_path: Path):
    with claim(tmp_path, Settings()):
        pass
    before = contents(tmp_path)
    with claim(tmp_path, Settings(), {"images": "a" * 64}):
        assert contents(tmp_path) == before


def test_a_finished_run_is_reported_without_claiming_it(tmp_path: Path):
    assert finished_result(tmp_path / "none", Settings()) is None
    with claim(tmp_path, Settings()):
        pass
    assert finished_result(tmp_path, Settings()) is None
    write_json_atomic(tmp_path / "result.json", {"accuracy": 1.0})
    with claim(tmp_path, Settings()):
        assert finished_result(tmp_path, Settings(folder="gone")) == {"accuracy": 1.0}
    with pytest.raises(UserError, match="seed was 0, now 1"):
        finished_result(tmp_path, Settings(seed=1))


def test_a_place_where_no_directory_can_be_is_one_line_that_says_why(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere")
    for folder, why in (
        ("file", r"file is a file, not a directory"),
        ("file/below/it", r"file is a file, not a directory"),
        ("loop", "loop is a link that leads back to itself"),
        ("loop/below", "loop is a link that leads back to itself"),
        ("lost", "lost is a link to nothing"),
        ("n" * 300, "File name too long"),
        ("n/" * 2500, "File name too long"),
    ):
        with pytest.raises(UserError, match=why) as refused, claim(tmp_path / folder, Settings()):
            pass
        assert len(str(refused.value)) < 600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop", "lost"]


def test_a_home_that_nobody_has_and_a_current_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="~nosuchuser"):
        locate("~nosuchuser/run")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="current directory was deleted"):
        locate("here")
    assert locate(tmp_path / "there") == tmp_path / "there"
    monkeypatch.chdir(tmp_path)


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
