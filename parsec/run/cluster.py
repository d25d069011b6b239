"""Workers on a Ray cluster (Moritz et al. 2018, https://arxiv.org/abs/1712.05889; https://docs.ray.io).

Ray finds a place for each worker, starts it, carries architectures and scores, and notices when one is gone; it is an
extra of this package. What a worker reads, the images among it, must lie under the same path on the machines of the
cluster, and the same version of this package must be installed there.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from parsec.errors import UserError, one_line, shown
from parsec.run import worker
from parsec.run.worker import Make
from parsec.run.workers import DiedError, Worker, threads_here

# Seconds after which a machine that does not answer is given up, and what answers but is no cluster.
_PATIENCE_SECONDS, _LONG_PATIENCE_SECONDS = 10.0, 30.0
LOCAL, AUTO = "local", "auto"
_ADDRESS = re.compile(r"(ray://)?(?P<host>[\w.-]+|\[[\da-fA-F:]+\]):(?P<port>\d{1,5})")


def check_address(address: str) -> None:
    """Raises `UserError` for an address that is of no form that there is."""
    if address not in ("", LOCAL, AUTO) and not _ADDRESS.fullmatch(address):
        raise UserError(
            f"config.cluster={shown(address)} is no address of a Ray cluster; write {LOCAL} to start one on this "
            f"machine, {AUTO} for the one that it belongs to, HOST:PORT or ray://HOST:PORT"
        )


def check_cluster(address: str) -> None:
    """Raises `UserError` where there is no Ray, or no cluster answers at HOST:PORT; an empty address is none."""
    if address:
        _import_ray()
        _knock(address)
        _check_head(address)


@contextmanager
def cluster_workers(address: str, make: Make, count: int) -> Iterator[Callable[[int], Worker]]:
    """Joins a cluster, and yields what hires a worker there; leaves it in the end.

    Each worker takes a GPU where the cluster has one for each, else the core of a CPU.

    Args:
      address: `local`, `auto`, `HOST:PORT` or `ray://HOST:PORT`.
      make: as of `worker.begin`.
      count: of workers.

    Raises:
      UserError: Ray is not installed, the cluster cannot be reached, which `check_cluster` finds out in seconds and Ray
        in minutes, or it has no place for so many.
    """
    ray = _import_ray()
    settings: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == LOCAL:
        # What this process imports, its workers find.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        settings |= {"num_cpus": count, "include_dashboard": False}
        settings |= {"runtime_env": {"env_vars": {"PYTHONPATH": paths}}}
    try:
        with _own_signals(), warnings.catch_warnings():
            # What goes wrong is told below.
            warnings.simplefilter("ignore")
            ray.init(address, **settings)
        places = ray.cluster_resources()
    except Exception as error:
        raise _unreachable(address, error) from error
    try:
        if places.get("CPU", 0) < count > places.get("GPU", 0):
            raise UserError(
                f"config.workers={count} is more than the cluster at {address} has places for, "
                f"{places.get('CPU', 0):g} cores and {places.get('GPU', 0):g} GPUs"
            )
        needs = {"num_gpus": 1, "num_cpus": 0} if places.get("GPU", 0) >= count else {"num_cpus": 1}
        yield lambda place: _ClusterWorker(ray, make, needs)
    finally:
        with _own_signals():
            ray.shutdown()


class _ClusterWorker:
    """A `Worker` that is an actor."""

    def __init__(self, ray: Any, make: Make, needs: dict[str, int]) -> None:
        self._ray, self._given = ray, (make, threads_here())
        self._actor = ray.remote(**needs)(_Actor).remote()

    def begin(self) -> tuple[str, ...]:
        return self._ask(self._actor.begin, *self._given)

    def check(self) -> None:
        self._ask(self._actor.check)

    def evaluate(self, architectures: np.ndarray) -> np.ndarray:
        return self._ask(self._actor.evaluate, architectures)

    def end(self) -> None:
        with suppress(Exception):
            self._ray.kill(self._actor)

    def _ask(self, method: Any, *arguments: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(method.remote(*arguments))
        except errors.RayActorError as error:
            # Where it only cannot be reached, it must not go on beside the one that takes its place.
            self.end()
            raise DiedError from error
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            raise UserError(f"the Ray cluster failed: {one_line(error)}; the same command resumes the run") from error


class _Actor:
    """What a worker of a cluster is there."""

    def begin(self, make: Make, threads: int) -> tuple[str, ...]:
        return worker.begin(make, threads)

    def check(self) -> None:
        return None

    def evaluate(self, architectures: np.ndarray) -> np.ndarray:
        return worker.evaluate(architectures)


def _import_ray() -> Any:
    # Ray answers SIGTERM in its own way from its import on; here a stop saves first.
    with _own_signals():
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(f"config.cluster needs ray ({error}); pip install 'ray[client]'") from error
    return ray


@contextmanager
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # Outside the main thread Python allows no handlers, and Ray sets none.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _knock(address: str) -> None:
    """Raises `UserError` where nothing answers at HOST:PORT; Ray itself would try for minutes."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), _PATIENCE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _check_head(address: str) -> None:
    """Raises `UserError` where what answers at HOST:PORT is no cluster."""
    if address in (LOCAL, AUTO) or address.startswith("ray://"):
        return
    # As `ray health-check`.
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LONG_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        hint = "what answers there is no head of one; the port of its clients is written ray://HOST:PORT"
        raise _unreachable(address, ConnectionError(hint)) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["ray health-check failed"]
        raise _unreachable(address, ConnectionError(said[-1])) from None


def _unreachable(address: str, error: Exception) -> UserError:
    return UserError(f"the Ray cluster config.cluster={address} cannot be reached: {one_line(error)}")
