"""Several processes that work on one run, each with devices of its own, joined by `jax.distributed`.

All run the same programs in the same order, because a step needs all the devices. Process 0 alone works in the run
directory and speaks; the others do its work beside it in a folder that is thrown away, and say nothing but errors. What
could differ among them is agreed on through the key-value store of JAX's coordination service, which process 0 holds:
what a run goes on from is what process 0 found, and all save or stop after the same step.

A process that dies would leave the others waiting in a sum over all devices. So each tells the store every second that
it lives, and a thread in each ends its process with a line once another has been silent for half a minute. Where
process 0 dies, and the store with it, JAX aborts the others at once with a page of its own; the same line replaces it.
"""

import contextlib
import ctypes
import hashlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

# Private: JAX has no other way to the store.
from jax._src import distributed
from jax.experimental import multihost_utils

from parsec.errors import UserError, one_line
from parsec.run.signals import StoppedError
from parsec.run.terminal import outcome, say

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

_BEAT_SECONDS = 1.0
# Silence after which a process counts as dead, and where something has failed already, as where a sum lost a device.
_PATIENCE_SECONDS, _SUSPICIOUS_SECONDS = 30.0, 8.0
# JAX's own, which ends this process where the store does not even refuse to answer; longer than that patience.
_HEARTBEAT_SECONDS = 45
# What a process that ends before the others tells in place of its beat.
_LEFT = "left"
# Time for the others to come to the end of a run that was stopped.
_FAREWELL_SECONDS = 10.0
# Steps from one at which process 0 says that all are to save, to the one after which they do; see `Agreement`.
_LEAD = 2


def run_together(run: Callable[[Path], Any], path: Path, command: str, finished: bool) -> None:
    """Runs a job in all processes; returns in each when all are at its end.

    Args:
      run: `run(directory)` does this process's part.
      path: the run directory, process 0's.
      command: what all processes must have been told alike, as text.
      finished: whether the run directory holds a finished run, so that process 0 has only to report it.

    Raises:
      UserError: the processes do not find each other.
      StoppedError: of process 0, when any was asked to stop; the state is saved. The others end with the exit code.

    Any other error of one process ends that process here, with its line and exit code, and so do the others within a
    minute.
    """
    index, count = _join()
    directory = path if index == 0 else Path(tempfile.mkdtemp(prefix="parsec-process-"))
    watch = _Watch(index, count, directory if index else None)
    stopped = None
    if index:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with watch:
            digest = hashlib.sha256(command.encode()).hexdigest()
            if from_first("command", digest) != digest:
                raise UserError("the command, or a setting that it leads to, is another than that of process 0")
            if from_first("finished", str(finished)) == "False" or index == 0:
                try:
                    run(directory)
                except StoppedError as error:
                    stopped = error
            if not wait_for_all("end", None if stopped is None else _FAREWELL_SECONDS) and stopped is not None:
                raise stopped
        jax.distributed.shutdown()
    except BaseException as error:
        watch.leave(error)
    finally:
        watch.clear()
    if stopped is not None:
        raise stopped if index == 0 else SystemExit(128 + stopped.signal)


def from_first(name: str, value: str) -> str:
    """Returns what process 0 says under a name, its `value`; the others wait for it. One process is its own first."""
    if jax.process_count() == 1:
        return value
    key = f"parsec/first/{name}/{next(_turns[name])}"
    if jax.process_index() == 0:
        _store().key_value_set(key, value)
        return value
    while (found := _find(key)) is None:
        time.sleep(0.05)
    return found


def bytes_from_first(content: bytes) -> bytes:
    """Returns the content that process 0 gives; the others give one of the same length."""
    if jax.process_count() == 1:
        return content
    # As whole words: the sum that it is broadcast by would widen bytes fourfold.
    words = np.frombuffer(content + bytes(-len(content) % 4), np.uint32)
    found = np.asarray(multihost_utils.broadcast_one_to_all(words)).astype(np.uint32)
    return found.tobytes()[: len(content)]


