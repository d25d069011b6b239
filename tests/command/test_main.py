"""The command line as its users meet it: what it lists, what it refuses, and how a killed run goes on."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parsec.command import launch
from parsec.command.config_files import list_configs

ROOT = Path(__file__).parents[2]
WALK = '''"""A random walk, to test the runner.

python main.py --config=walk.py
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from parsec.errors import unknown
from parsec.config import option


@dataclass(frozen=True)
class Walk:
    JOB: ClassVar[str] = "walk:run"
    seed: int = option(0, "random seed", minimum=0)
    steps: int = option(60, "how far", minimum=1)
    pause: float = option(0.0, "seconds of rest in a step", minimum=0)
    data_dir: str = option("", "a folder")


def get_config(variant: str = "") -> Walk:
    if variant not in ("", "quick"):
        raise unknown("variant", variant, ["quick"])
    return Walk(steps=5) if variant else Walk(pause=0.02)


def run(config: Walk, workdir: Path) -> None:
    import jax

    from parsec.run.loop import run_steps
    from parsec.run.workdir import claim, write_json_atomic

    with claim(workdir, config) as claimed:
        if (claimed.path / "result.json").exists():
            print(f"finished: {claimed.path}")
            return
        key = jax.random.key(config.seed)

        def step(state, index):
            time.sleep(config.pause * float(os.environ.get("SLOWER", "1")))
            state = state + jax.random.normal(jax.random.fold_in(key, index), (4,))
            return state, {"at": state[0]}

        state = run_steps(claimed, jax.numpy.zeros(4), step, config.steps, save_minutes=0.005, tensorboard=False)
        write_json_atomic(claimed.path / "result.json", {"at": [float(x) for x in state]})
