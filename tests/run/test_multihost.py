"""Several processes as one: they end as a single one would, save and stop at one step, and none waits for the dead.

The processes are real, on this machine, and find each other over its loopback.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

import main
from parsec.errors import UserError
from parsec.run import agreement
from parsec.run.agreement import Agreement
from parsec.run.multihost import ADDRESS, COUNT, INDEX
from parsec.run.unreadable import Unreadable

ROOT = Path(__file__).parents[2]
TRAINING = [
    "--config=digits_train:quick", "--config.genotype=resnet", "--config.network.cells=1", "--config.steps=16",
    "--config.network.channels=2", "--config.metrics_every=1", "--config.save_minutes=0",
]  # fmt: skip
SEARCH = [
    "--config=digits_search:quick", "--config.steps=4", "--config.verify.random=0", "--config.data.valid_batch_size=16",
    "--config.data.batch_size=16", "--config.derive.valid_images=16", "--config.derive.random_children=1",
]  # fmt: skip

SMALL = [
    "--config.data.batch_size=8", "--config.data.image_size=16", "--config.network.channels=2",
    "--config.network.cells=1", "--config.network.stem=cifar", "--config.metrics_every=1", "--config.save_minutes=0",
]  # fmt: skip
STREAMED = {
    "train": [
        "--config=imagenet_train:quick", *SMALL, "--config.steps=10", "--config.data.valid_fraction=0.2",
        "--config.genotype=|nor_conv_1x1~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|skip_connect~2|",
        "--config.data.eval_batch_size=7", "--config.data.workers=1", "--config.regularisation.auxiliary_weight=0",
    ],
    "search": [
        "--config=imagenet_search:quick", *SMALL, "--config.space=nasbench201", "--config.steps=12",
        "--config.data.valid_batch_size=8", "--config.sampler.num_children=2", "--config.derive.random_children=2",
        "--config.derive.valid_images=12",
    ],
}  # fmt: skip


class Pair:
    """Two processes of one command, `more` of which is process 1's alone; its own run directory it must leave alone."""

    def __init__(self, command: list[str], workdir: Path, *more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=1")
        self.other = workdir.with_name("other")
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(ROOT / "main.py"), *command, *extra, f"--workdir={directory}", "--multihost"],
                env=os.environ | {"XLA_FLAGS": flags, ADDRESS: address, COUNT: "2", INDEX: str(index)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index, (directory, extra) in enumerate(((workdir, ()), (self.other, more)))
        ]
        self.metrics = workdir / "metrics.jsonl"

    def signal(self, index: int, number: int, lines: int) -> None:
        """Sends one process a signal once metrics.jsonl has so many lines."""
        while not self.metrics.exists() or len(self.metrics.read_text().splitlines()) < lines:
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.02)
        self.processes[index].send_signal(number)

    def end(self) -> list[tuple[int, list[str], list[str]]]:
        """Returns each one's exit code and what it said on standard output and error, line by line."""
        told = []
        for process in self.processes:
            out, err = process.communicate(timeout=1000)
            told.append((process.returncode, out.splitlines(), err.splitlines()))
        assert not self.other.exists() and not told[1][1]
        return told


