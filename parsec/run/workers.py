"""Many evaluations at once: workers, each of which makes the evaluator of a search for itself.

A worker is a process of this machine, or of a Ray cluster (`parsec.run.cluster`). Threads of an executor hand each of
them one evaluation after another. With a worker that dies, an evaluation is lost: it is begun again in a new one, once,
and where that dies too it has failed, as a training that diverges has. No other worker is disturbed, which is why each
has an executor of its own: a `ProcessPoolExecutor` gives up all that it holds when one of its processes dies.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.processes import leaving_interrupts
from parsec.run import worker
from parsec.run.worker import Make


class DiedError(Exception):
    """The process of a worker is gone, and what it was doing with it."""


class Worker(Protocol):
    """A process that scores architectures; whatever it is asked raises `DiedError` once it is gone."""

    def begin(self) -> tuple[str, ...]:
        """Makes its evaluator, and returns the names of its objectives."""
        ...

    def check(self) -> None:
        """Does nothing, where it is still there."""
        ...

    def evaluate(self, architectures: np.ndarray) -> np.ndarray:
        """Returns the scores of architectures int32 [B, L], float32 [B, M]."""
        ...

    def end(self) -> None:
        """Ends it, whatever it is doing."""
        ...


class Workers(NamedTuple):
    """Workers that are ready to evaluate.

    Attributes:
      evaluator: hands an evaluation to a worker that is free, and waits for it; for a thread of the pool.
      pool: has a thread for each worker.
      size: of them.
      notes: what happened to them, in lines to be shown.
    """

    evaluator: Evaluator
    pool: Executor
    size: int
    notes: SimpleQueue[str]

    def tell(self, note: Callable[[str], None]) -> None:
        """Shows the lines that there are, each once."""
        while not self.notes.empty():
            note(self.notes.get())


@contextmanager
def open_workers(hire: Callable[[int], Worker], count: int) -> Iterator[Workers]:
    """Yields workers, and ends them.

    One is begun at once: what it compiles, the others read from the cache of compiled programs when they begin, each as
    it is needed.

    Args:
      hire: `hire(place)` returns a new worker that has not begun, for one of the places 0 .. count - 1.
      count: how many there may be at once.

    Raises:
      UserError: one died before it had begun, or could not make its evaluator; the others of an evaluation.
    """
    notes: SimpleQueue[str] = SimpleQueue()
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(count):
        places.put(place)
    hired: dict[int, Worker] = {}
    objectives: tuple[str, ...] = ()
    lock, over = threading.Lock(), False

    def begin(place: int) -> tuple[str, ...]:
        with lock:
            if over:
                raise DiedError
            hired[place] = hire(place)
        try:
            return hired[place].begin()
        except DiedError:
            raise UserError(
                "a worker died before it had begun, for lack of memory perhaps; lower --config.workers"
            ) from None

    def ready(place: int) -> Worker:
        try:
            hired[place].check()
        except (DiedError, KeyError):
            begin(place)
        return hired[place]

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        del evaluated, pause
        place = places.get()
        try:
            for then in ("it is evaluated again", "it counts as failed"):
                one = ready(place)
                try:
                    return one.evaluate(architectures)
                except DiedError:
                    notes.put(f"the worker that evaluated {architectures[0].tolist()} died; {then}")
            return np.full((len(architectures), len(objectives)), np.nan, np.float32)
        finally:
            places.put(place)

    with ThreadPoolExecutor(count) as pool:
        try:
            objectives = begin(0)
            yield Workers(Evaluator(objectives, evaluate, together=count), pool, count, notes)
        finally:
            with lock:
                over = True
            pool.shutdown(wait=False, cancel_futures=True)
            for each in hired.values():
                each.end()


class LocalWorker:
    """A `Worker` in a process of this machine."""

    def __init__(self, *given: Any) -> None:
        """Starts the process; the arguments are those of `worker.begin`."""
        self._given = given
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        resource_tracker.ensure_running()
        with leaving_interrupts():
            self._process = self._pool.submit(os.getpid)

    def begin(self) -> tuple[str, ...]:
        return self._ask(worker.begin, *self._given)

    def check(self) -> None:
        self._ask(os.getpid)

    def evaluate(self, architectures: np.ndarray) -> np.ndarray:
        return self._ask(worker.evaluate, architectures)

    def end(self) -> None:
        with suppress(BrokenExecutor):
            for child in multiprocessing.active_children():
                if child.pid == self._process.result():
                    child.kill()
        self._pool.shutdown()

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenExecutor as error:
            raise DiedError from error


def local_workers(make: Make, count: int) -> Callable[[int], Worker]:
    """Returns what starts one of so many workers of this machine, each on cores of its own as far as there are some."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

    def hire(place: int) -> Worker:
        share = cores[place::count] or cores[place % len(cores) :][:1] if cores else []
        return LocalWorker(make, threads_here(), tuple(share))

    return hire


def threads_here() -> int:
    """Returns with how many threads XLA computes in this process, on a CPU."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("NPROC", "")
    devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return max(int(given) if given.isdecimal() else available, devices)