'''
Command = Callable[..., int]


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    path = tmp_path / "walk.py"
    path.write_text(WALK)
    return path


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """main.main, in a folder of its own and with a package `configs` that holds two files."""
    folder = tmp_path / "site" / "configs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "walk_search.py").write_text(WALK)
    (folder / "other.py").write_text('"""Another job."""\n')
    monkeypatch.setattr(launch, "prepare_process", lambda: None)
    monkeypatch.delitem(sys.modules, "configs", raising=False)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("main", ROOT / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield lambda *words: module.main(list(words))
    for name in ("configs", "configs.walk_search", "configs.walk_train", "configs.other"):
        sys.modules.pop(name, None)


def test_alone_it_lists_every_config_with_a_line_each(command: Command, capsys: pytest.CaptureFixture[str]):
    for words in ((), ("--help",)):
        assert command(*words) == 0
        out = capsys.readouterr().out
        assert "  walk_search  A random walk, to test the runner.\n" in out
        assert "  other        Another job.\n" in out
        assert all(flag in out for flag in ("--config", "--workdir", "--transfer_to"))


def test_every_config_of_the_package_is_listed_with_a_line():
    listed = list_configs()
    assert set(listed) == {path.stem for path in (ROOT / "configs").glob("*.py")} - {"__init__"}
    assert all(listed.values())


@pytest.mark.parametrize("chosen", ["walk_search", "walk_search:quick", "walk.py"])
def test_help_of_a_config_lists_its_settings(
    command: Command, walk: Path, capsys: pytest.CaptureFixture[str], chosen: str
):
    assert command(f"--config={chosen}", "--help") == 0
    out = capsys.readouterr().out
    assert "A random walk" in out
    assert f"--config.steps={5 if 'quick' in chosen else 60}" in out
    assert "how far (int, at least 1)" in out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--config=walk_serch"], ["unknown config 'walk_serch'", "other, walk_search", "did you mean 'walk_search'"]),
        (["--config=walk_search:quik"], ["unknown variant 'quik'", "did you mean 'quick'"]),
        (["--config=walk_search", "--config.sead=1"], ["unknown config key 'sead'", "did you mean 'seed'"]),
        (["--config=walk_search", "--config.seed=x"], ["config.seed='x'", "an integer"]),
        (["--config=walk_search", "--config.seed", "-1"], ["config.seed=-1", "at least 0"]),
        (["--config=walk_search", "--config.seed"], ["--config.seed needs a value"]),
        (["--config=walk_search", "--wrkdir=a"], ["unknown flag '--wrkdir'", "did you mean '--workdir'"]),
        (["--config=walk_search", "seed=3"], ["unknown flag 'seed'"]),
        (["--config=walk_search", "--workdir"], ["--workdir", "Missing value for flag --workdir"]),
        (["--config=walk_search", "--transfer_to=othr"], ["unknown config 'othr'", "did you mean 'other'"]),
        (["--config=other"], ["has no function get_config"]),
        (["--config=missing.py"], ["no config file missing.py"]),
        (["--config=broken.py"], ["cannot load ", "broken.py", "SyntaxError"]),
        (["--config=plain.py"], ["returns a dict, not a config dataclass"]),
        (["--config=jobless.py"], ["names no job"]),
        (["--config=walk_search", "--transfer_to=walk_search", "--target.sead=1"], ["target key 'sead'", "'seed'"]),
        (["--config=walk_search", "--transfer_to=walk_search", "--target.seed=-1"], ["target.seed=-1", "at least 0"]),
        (["--config=walk_search", "--target.seed=1"], ["--target.seed is of the target of a transfer"]),
        (["--config=walk_search", "--target.seed"], ["--target.seed needs a value"]),
        (["--config=walk_search", "--targets.seed=1"], ["unknown flag '--targets.seed'"]),
        (["--exprot=runs/walk"], ["unknown flag '--exprot'", "did you mean '--export'"]),
        (["--config=walk_search", "--train"], ["--train goes on after a transfer", "--config.from_run=RUN_DIR"]),
        (["--config=walk_search", "--transfer_to=walk", "--train.seed=1"], ["after a transfer; ask for it: --train"]),
        (
            ["--config=walk_search", "--transfer_to=walk_search", "--train"],
            ["no training for the target 'walk_search', it would be walk_train"],
        ),
        (
            ["--config=walk_search", "--transfer_to=walk", "--train", "--train.dataset=digits"],
            ["--train.dataset means nothing here", "on the target's images"],
        ),
        (["--train"], ["no --config given"]),
        (["--target.seed=1"], ["no --config given"]),
        (["--workdir=a"], ["no --config given"]),
        (["--config.seed=1"], ["no --config given"]),
        (["--config=walk.py", "--workdir=walk.py"], ["walk.py is a file, not a directory"]),
        (["--config=walk.py", "--workdir=~nosuchuser"], ["~nosuchuser"]),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_nothing_written(
    command: Command, walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: list[str]
):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    (tmp_path / "plain.py").write_text("def get_config(variant=''):\n    return {}\n")
    jobless = "import dataclasses\nget_config = lambda variant='': dataclasses.make_dataclass('A', [])()\n"
    (tmp_path / "jobless.py").write_text(jobless)
    sys.path.insert(0, str(tmp_path))
    try:
        before = sorted(tmp_path.rglob("*.json"))
        assert command(*words) == 2
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("walk", None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for part in named:
        assert part in captured.err
    assert not (tmp_path / "runs").exists()
    assert sorted(tmp_path.rglob("*.json")) == before


def test_a_full_disk_outside_the_runner_is_one_line_and_other_errors_keep_their_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def writes(config: object, workdir: Path) -> None:
        Path("/dev/full").write_text("x")

    def breaks(config: object, workdir: Path) -> None:
        raise FileNotFoundError("a bug")

    monkeypatch.setattr(launch, "_entry", lambda job, chosen: writes)
    assert command("--config=walk_search") == 2
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(launch, "_entry", lambda job, chosen: breaks)
    with pytest.raises(FileNotFoundError):
        command("--config=walk_search")


def test_where_a_run_goes_and_what_the_job_is_given(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = []
    monkeypatch.setattr(launch, "_entry", lambda job, chosen: lambda *arguments: given.append((job, *arguments)))
    assert command("--config=walk_search:quick", "--config.seed=3", "--config.pause", "1") == 0
    assert command("--config=walk_search", "--workdir=here") == 0
    assert command("--config=walk_search", "--transfer_to=walk_search:quick", "--target.seed=7") == 0
    (job, config, folder), (_, _, here), (transfer, _, target, both) = given
    assert (job, config.seed, config.pause, config.steps) == ("walk:run", 3, 1.0, 5)
    assert folder == tmp_path / "runs" / "walk_search-quick"
    assert here == tmp_path / "here"
    assert (transfer, target.steps, target.seed) == ("parsec.jobs.transfer:run_transfer", 5, 7)
    assert both == tmp_path / "runs" / "walk_search-to-walk_search-quick"


def test_a_target_goes_by_its_short_name_and_is_trained_in_its_own_variant(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    given = []
    monkeypatch.setattr(launch, "_entry", lambda job, chosen: lambda *arguments: given.append(arguments))
    training = tmp_path / "site" / "configs" / "walk_train.py"
    training.write_text(WALK)
    for words, steps in (([], 60), (["--train.steps=7"], 7)):
        assert command("--config=walk_search", "--transfer_to=walk", "--train", *words) == 0
        _, target, folder, trained = given.pop()
        assert (target.steps, trained.steps, folder.name) == (60, steps, "walk_search-to-walk_search")
    assert command("--config=walk_search", "--transfer_to=walk:quick", "--train") == 0
    _, target, folder, trained = given.pop()
    assert (target.steps, trained.steps, folder.name) == (5, 5, "walk_search-to-walk_search-quick")
    # A variant that the training has not is its own.
    training.write_text(WALK.replace('"quick"', '"another"'))
    sys.modules.pop("configs.walk_train")
    assert command("--config=walk_search", "--transfer_to=walk:quick", "--train") == 0
    assert given.pop()[3].steps == 60
    assert command("--config=walk_search", "--transfer_to=walk:quick", "--train", "--help") == 0
    out = capsys.readouterr().out
    assert "--config.steps=60" in out and "--target.steps=5" in out and "--train.steps=60" in out


def test_a_transfer_to_a_folder_that_is_not_there_runs_nothing(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command("--config=walk_search", "--transfer_to=walk_search:quick", "--target.data_dir=nowhere") == 2
    assert capsys.readouterr().err.strip() == "error: target.data_dir='nowhere' does not exist"
    assert not (tmp_path / "runs").exists()


def test_help_of_a_transfer_lists_the_settings_of_both(command: Command, capsys: pytest.CaptureFixture[str]):
    assert command("--config=walk_search", "--transfer_to=walk_search:quick", "--help") == 0
    out = capsys.readouterr().out
    assert "--config.steps=60" in out
    assert "--target.steps=5" in out


def test_a_mistake_is_answered_without_importing_jax(tmp_path: Path):
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"config": {"seed": 1}}')
    commands = (
        (["--config=nothing_like_it"], "unknown config 'nothing_like_it'"),
        (["--config=digits_search", f"--workdir={tmp_path}"], "holds result.json but no config.json"),
        (["--config=digits201_compare", f"--workdir={tmp_path}/run"], "seed was 1, now 0"),
        (["--config=images_search", "--config.data_dir=/nowhere"], "config.data_dir='/nowhere' does not exist"),
        (["--config=table_compare", "--config.table=~nosuchuser/a.npz"], "~nosuchuser"),
    )
    code = "import sys, main; code = main.main(sys.argv[1:]); sys.exit(code + 40 * ('jax' in sys.modules))"
    for words, named in commands:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert named in done.stderr


def test_the_compile_cache_is_the_users_and_keyed_by_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)})
    launch.prepare_process()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.parent == tmp_path / "parsec"
    assert folder == launch.compile_cache_folder()
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert launch.compile_cache_folder() != folder
    os.environ["JAX_COMPILATION_CACHE_DIR"] = "chosen"
    launch.prepare_process()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "chosen"


def test_killed_stopped_and_resumed_ends_byte_for_byte_as_an_uninterrupted_run(walk: Path, tmp_path: Path):
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "PYTHONWARNINGS": "error",
        "XDG_CACHE_HOME": str(tmp_path),
    }

    def begin(folder: str, slower: int = 1) -> "subprocess.Popen[str]":
        words = [sys.executable, str(ROOT / "main.py"), f"--config={walk}", f"--workdir={folder}"]
        given = environment | {"SLOWER": str(slower)}
        return subprocess.Popen(
            words, cwd=tmp_path, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def after(lines: int, process: "subprocess.Popen[str]") -> None:
        path = tmp_path / "cut" / "metrics.jsonl"
        saved = tmp_path / "cut" / "checkpoints"
        while (
            not path.exists()
            or path.read_text().count("\n") < lines
            or not (saved.is_dir() and any(step.name.isdigit() for step in saved.iterdir()))
        ):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)

    whole = begin("whole")
    out, err = whole.communicate()
    assert (whole.returncode, err) == (0, "")
    assert "60/60" in out

    # Slow enough for a signal to come before they end.
    killed = begin("cut", slower=10)
    after(20, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "cut" / "result.json").exists()

    stopped = begin("cut", slower=10)
    after(40, stopped)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate()
    assert stopped.returncode == 143
    assert "resuming after step" in out
    assert err.startswith("stopped by SIGTERM after step")
    assert err.count("\n") == 1

    resumed = begin("cut")
    out, err = resumed.communicate()
    assert (resumed.returncode, err) == (0, "")
    for name in ("result.json", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
