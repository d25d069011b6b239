"""Several processes that work on one run, each with devices of its own, joined by `jax.distributed`.

All run the same programs in the same order, because a step needs all the devices. Process 0 alone works in the run
directory and speaks; the others do its work beside it in a folder that is thrown away, and say nothing but errors. What
could differ among them is agreed on (`parsec.run.agreement`).

A process that dies would leave the others waiting in a sum over all devices. So each tells the store, which process 0
holds, every second that it lives, and a thread in each ends its process with a line once another has been silent for
half a minute. Where process 0 dies, and the store with it, JAX aborts the others at once with a page of its own; the
same line replaces it.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from parsec.errors import UserError, one_line
from parsec.run.agreement import from_first, joined, store, wait_for_all
from parsec.run.signals import StoppedError, last_acts
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
    _join()
    index, count = joined()
    directory = path if index == 0 else Path(tempfile.mkdtemp(prefix="parsec-process-"))
    watch = _Watch(index, count, directory if index else None)
    last_acts.append(watch.clear)
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
            store().key_value_set(f"{_BEATS}/{self._index}", _LEFT, allow_overwrite=True)
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
                store().key_value_set(f"{_BEATS}/{self._index}", str(beat), allow_overwrite=True)
                for key, told in store().key_value_dir_get(_BEATS):
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


def _join() -> None:
    """Joins the processes; raises `UserError`."""
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
