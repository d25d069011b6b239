"""The images of a streamed dataset that could not be read: which, over all processes that worked on a run, and a limit.

They are found as training comes to them. Their names are in unreadable.json of the run directory, sorted, from the step
on that met them; so a run that was killed ends with the same names as one that was not. Several processes that train
together (`parsec.run.multihost`) each read a share of the images: process 0 gathers what the others tell it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parsec.data.folder import named, unreadable_files
from parsec.errors import UserError
from parsec.run.agreement import tell_first, told_first
from parsec.run.workdir import read_json, write_json_atomic

UNREADABLE = "unreadable.json"


class Unreadable:
    """Names of the images that could not be read so far; of one directory there may be several of these."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Takes up what an earlier process found.

        Args:
          directory: of the run.
          limit: most images that may be unreadable.

        Raises:
          UserError: unreadable.json is damaged.
        """
        self._path, self._limit = directory / UNREADABLE, limit
        # A damaged file is told of now.
        self._known = set(self.names)

    def add(self, names: Sequence[str]) -> None:
        """Adds images; raises `UserError` where they are too many."""
        if not self._known.issuperset(names):
            tell_first(UNREADABLE, json.dumps(list(names)))
            self._known = {*self.names, *names}
            write_json_atomic(self._path, sorted(self._known))
        if len(self._known) > self._limit:
            every = sorted(self._known)
            raise UserError(
                f"{unreadable_files(every)}, more than config.data.unreadable_limit={self._limit}: {named(every)}"
            )

    def gather(self) -> None:
        """Adds what the other processes have met, once their steps are over; raises `UserError` as `add` does."""
        found = [name for told in told_first(UNREADABLE) for name in json.loads(told)]
        # What is known already was judged when it was met.
        if found:
            self.add(found)

    @property
    def names(self) -> list[str]:
        """All names, sorted; raises `UserError` where the file is damaged."""
        found = read_json(self._path) if self._path.exists() else []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise UserError(f"{self._path} is no list of names; remove it, and the run finds them again")
        return sorted(found)

    def told(self) -> dict[str, Any]:
        """Returns what result.json says, of all processes: their number, and the first of them in words."""
        self.gather()
        names = self.names
        return {"count": len(names), "files": named(names)}
