"""What a run shows while it works: what it is about to do, then a bar on a terminal or plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Reading a value waits for the device, so values are looked at no more often than a person can follow.
_REDRAW_SECONDS = 0.2


def announce(title: str, rows: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Prints a title and a short table of name and value: what a run will do, or what it found.

    Args:
      title: one line.
      rows: name -> value, shown in order.
      console: where to print; standard output by default.
    """
    # A path may hold what the library takes for markup.
    heading = Text(title, style="bold")
    table = Table(title=heading, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(Text(name), Text(str(value)))
    (console or Console(highlight=False)).print(table)


class Progress:
    """Progress over a known number of steps; a context manager that leaves the terminal as it was, whatever happens."""

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        label: str = "",
        every_seconds: float = 10.0,
        console: Console | None = None,
    ) -> None:
        """Prepares to show progress.

        Args:
          total: number of steps.
          start: steps finished before, by the process that this one resumes.
          label: what the steps are, such as "searching".
          every_seconds: time between lines where the output is no terminal.
          console: where to show it; standard output by default.
        """
        self.total, self.start, self.label, self.every_seconds = total, start, label, every_seconds
        self.console = console or Console(highlight=False)
        self._bar: bars.Progress | None = None
        self._began = self._shown = time.monotonic()
        # The step and time from which the pace is taken.
        self._paced: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._shown = -float("inf")
        if self.console.is_terminal:
            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=24),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[values]}"),
                bars.TextColumn("[dim]{task.fields[left]}"),
                console=self.console,
            )
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.start, values="", left="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows that `step` steps are finished, and the scalars among the values; most calls return at once."""
        now = time.monotonic()
        # The first step carries the compilation, and a resumed run may repeat earlier ones: neither says anything about
        # the rest, so the pace is taken from the end of the first step of this process, whether it is shown or not.
        if self._paced is None or step <= self.start + 1:
            self._paced = step, now
        pause = self.every_seconds if self._bar is None else _REDRAW_SECONDS
        if now - self._shown < pause and step < self.total:
            return
        self._shown = now
        text = "  ".join(f"{name} {_short(value)}" for name, value in values.items() if np.ndim(value) == 0)
        left = self._left(step, now, *self._paced)
        if self._bar is None:
            self.console.print(f"{self.label} {step}/{self.total}  {text}  {left}".strip(), soft_wrap=True)
        else:
            self._bar.update(self._task, completed=step, values=text, left=left)

    def note(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(text, soft_wrap=True, markup=False)

    def _left(self, step: int, now: float, first: int, since: float) -> str:
        if step >= self.total:
            return f"took {_clock(now - self._began)}"
        return f"{_clock((now - since) / (step - first) * (self.total - step))} left" if step > first else ""


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    number = float(value)
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e6 else f"{number:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
