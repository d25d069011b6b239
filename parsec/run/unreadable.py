"""The images of a streamed dataset that could not be read: which, over all processes that worked on a run, and a limit.

They are found as training comes to them. Their names are in unreadable.json of the run directory, sorted, from the step
on that met them; so a run that was killed ends with the same names as one that was not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parsec.data.folder import named, unreadable_files
from parsec.errors import UserError
from parsec.run.workdir import read_json, write_json_atomic

UNREADABLE = "unreadable.json"


class Unreadable:
    """Names of the images that could not be read so far."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Takes up what an earlier process found.

        Args:
          directory: of the run.
          limit: most images that may be unreadable.

        Raises:
          UserError: unreadable.json is damaged.
        """
        self._path, self._limit = directory / UNREADABLE, limit
        found = read_json(self._path) if self._path.exists() else []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise UserError(f"{self._path} is no list of names; remove it, and the run finds them again")
        self._names = set(found)

    def add(self, names: Sequence[str]) -> None:
        """Adds images; raises `UserError` where they are too many."""
        if new := set(names) - self._names:
            self._names |= new
            write_json_atomic(self._path, self.names)
        if len(self._names) > self._limit:
            raise UserError(
                f"{unreadable_files(self.names)}, more than config.data.unreadable_limit={self._limit}: "
                f"{named(self.names)}"
            )

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._names)

    def told(self) -> dict[str, Any]:
        """Returns what result.json says: their number, and the first of them in words."""
        return {"count": len(self._names), "files": named(self.names)}
