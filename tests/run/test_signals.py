"""SIGTERM and Ctrl-C ask; a second one acts; the handlers of before come back."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parsec.run import signals
from parsec.run.signals import INTERRUPTED, StoppedError, answer_signals, graceful_stop

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_once_and_the_old_handlers_return(number: int):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with graceful_stop() as stop:
        stop.heed(3)
        assert signal.getsignal(number) is not before[0]
        signal.raise_signal(number)
        assert stop.signal == number
        with pytest.raises(StoppedError, match="after step 3, saved"):
            stop.heed(3)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.fixture
def python_interrupts() -> Iterator[None]:
    """Ctrl-C as Python begins with it; a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_interrupts")
def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), graceful_stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with graceful_stop() as stop:
            seen.append((stop.signal, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_the_error_says_what_asked_and_where_it_stopped():
    assert str(StoppedError(signal.SIGTERM, 12)) == "stopped by SIGTERM after step 12, saved"


# A config whose import, or whose job, is under way when the signal comes.
UNDER_WAY = """
import hashlib, sys, threading, time
from dataclasses import dataclass
from typing import ClassVar
from parsec.config import option
from parsec.run.signals import last_acts

@dataclass(frozen=True)
class Busy:
    JOB: ClassVar[str] = "busy:run"

def get_config(variant=""):
    if variant == "import":
        busy("sleep")
    return Busy() if variant == "library" else Other() if variant == "lost" else Stopping()

@dataclass(frozen=True)
class Other(Busy):
    pass

@dataclass(frozen=True)
class Stopping(Busy):
    pass

class Lost:
    def __del__(self):
        busy("sleep")

def busy(how):
    if how == "sleep":
        print("busy", flush=True)
        time.sleep(60)
    else:
        # Said once the main thread is in it.
        threading.Timer(0.3, print, ("busy",), {"flush": True}).start()
        # As a compiler does: minutes without a step of Python's.
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def run(config, workdir):
    if type(config) is Busy:
        last_acts.append(lambda: open("acted", "w").close())
        busy("library")
    if type(config) is Other:
        Lost()
        time.sleep(60)
    from parsec.run.signals import graceful_stop
    with graceful_stop(at_stake=False):
        busy("library")
"""


@pytest.mark.parametrize(
    ("under_way", "number"),
    [
        ("import", signal.SIGINT),
        ("import", signal.SIGTERM),
        ("library", signal.SIGTERM),
        ("lost", signal.SIGINT),
        ("first_step", signal.SIGINT),
    ],
)
def test_a_signal_is_answered_whatever_is_under_way(tmp_path: Path, number: int, under_way: str):
    (tmp_path / "busy.py").write_text(UNDER_WAY)
    words = [sys.executable, str(ROOT / "main.py"), f"--config=busy.py:{under_way}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "busy\n"
        command.send_signal(number)
        try:
            _, error = command.communicate(timeout=20)
        finally:
            command.kill()
    assert command.returncode == 128 + number
    assert error == f"{INTERRUPTED}\n"
    assert (tmp_path / "acted").exists() == (under_way == "library")


def test_handlers_and_hooks_of_before_return():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), answer_signals() as answer:
        signal.raise_signal(signal.SIGTERM)
    assert (answer.signal, answer.over) == (signal.SIGTERM, True)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert sys.unraisablehook is hook


def test_work_at_stake_is_left_to_the_loop(monkeypatch: pytest.MonkeyPatch):
    ended = []
    monkeypatch.setattr(signals, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(signals, "_end", ended.append)
    with answer_signals() as answer:
        with graceful_stop() as stop:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.3)
            assert (stop.signal, ended) == (signal.SIGINT, [])
        with graceful_stop(at_stake=False) as stop:
            signal.raise_signal(signal.SIGTERM)
            deadline = time.monotonic() + 30
            while not ended and time.monotonic() < deadline:
                time.sleep(0.01)
            assert (stop.signal, ended) == (signal.SIGTERM, [signal.SIGTERM])
    assert answer.signal is None
