"""Stopping cleanly: SIGTERM and Ctrl-C ask the loop to save and leave; a second Ctrl-C stops at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StoppedError(Exception):
    """A run was asked to stop, has saved, and can be resumed; `signal` is what asked."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}, saved")
        self.signal = number
        self.step = step


class Stop:
    """Whether a stop was asked for; `signal` is None until then, and the signal's number after."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Yields a `Stop` that SIGTERM and Ctrl-C set; the loop tests it after each step, saves and raises `StoppedError`.

    The handlers that were there before are restored at the end, and by the first signal, so that a second one acts at
    once. Outside the main thread, where Python allows no handlers, the `Stop` is never set.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    try:
        for number in before:
            signal.signal(number, ask)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