def wait_for_all(name: str, seconds: float | None = None) -> bool:
    """Returns True once all processes have come here, or False where that takes longer."""
    if jax.process_count() == 1:
        return True
    folder, began = f"parsec/wait/{name}/{next(_turns[name])}", time.monotonic()
    _store().key_value_set(f"{folder}/{jax.process_index()}", "")
    while len(_store().key_value_dir_get(folder)) < jax.process_count():
        if seconds is not None and time.monotonic() - began > seconds:
            return False
        time.sleep(0.05)
    return True


def check_same(name: str, value: str) -> None:
    """Raises `UserError` where this process found something else than process 0."""
    if from_first(name, value) != value:
        raise UserError(f"the {name} of this process are others than those of process 0; give all processes the same")


class Agreement:
    """After which steps a run is saved or stopped: the same in all processes, though clocks and signals are each's own.

    Process 0 decides, and says so `_LEAD` steps ahead. Nobody can miss it: a process that has begun step i waits for
    the end of step i - 1, which process 0 has begun too, and not before it said what it says beside step i - 2.
    """

    def __init__(self) -> None:
        self._folder = f"parsec/due/{next(_turns['due'])}"
        self._said, self._asked = itertools.count(), False
        self._next: tuple[int, int] | None = None
        self._signal: int | None = None
        self._key = f"{self._folder}/{next(self._said)}"

    def due(self, done: int, save: bool, signal: int | None, before: Any) -> bool:
        """Returns whether the run is to be saved now that `done` steps were taken.

        Args:
          done: number of steps taken.
          save: whether this process's clock says that it is time.
          signal: that asked this process to stop, or None.
          before: what the last step but one computed, or None at the first.
        """
        if jax.process_count() == 1:
            return save or signal is not None
        jax.block_until_ready(before)
        if jax.process_index():
            self._ask(signal)
            if self._next is None and (said := _find(self._key)) is not None:
                step, number = said.split()
                self._next = int(step), int(number)
        elif self._next is None:
            asked = [signal or 0, *(int(value) for _, value in _store().key_value_dir_get(f"{self._folder}/asked"))]
            if save or any(asked):
                self._next = done + _LEAD, max(asked)
                _store().key_value_set(self._key, f"{self._next[0]} {self._next[1]}")
        if self._next is None or done != self._next[0]:
            return False
        self._signal, self._next, self._key = self._next[1] or None, None, f"{self._folder}/{next(self._said)}"
        return True

    def signal(self, own: int | None) -> int | None:
        """Returns the signal that stops the run where it was saved just now, or None where it goes on."""
        return own if jax.process_count() == 1 else self._signal

    def _ask(self, signal: int | None) -> None:
        if signal is not None and not self._asked:
            _store().key_value_set(f"{self._folder}/asked/{jax.process_index()}", str(signal))
            self._asked = True


