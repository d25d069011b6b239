"""journal.jsonl: what a strategy asked, what was measured and what it was told, in the order in which it happened.

A strategy is deterministic from its key and from what it is told when. So a run that was killed is resumed by doing
again what the journal says, in its order, with the scores that it holds, however many evaluations were under way and in
whatever order they finished. Every line is handed to the operating system before the run goes on; what was under way
and is in no line is evaluated again.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsec.errors import UserError
from parsec.run.lines import numbers, plain, read_lines
from parsec.run.workdir import append

JOURNAL = "journal.jsonl"


class Asked(NamedTuple):
    """The i-th ask, from 1, and what it proposed, int32 [B, L]."""

    ask: int
    architectures: np.ndarray


class Scored(NamedTuple):
    """An architecture int32 [L] and its scores float32 [M]; NaN where the evaluation failed."""

    architecture: np.ndarray
    scores: np.ndarray


class Told(NamedTuple):
    """The scores of the i-th ask were told."""

    ask: int


Entry = Asked | Scored | Told


class Journal:
    """The journal of one run directory."""

    def __init__(self, workdir: Path) -> None:
        """Opens the journal; a last line that was cut short is dropped.

        Raises:
          UserError: where it cannot be read, or a line is no entry.
        """
        self.path = workdir / JOURNAL
        self.entries = read_lines(self.path, _parse, "an entry of a journal")

    def write(self, entry: Entry) -> None:
        """Adds an entry; raises `UserError` where it cannot be written."""
        append(self.path, json.dumps(_describe(entry)) + "\n")

    def mismatch(self, at: int) -> UserError:
        """Returns the error for an entry, counted from 0, that this run would not have written."""
        return UserError(f"line {at + 1} of {self.path} is not what this run does; choose another --workdir")


def _describe(entry: Entry) -> dict[str, Any]:
    if isinstance(entry, Asked):
        return {"ask": entry.ask, "architectures": entry.architectures.tolist()}
    if isinstance(entry, Told):
        return {"tell": entry.ask}
    return {"architecture": entry.architecture.tolist(), "scores": plain(np.asarray(entry.scores, np.float32))}


def _parse(line: dict[str, Any]) -> Entry:
    if "ask" in line:
        architectures = np.array(line["architectures"], np.int32)
        if architectures.ndim != 2:
            raise ValueError("an ask proposes rows")
        return Asked(int(line["ask"]), architectures)
    if "tell" in line:
        return Told(int(line["tell"]))
    return Scored(np.array(line["architecture"], np.int32), numbers(line["scores"]).astype(np.float32))
