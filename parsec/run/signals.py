"""Stopping cleanly: SIGTERM and Ctrl-C ask the loop to save and leave; a second one stops at once.

Python runs a signal's handler between two steps of its own, so a handler waits as long as a library compiles, and what
it raises inside a library's callback is lost. So a thread watches as well, told of signals by the operating system
itself: where nothing is at stake, and the process has not ended within a moment, the thread ends it.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# What main.py prints when a signal ended it where there was nothing to save.
INTERRUPTED = "interrupted; the same command resumes from the last checkpoint"
# Time that the process has to end by itself, as it does where a handler can run.
_PATIENCE_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """A run was asked to stop, has saved, and can be resumed; `signal` is what asked."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}, saved")
        self.signal = number
        self.step = step


class Stop:
    """Whether a stop was asked for.

    Attributes:
      signal: None until a signal asks, and its number after.
      at_stake: whether there is work that stopping at once would lose.
    """

    def __init__(self, at_stake: bool) -> None:
        self.signal: int | None = None
        self.at_stake = at_stake

    def heed(self, done: int) -> None:
        """Raises `StoppedError`, after so many steps, where a stop was asked for; what they did must be saved."""
        if self.signal is not None:
            raise StoppedError(self.signal, done)


class Answer:
    """What signals asked of this process outside a `graceful_stop`.

    Attributes:
      signal: number of the last that interrupted it, or None.
      over: whether the process ends by itself now.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.over = False


# What is done before the process is ended from here, where no `finally` runs.
last_acts: list[Callable[[], None]] = []

# The `graceful_stop` that is entered, as signals are the process's; None outside.
_entered: Stop | None = None


@contextlib.contextmanager
def answer_signals() -> Iterator[Answer]:
    """Answers SIGTERM and Ctrl-C from here on, even while a library compiles: with an exit code of 128 + signal.

    A signal raises `KeyboardInterrupt`, or sets the `Stop` of a `graceful_stop` that is entered. Where neither ends the
    process in a moment and nothing is at stake, its children are ended, a line is printed, and the process exits.
    Outside the main thread, where Python allows no handlers, nothing is changed.
    """
    answer = Answer()
    if threading.current_thread() is not threading.main_thread():
        yield answer
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    unraisable = sys.unraisablehook

    def interrupt(number: int, frame: FrameType | None) -> None:
        answer.signal = number
        raise KeyboardInterrupt

    def quiet(lost: Any) -> None:
        # An interrupt that a callback swallowed; the thread answers it.
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            unraisable(lost)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    told = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, answer), daemon=True).start()
    sys.unraisablehook = quiet
    for number in _SIGNALS:
        signal.signal(number, interrupt)
    try:
        yield answer
    finally:
        answer.over = True
        for number, handler in before.items():
            signal.signal(number, handler)
        # Unless another was put before it meanwhile, which may have to stay until the very end.
        if sys.unraisablehook is quiet:
            sys.unraisablehook = unraisable
        signal.set_wakeup_fd(told)
        # The thread closes the other end when this one is gone.
        os.close(writer)


@contextlib.contextmanager
def graceful_stop(*, at_stake: bool = True) -> Iterator[Stop]:
    """Yields a `Stop` that SIGTERM and Ctrl-C set; the loop tests it after each step, saves and raises `StoppedError`.

    The handlers that were there before are restored at the end, and by the first signal, so that a second one acts at
    once. Outside the main thread, where Python allows no handlers, the `Stop` is never set.

    Args:
      at_stake: whether there is work to lose from the start; where there is none, set `Stop.at_stake` once there is.
    """
    global _entered
    stop = Stop(at_stake)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    outer, _entered = _entered, stop
    try:
        for number in before:
            signal.signal(number, ask)
        yield stop
    finally:
        _entered = outer
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(reader: int, answer: Answer) -> None:
    """Ends the process where a signal has not ended it in a moment, and no `Stop` with work at stake took it."""
    served: Stop | None = None
    with open(reader, "rb", buffering=0) as told:
        while told_of := told.read(1):
            number, stop = told_of[0], _entered
            if number not in _SIGNALS:
                continue
            # A `Stop` takes one signal; the next is for whoever is impatient.
            taken = stop is not None and stop is not served
            served = stop
            time.sleep(_PATIENCE_SECONDS)
            if answer.over:
                return
            if stop is None or not taken or not stop.at_stake:
                _end(number)


def _end(number: int) -> None:
    # Imported here: a command that is only answered need not wait for it.
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()
    for act in last_acts:
        with contextlib.suppress(Exception):
            act()
    with contextlib.suppress(OSError, ValueError):
        # A progress bar hides the cursor.
        shown = "\x1b[?25h" if sys.stdout.isatty() else ""
        os.write(sys.stderr.fileno(), f"{shown}{INTERRUPTED}\n".encode())
    os._exit(128 + number)
