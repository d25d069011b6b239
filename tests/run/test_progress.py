"""What a run shows: a table first, plain lines where there is no terminal, a bar where there is one."""

import io

import jax.numpy as jnp
import pytest
from rich.console import Console

from parsec.run.progress import Progress, announce


def plain() -> Console:
    return Console(file=io.StringIO(), width=100, highlight=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_announce_prints_a_row_for_each_name():
    console = plain()
    announce("PARSEC [v2]", {"space": "darts", "children": 16, "folder": "/a[v2]/b[/c]"}, console=console)
    lines = [line.split() for line in printed(console).splitlines()]
    assert lines == [["PARSEC", "[v2]"], ["space", "darts"], ["children", "16"], ["folder", "/a[v2]/b[/c]"]]


def test_plain_lines_come_at_intervals_and_always_at_the_end(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("parsec.run.progress.time.monotonic", lambda: now[0])
    console = plain()
    with Progress(100, label="searching", every_seconds=10, console=console) as progress:
        for step in range(1, 101):
            now[0] += 1
            progress.update(step, {"loss": jnp.float32(1.23456), "K": 16, "weights": [1.0]})
    lines = printed(console).splitlines()
    assert len(lines) == 11
    assert lines[1] == "searching 11/100  loss 1.235  K 16  1:29 left"
    assert lines[-1] == "searching 100/100  loss 1.235  K 16  took 1:40"


def test_time_left_of_a_resumed_run_counts_only_its_own_steps_and_no_compilation(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("parsec.run.progress.time.monotonic", lambda: now[0])
    console = plain()
    with Progress(110, start=100, every_seconds=0, console=console) as progress:
        progress.update(99, {})
        now[0] = 10.0
        progress.update(100, {})
        now[0] = 90.0
        progress.update(101, {})
        now[0] = 95.0
        progress.update(106, {})
    expected = "99/110 100/110 101/110 106/110 0:04 left"
    assert printed(console).split() == expected.split()


def test_steps_that_were_not_shown_and_only_repeated_do_not_set_the_pace(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("parsec.run.progress.time.monotonic", lambda: now[0])
    console = plain()
    with Progress(110, start=100, every_seconds=10, console=console) as progress:
        for step in range(1, 101):
            progress.update(step, {})
        now[0] = 5.0
        progress.update(101, {})
        now[0] = 15.0
        progress.update(102, {})
    assert printed(console).splitlines()[-1] == "102/110    1:20 left"


def test_a_terminal_gets_a_bar_and_is_restored_after_an_error():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False)
    with pytest.raises(RuntimeError), Progress(4, label="searching", console=console) as progress:
        progress.update(2, {"loss": 0.5})
        progress.note("a [note]")
        raise RuntimeError
    text = printed(console)
    assert "2/4" in text
    assert "loss 0.5" in text
    assert "a [note]" in text
    # The cursor that the bar hid is shown again.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
