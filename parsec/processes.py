"""Processes that work for this one: they leave Ctrl-C to it, and end when it does, however that is."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process


@contextmanager
def leaving_interrupts() -> Iterator[None]:
    """Processes that `multiprocessing` starts inside do not hear a Ctrl-C: they inherit what is blocked here.

    Its `resource_tracker` must be running: to start it would unblock the signal.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Has this process end when the one that started it through `multiprocessing` does; no other is changed."""
    parent = parent_process()
    if parent is None:
        return

    def end_too() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_too, daemon=True).start()
