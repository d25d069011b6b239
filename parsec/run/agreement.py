"""What several processes on one run agree on (`parsec.run.multihost`); a process that is alone agrees with itself.

Process 0 decides: what a run goes on from is what it found, and all save or stop after the same step. It says so
through the key-value store of JAX's coordination service, which waits as long as it takes and computes nothing; a sum
over all devices would stand in the way of the steps.
"""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

# Private: JAX has no other way to the store, and none to a process's number that starts no device.
from jax._src import distributed
from jax.experimental import multihost_utils

from parsec.errors import UserError

# Steps from one at which process 0 says that all are to save, to the one after which they do; see `Agreement`.
_LEAD = 2
# How often each name was used so far, which is the same in all processes.
_turns: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def joined() -> tuple[int, int]:
    """Returns the number of this process and of all, once they are joined; JAX need not have looked for devices yet."""
    return distributed.global_state.process_id, distributed.global_state.num_processes


def store() -> Any:
    """Returns the client of the store, once the processes are joined."""
    return distributed.global_state.client


def from_first(name: str, value: str) -> str:
    """Returns what process 0 says under a name, its `value`; the others wait for it. One process is its own first."""
    if jax.process_count() == 1:
        return value
    key = f"parsec/first/{name}/{next(_turns[name])}"
    if jax.process_index() == 0:
        store().key_value_set(key, value)
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


def tell_first(name: str, value: str) -> None:
    """Tells process 0 something under a name, to which it comes when it asks; nothing where this is process 0."""
    if jax.process_index():
        store().key_value_set(f"parsec/told/{name}/{jax.process_index()}/{next(_turns[name])}", value)


def told_first(name: str) -> list[str]:
    """Returns all that process 0 was told under a name by the others; nothing where this is another."""
    if jax.process_count() == 1 or jax.process_index():
        return []
    return [value for _, value in store().key_value_dir_get(f"parsec/told/{name}")]


def wait_for_all(name: str, seconds: float | None = None) -> bool:
    """Returns True once all processes have come here, or False where that takes longer."""
    if jax.process_count() == 1:
        return True
    folder, began = f"parsec/wait/{name}/{next(_turns[name])}", time.monotonic()
    store().key_value_set(f"{folder}/{jax.process_index()}", "")
    while len(store().key_value_dir_get(folder)) < jax.process_count():
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
            asked = self._asked_of_any(signal)
            if save or asked:
                self._next = done + _LEAD, asked
                store().key_value_set(self._key, f"{self._next[0]} {self._next[1]}")
        if self._next is None or done != self._next[0]:
            return False
        self._signal, self._next, self._key = self._next[1] or None, None, f"{self._folder}/{next(self._said)}"
        return True

    def signal(self, own: int | None) -> int | None:
        """Returns the signal that stops the run where it was saved just now, or None where it goes on."""
        return own if jax.process_count() == 1 else self._signal

    def last_signal(self, own: int | None) -> int | None:
        """Returns the signal that stops the run after its last step, or None; one that comes later ends no process."""
        if jax.process_count() == 1:
            return own
        if jax.process_index():
            self._ask(own)
        wait_for_all("last signal")
        return int(from_first("last signal", str(self._asked_of_any(own)))) or None

    def _asked_of_any(self, own: int | None) -> int:
        """Returns the signal that asked any process to stop, as far as this one knows, or 0."""
        return max([own or 0, *(int(value) for _, value in store().key_value_dir_get(f"{self._folder}/asked"))])

    def _ask(self, signal: int | None) -> None:
        if signal is not None and not self._asked:
            store().key_value_set(f"{self._folder}/asked/{jax.process_index()}", str(signal))
            self._asked = True


def _find(key: str) -> str | None:
    """Returns the value of a key in the store, or None where there is none yet."""
    try:
        return store().key_value_try_get(key)
    except RuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None