@pytest.fixture(autouse=True)
def no_strangers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders of other processes are removed, however these end; one that is killed leaves its own."""
    for name in (ADDRESS, COUNT, INDEX):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    yield
    assert len(list(folder.glob("parsec-process-*"))) <= 1


def numbers(workdir: Path, name: str = "metrics.jsonl") -> Any:
    """Returns the numbers in a file of a run, without those that are None, in order.

    The prior's mode is left out: after one step of two children it is a tie, which rounding decides.
    """
    text = (workdir / name).read_text()
    read = [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(read)]
    return [np.float64(leaf) for path, leaf in named if "mode_" not in path and not isinstance(leaf, str)]


@pytest.mark.slow
def test_two_processes_train_as_one_and_none_waits_for_one_that_died(tmp_path: Path):
    workdir, alone = tmp_path / "run", tmp_path / "alone"
    assert main.main([*TRAINING, f"--workdir={alone}"]) == 0
    # The steps that are taken again after a death are the same.
    for dead, lines in ((1, 4), (0, 7)):
        pair = Pair(TRAINING, workdir)
        pair.signal(dead, signal.SIGKILL, lines)
        began, ends = time.monotonic(), pair.end()
        assert time.monotonic() - began < 60
        code, _, said = ends[1 - dead]
        assert ends[dead][0] == -signal.SIGKILL and code == 2
        (line,) = said
        assert f"process {dead} of 2 has died or cannot be reached" in line and "the same command resumes" in line
        assert not (workdir / "result.json").exists()
    pair = Pair(TRAINING, workdir)
    # Only one of them is asked to stop.
    pair.signal(1, signal.SIGTERM, 10)
    (first, _, said), (second, _, nothing) = pair.end()
    assert first == second == 128 + signal.SIGTERM and not nothing
    assert len(said) == 1 and "stopped by SIGTERM after step" in said[0] and "saved" in said[0]
    (first, out, said), (second, _, nothing) = Pair(TRAINING, workdir).end()
    assert first == second == 0 and not said and not nothing
    assert any("resuming after step" in line for line in out)
    for found, expected in zip(numbers(workdir), numbers(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    weights, others = (load_file(each / "last.safetensors") for each in (workdir, alone))
    for name, other in others.items():
        np.testing.assert_allclose(weights[name], other, rtol=0, atol=2e-4 * max(np.abs(other).max(), 1e-3))
    # What is finished is reported by process 0 alone.
    (first, out, _), (second, _, _) = Pair(TRAINING, workdir).end()
    assert first == second == 0 and any("test accuracy" in line for line in out)


@pytest.mark.slow
def test_two_processes_search_as_one(tmp_path: Path):
    """With the batches divided between them, and with the children shared out."""
    alone = tmp_path / "alone"
    assert main.main([*SEARCH, f"--workdir={alone}"]) == 0
    for groups, device in ((2, "2 groups of 1 x cpu"), (1, " 2 x cpu")):
        workdir = tmp_path / f"run{groups}"
        ends = Pair([*SEARCH, f"--config.sampler.groups={groups}"], workdir).end()
        assert [(code, said) for code, _, said in ends] == [(0, [])] * 2
        assert any(device in line for line in ends[0][1]) and (workdir / "report.html").exists()
        for name in ("metrics.jsonl", "prior.json"):
            for found, expected in zip(numbers(workdir, name), numbers(alone, name), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("job", STREAMED)
def test_two_processes_read_their_shares_of_streamed_images(
    job: str, tmp_path: Path, noise_images: Callable[[str], Path]
):
    folder, workdir, alone = noise_images("png"), tmp_path / "run", tmp_path / "alone"
    broken = [f"train/dark/{i:02d}.png" for i in range(0, 20, 5)]
    if job == "train":
        # The sixth of ten to be tested, in batches of eight: process 1 alone comes to it, once.
        broken.append("val/light/00.png")
    for name in broken:
        (folder / name).write_bytes(b"no image")
    command = [*STREAMED[job], f"--config.data_dir={folder}"]
    assert main.main([*command, f"--workdir={alone}"]) == 0
    pair = Pair(command, workdir)
    pair.signal(1, signal.SIGTERM, 2)
    assert [code for code, _, _ in pair.end()] == [128 + signal.SIGTERM] * 2
    ends = Pair(command, workdir).end()
    assert [(code, said) for code, _, said in ends] == [(0, [])] * 2
    for name in ("metrics.jsonl", *(("prior.json",) if job == "search" else ())):
        for found, expected in zip(numbers(workdir, name), numbers(alone, name), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    unreadable = [json.loads((each / "unreadable.json").read_text()) for each in (workdir, alone)]
    assert unreadable[0] == unreadable[1] == broken
    results = [json.loads((each / "result.json").read_text()) for each in (workdir, alone)]
    assert results[0]["unreadable"] == results[1]["unreadable"]
    accuracies = [result["test_accuracy" if job == "train" else "valid_accuracy"] for result in results]
    assert accuracies[0] == accuracies[1]


@pytest.mark.slow
def test_processes_that_were_told_different_things_do_not_begin(tmp_path: Path):
    (first, _, said), (second, _, told) = Pair(TRAINING, tmp_path / "run", "--config.seed=1").end()
    assert first == second == 2 and len(said) == len(told) == 1
    assert "process 1 of 2 has stopped" in said[0]
    assert told[0].startswith("error: process 1 of 2: the command, or a setting that it leads to, is another")


class Same:
    """Turns of a name that are the same for two threads as they would be in two processes: there is one."""

    def __next__(self) -> int:
        return 0


def run_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)


def start_in_threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes threads of this process look like two processes with a store in common."""
    own, store, lock = threading.local(), {}, threading.Lock()

    class Store:
        def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
            with lock:
                store[key] = value

        def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
            with lock:
                return [(key, value) for key, value in store.items() if key.startswith(f"{folder}/")]

        def key_value_try_get(self, key: str) -> str:
            with lock:
                if key not in store:
                    raise RuntimeError(f"NOT_FOUND: {key}")
                return store[key]

    monkeypatch.setattr(agreement, "store", Store)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: own.index)
    return own