class _Watch:
    """Tells the others that this process lives, and ends it when one of them does not; a context manager."""

    def __init__(self, index: int, count: int, folder: Path | None) -> None:
        self._index, self._count, self._folder = index, count, folder
        self._patience, self._over, self._telling = _PATIENCE_SECONDS, threading.Event(), threading.Lock()
        # What libraries write beside Python, until it is known to be more than that a process died.
        self._said = os.memfd_create("said") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
        # Kept here, because the C library does not.
        self._answer = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)

    def __enter__(self) -> None:
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors=sys.stderr.errors)
        os.dup2(self._said, 2)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._answer)
        threading.Thread(target=self._run, daemon=True).start()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._over.set()
            self._repeat()

    def leave(self, error: BaseException) -> None:
        """Ends this process for an error, as `main.py` would, once the others can know; or for a death behind it."""
        answered = outcome(error, None)
        if answered is None:
            # Where a process died, the thread ends this one meanwhile.
            self._patience = _SUSPICIOUS_SECONDS
            time.sleep(2 * _SUSPICIOUS_SECONDS)
        self._over.set()
        self._repeat()
        if answered is None:
            traceback.print_exception(error)
        else:
            whose = f"error: process {self._index} of {self._count}: "
            say(answered[1].replace("error: ", whose, 1) if self._index else answered[1])
        with self._telling, contextlib.suppress(Exception):
            _store().key_value_set(f"{_BEATS}/{self._index}", _LEFT, allow_overwrite=True)
            # The store ends with process 0.
            time.sleep(0 if self._index else 3 * _BEAT_SECONDS)
        self._end(1 if answered is None else answered[0])

    def clear(self) -> None:
        """Removes what this process alone has written."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self) -> None:
        last = {str(process): ("", time.monotonic()) for process in range(self._count)}
        for beat in itertools.count():
            # Process 0 is gone, or going, where this fails: then it is silent.
            with contextlib.suppress(Exception), self._telling:
                if self._over.is_set():
                    return
                _store().key_value_set(f"{_BEATS}/{self._index}", str(beat), allow_overwrite=True)
                for key, told in _store().key_value_dir_get(_BEATS):
                    process = key.rpartition("/")[2]
                    if told != last[process][0]:
                        last[process] = told, time.monotonic()
            for process, (told, since) in last.items():
                if told == _LEFT:
                    self._stop(process, "has stopped")
                if time.monotonic() - since > self._patience and process != str(self._index):
                    self._stop(process, "has died or cannot be reached")
            self._over.wait(_BEAT_SECONDS)

    def _stop(self, process: str, what: str) -> None:
        if not self._over.is_set():
            say(
                f"error: process {process} of {self._count} {what}, so process {self._index} stops; start all of them "
                "again, and the same command resumes from the last checkpoint"
            )
            self._end(2)

    def _aborted(self, number: int) -> None:
        """Answers that this process is being aborted, by JAX when it cannot reach the store any more."""
        if self._over.is_set() or "distributed service detected fatal errors" not in self._captured():
            self._repeat()
            self._end(128 + number)
        self._stop("0", "has died or cannot be reached")

    def _captured(self) -> str:
        return os.pread(self._said, os.fstat(self._said).st_size, 0).decode(errors="replace")

    def _repeat(self) -> None:
        say(self._captured().rstrip())

    def _end(self, code: int) -> None:
        self.clear()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        # Not in the usual way: JAX would wait for the others.
        os._exit(code)


_BEATS = "parsec/beat"
# How often each name was used so far, which is the same in all processes.
_turns: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def _join() -> tuple[int, int]:
    """Joins the processes and returns the number of this one and of all; raises `UserError`."""
    given: dict[str, Any] = {name: os.environ[name] for name in (ADDRESS, COUNT, INDEX) if os.environ.get(name)}
    if given and len(given) < 3:
        missing = next(name for name in (ADDRESS, COUNT, INDEX) if name not in given)
        raise UserError(f"--multihost: the environment has {', '.join(given)} and no {missing}; give all three or none")
    for name in given.keys() & {COUNT, INDEX}:
        if not given[name].isdecimal():
            raise UserError(f"--multihost: {name}={given[name]} is no whole number")
        given[name] = int(given[name])
    if given and given[INDEX] >= given[COUNT]:
        raise UserError(f"--multihost: {INDEX}={given[INDEX]} must be below {COUNT}={given[COUNT]}")
    if given and not given[ADDRESS].rpartition(":")[2].isdecimal():
        raise UserError(f"--multihost: {ADDRESS}={given[ADDRESS]} must be HOST:PORT, of process 0")
    # It would take over SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if given:
            jax.distributed.initialize(
                given[ADDRESS],
                given[COUNT],
                given[INDEX],
                cluster_detection_method="deactivate",
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            )
        else:
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    except ValueError as error:
        raise UserError(
            "--multihost finds no scheduler here (SLURM, Open MPI, Kubernetes or Cloud TPU); set "
            f"{ADDRESS}=HOST:PORT of process 0, {COUNT} and, from 0 on, {INDEX} ({one_line(error)})"
        ) from error
    except RuntimeError as error:
        raise UserError(f"--multihost: the processes do not find each other: {one_line(error)}") from error
    return distributed.global_state.process_id, distributed.global_state.num_processes


def _store() -> Any:
    return distributed.global_state.client


def _find(key: str) -> str | None:
    """Returns the value of a key in the store, or None where there is none yet."""
    try:
        return _store().key_value_try_get(key)
    except RuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None
