"""Standard output in every state: what is lost is said in a line or not at all, never in a traceback."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.drawing import text_drawing
from parsec.errors import UserError
from parsec.run import terminal
from parsec.run.terminal import make_printable, outcome

ROOT = Path(__file__).parents[2]
LIST = [sys.executable, "main.py"]


def test_a_reader_that_leaves_ends_the_command_quietly():
    with subprocess.Popen(LIST, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_under_standard_output_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(LIST, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False)
        assert done.stderr == b"error: cannot write to standard output: No space left on device\n"
        assert done.returncode == 2
        wrong = subprocess.run([*LIST, "--config=x"], cwd=ROOT, stdout=subprocess.PIPE, stderr=full, check=False)
        assert (wrong.returncode, wrong.stdout) == (2, b"")


def test_closed_standard_output_is_no_error():
    command = ["/bin/sh", "-c", f"exec {sys.executable} main.py >&-"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_drawings_and_figures_are_written_in_what_the_terminal_has(monkeypatch: pytest.MonkeyPatch, encoding: str):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    make_printable()
    space = get_space("darts")
    drawn = "\n".join(text_drawing(space.decode(np.zeros(len(space.sizes), np.int32))))
    print(f"{drawn}\n93.2 ± 0.1 {chr(0x732B)}")
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    if encoding == "utf-8":
        assert text.startswith(drawn)
        return
    *lines, figures = text.splitlines()
    # Every sign of a drawing has a sign of its own, so the columns stay where they were.
    assert [len(line) for line in lines] == [len(line) for line in drawn.splitlines()]
    assert "?" not in "".join(lines)
    assert "+" in text
    assert "o" in text
    assert figures == ("93.2 +- 0.1 ?" if encoding == "ascii" else "93.2 ± 0.1 ?")


def test_an_interrupt_that_became_another_error_is_still_an_interrupt(monkeypatch: pytest.MonkeyPatch):
    assert outcome(ImportError("numpy failed to import"), 15) == (143, terminal.INTERRUPTED)
    assert outcome(KeyboardInterrupt(), None) == (130, terminal.INTERRUPTED)
    assert outcome(UserError("a\nb"), None) == (2, "error: a b")
    assert outcome(ValueError("a bug"), None) is None
    denied = PermissionError(errno.EACCES, "Permission denied", "a/b")
    assert outcome(denied, None) == (2, "error: cannot read or write 'a/b': Permission denied")
    assert outcome(FileNotFoundError(errno.ENOENT, "No such file", "a"), None) is None
    # An error of the system with standard output sound is a bug, or launch's to tell.
    assert outcome(OSError(os.EX_OSERR, "strange"), None) is None