@pytest.mark.parametrize("seed", range(6))
def test_all_save_and_stop_after_the_same_step(monkeypatch: pytest.MonkeyPatch, seed: int):
    """However far one is behind the other, which is two steps at most: a step ends where both have begun it."""
    own, begun, changed = start_in_threads(monkeypatch), [0, 0], threading.Condition()
    agreements = [Agreement() for _ in range(2)]
    for each in agreements:
        each._folder, each._key = "due", "due/0"
    saved: list[list[tuple[int, int | None]]] = [[], []]

    def wait(step: int | None) -> None:
        with changed:
            changed.wait_for(lambda: step is None or min(begun) >= step, timeout=20)

    monkeypatch.setattr(jax, "block_until_ready", wait)

    def work(index: int) -> None:
        own.index, slow = index, random.Random(f"{seed} {index}")
        asked = signal.SIGTERM if index == seed % 2 else None
        for step in range(60):
            if slow.random() < 0.3:
                time.sleep(0.01 * slow.random())
            with changed:
                begun[index] = step + 1
                changed.notify_all()
            # Before this step ends, but after the one before did.
            own_clock, signalled = index == 0 and step == 10, asked if step >= 30 else None
            if agreements[index].due(step + 1, own_clock, signalled, step or None):
                stops = agreements[index].signal(signalled)
                saved[index].append((step + 1, stops))
                if stops is not None:
                    return

    run_threads(work)
    assert saved[0] == saved[1]
    first, (last, number) = saved[0]
    assert first == (11 + agreement._LEAD, None) and number == signal.SIGTERM and 31 <= last <= 36


@pytest.mark.parametrize("asked", [(0, "due"), (1, "due"), (0, "last"), (1, "last"), None])
def test_all_or_none_stop_after_the_last_step(monkeypatch: pytest.MonkeyPatch, asked: tuple[int, str] | None):
    """Whichever is asked, as late as while the last step is saved."""
    own, found = start_in_threads(monkeypatch), [0, 0]
    monkeypatch.setattr(jax, "block_until_ready", lambda before: None)
    monkeypatch.setattr(agreement, "_turns", {name: Same() for name in ("due", "last signal")})

    def work(index: int) -> None:
        own.index, agreed = index, Agreement()
        agreed.due(5, False, signal.SIGTERM if asked == (index, "due") else None, None)
        found[index] = agreed.last_signal(signal.SIGTERM if asked in ((index, "due"), (index, "last")) else None)

    run_threads(work)
    assert found == [signal.SIGTERM if asked else None] * 2


def test_what_was_met_before_ends_no_run(tmp_path: Path):
    """A file system that was away for a minute, say."""
    (tmp_path / "unreadable.json").write_text('["a", "b", "c"]')
    known = Unreadable(tmp_path, 2)
    known.gather()
    assert known.told() == {"count": 3, "files": "a, b, c"}


def test_process_0_gathers_what_the_others_could_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    own = start_in_threads(monkeypatch)
    for name in ("other", ""):
        (tmp_path / name).mkdir(exist_ok=True)
    own.index = 1
    Unreadable(tmp_path / "other", 2).add(["b"])
    own.index = 0
    first = Unreadable(tmp_path, 2)
    first.add(["a"])
    first.gather()
    assert first.names == ["a", "b"]
    own.index = 1
    Unreadable(tmp_path / "other", 2).add(["c"])
    own.index = 0
    with pytest.raises(UserError, match="3 unreadable files, more than config"):
        first.gather()
    assert first.names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--config=digits_search"], "a search by scores, additive on train has one process"),
        (["--config=nb201_compare"], "config nb201_compare has one process"),
        (["--config=images"], "config images has one process"),
        (["--config=digits_search:quick", "--transfer_to=digits_search:quick"], "a transfer has one process"),
    ],
)
def test_jobs_of_one_process_are_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    assert main.main([*words, "--multihost"]) == 2
    told = capsys.readouterr().err
    assert says in told and "--multihost is for" in told and len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({ADDRESS: "here:1", COUNT: "2"}, f"the environment has {ADDRESS}, {COUNT} and no {INDEX}"),
        ({ADDRESS: "here:1", COUNT: "two", INDEX: "0"}, f"{COUNT}=two is no whole number"),
        ({ADDRESS: "here:1", COUNT: "2", INDEX: "2"}, f"{INDEX}=2 must be below {COUNT}=2"),
        ({ADDRESS: "here", COUNT: "2", INDEX: "0"}, f"{ADDRESS}=here must be HOST:PORT"),
        ({}, "finds no scheduler here (SLURM, Open MPI, Kubernetes or Cloud TPU); set"),
    ],
)
def test_an_environment_that_names_no_processes_is_told(
    environment: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if not environment:
        # In this process JAX has begun already, and says that first.
        from jax._src.clusters import ClusterEnv

        monkeypatch.setattr(jax.distributed, "initialize", lambda **how: _unset(ClusterEnv))
    assert main.main([*TRAINING, f"--workdir={tmp_path / 'run'}", "--multihost"]) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def _unset(clusters: Any) -> None:
    found = clusters.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert found == (None,) * 4
    raise ValueError("coordinator_address should be defined.")
