"""Commands in processes of their own, which tests stop and start again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(*words: str) -> "subprocess.Popen[str]":
    """Returns the process of `python main.py` with these words."""
    command, environment = [sys.executable, str(ROOT / "main.py"), *words], os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Returns what a process wrote to its output and as errors; it has to end with exit code 0."""
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return output, errors


def stop_after(lines: int, process: "subprocess.Popen[str]", workdir: Path, how: int = signal.SIGKILL) -> None:
    """Sends a signal once a run has so many lines of metrics; it has to end by that, without a result."""
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < lines):
        time.sleep(0.02)
    process.send_signal(how)
    process.communicate(timeout=600)
    assert process.returncode == (-9 if how == signal.SIGKILL else 128 + how)
    assert not (workdir / "result.json").exists()


def assert_same_bytes(one: Path, other: Path, names: tuple[str, ...]) -> None:
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
