"""What a run measured: metrics.jsonl, the source of truth, and the same scalars as TensorBoard events.

metrics.jsonl holds one JSON object a line, `{"step": ..., name: value, ...}`, in step order and without clock times: a
run that was killed and resumed leaves the same bytes as one that was not. TensorBoard events may repeat after a resume
and may hold clock times.
"""

import contextlib
import importlib.util
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from parsec.files import read_bytes, writing
from parsec.run.lines import plain
from parsec.run.workdir import METRICS, TENSORBOARD, append, write_text_atomic

# Time after which events are handed to the disk.
_FLUSH_SECONDS = 30.0


class Sink(Protocol):
    """Where metrics go."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Takes the values measured at a step, by name."""
        ...

    def close(self) -> None:
        """Finishes writing."""
        ...


class MetricsFile:
    """A sink that appends to metrics.jsonl, one line a call, handed to the operating system before `write` returns."""

    def __init__(self, workdir: Path) -> None:
        self.path = workdir / METRICS

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends a line; values are scalars, text, or lists and arrays of numbers. A non-finite one becomes null."""
        append(self.path, format_line(step, values))

    def close(self) -> None:
        """Does nothing: every line is already written."""


class TensorBoard:
    """A sink that writes the scalars of each step as TensorBoard events; lists and text are left out."""

    def __init__(self, workdir: Path, *, from_step: int = 0) -> None:
        """Opens an event file.

        Args:
          workdir: the run directory; events go to its folder `tensorboard`.
          from_step: the step the run goes on from; TensorBoard hides what earlier files hold beyond it.
        """
        # Imported here: it takes seconds, and many runs write no events. The writer is the one beneath SummaryWriter,
        # whose thread prints a page of its own where the disk is full.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        # Its classes are made when it is imported, where no type checker sees them.
        proto: Any = event_pb2
        self._folder, self._event, self._flushed = workdir / TENSORBOARD, proto.Event, time.monotonic()
        with writing(self._folder):
            self._folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"))
            if from_step:
                start = proto.SessionLog(status=proto.SessionLog.START)
                self._writer.write_event(proto.Event(wall_time=time.time(), step=from_step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Adds the finite scalars among the values."""
        from tensorboardX.summary import scalar

        with writing(self._folder):
            for name, value in values.items():
                number = plain(value)
                if isinstance(number, int | float) and not isinstance(number, bool):
                    event = self._event(wall_time=time.time(), step=step, summary=scalar(name, number))
                    self._writer.write_event(event)
            # It waits for the disk, so not after every line.
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is still in memory and closes the file."""
        # metrics.jsonl holds the same, and says so where the disk is full.
        with contextlib.suppress(OSError):
            self._writer.close()


def has_tensorboard() -> bool:
    """Returns whether tensorboardX, which only TensorBoard events need, is installed."""
    return importlib.util.find_spec("tensorboardX") is not None


class Sinks:
    """Several sinks as one; a context manager that closes them all."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Passes the values to every sink."""
        for sink in self._sinks:
            sink.write(step, values)

    def close(self) -> None:
        """Closes every sink."""
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def format_line(step: int, values: Mapping[str, Any]) -> str:
    """Returns the line of metrics.jsonl for a step; equal numbers give equal text, shortest in their own precision."""
    return json.dumps({"step": int(step), **{name: plain(value) for name, value in values.items()}}) + "\n"


def truncate_after(workdir: Path, step: int) -> None:
    """Drops the lines of metrics.jsonl beyond a step, and those that were cut short or damaged.

    Args:
      workdir: the run directory.
      step: the step that the run resumes from; a negative one drops everything.
    """
    path = workdir / METRICS
    lines = _lines(path)
    kept = [line for line in lines if _step(line) <= step]
    if kept != lines:
        write_text_atomic(path, b"".join(kept).decode("utf-8"))


def count_lines(workdir: Path, step: int) -> int:
    """Returns how many whole lines metrics.jsonl has of the steps up to this one."""
    return sum(_step(line) <= step for line in _lines(workdir / METRICS))


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl in order; one that was cut short or damaged is left out."""
    return [json.loads(line) for line in _lines(workdir / METRICS) if math.isfinite(_step(line))]


def _lines(path: Path) -> list[bytes]:
    """Returns a file's lines with their ends, none where there is no file."""
    if not path.exists():
        return []
    return read_bytes(path).splitlines(keepends=True)


def _step(line: bytes) -> float:
    """Returns the step of a line; infinity for one that is not whole or is no line of ours: it is beyond every step."""
    try:
        step = json.loads(line.decode("utf-8"))["step"] if line.endswith(b"\n") else math.inf
    # Among others UnicodeDecodeError, which is a ValueError.
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf
