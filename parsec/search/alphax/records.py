"""What an AlphaX run proposed, and what became of it: one row per architecture, in the order of proposal.

Arrays have exactly as many rows as there are architectures and are never written in place: every change returns new
ones, so that an older state stays as it was.
"""

from typing import NamedTuple

import numpy as np

from parsec.search.alphax.rollouts import hash_rows

# Status of a row.
PENDING, DONE, FAILED = 0, 1, 2


class Records(NamedTuple):
    """The architectures of a run; n of them.

    Attributes:
      architectures: int32 [n, L].
      scores: float64 [n]; NaN unless the status is DONE.
      values: float64 [n], what stands backed up in the tree for the row; a prediction until the score is told.
      rollouts: float64 [n], mean value of the k predicted rollouts that are mixed in; NaN where there were none.
      leaves: int32 [n], the node its backup began at; -1 for an architecture that was told without being asked for.
      status: int8 [n], PENDING, DONE or FAILED.
      hashes: uint64 [n], hashes of the architectures in ascending order.
      order: int32 [n], the row each of `hashes` belongs to.
    """

    architectures: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    rollouts: np.ndarray
    leaves: np.ndarray
    status: np.ndarray
    hashes: np.ndarray
    order: np.ndarray


def no_records(length: int) -> Records:
    """Returns records of nothing, for architectures of `length` decisions."""
    return Records(
        architectures=np.zeros((0, length), np.int32),
        scores=np.zeros(0, np.float64),
        values=np.zeros(0, np.float64),
        rollouts=np.zeros(0, np.float64),
        leaves=np.zeros(0, np.int32),
        status=np.zeros(0, np.int8),
        hashes=np.zeros(0, np.uint64),
        order=np.zeros(0, np.int32),
    )


def rows_of(records: Records, architectures: np.ndarray) -> np.ndarray:
    """Returns the row of every architecture int32 [B, L], or -1 where it was never proposed, int32 [B]."""
    return rows_of_hashes(records, hash_rows(architectures))


def rows_of_hashes(records: Records, hashes: np.ndarray) -> np.ndarray:
    """Returns what `rows_of` does, for architectures known by their hashes uint64 [B]."""
    if not len(records.hashes):
        return np.full(len(hashes), -1, np.int32)
    at = np.minimum(np.searchsorted(records.hashes, hashes), len(records.hashes) - 1)
    return np.where(records.hashes[at] == hashes, records.order[at], -1).astype(np.int32)


def add(records: Records, architecture: np.ndarray, value: float, rollout: float, leaf: int) -> Records:
    """Returns the records with a pending architecture int32 [L] more; it must be new."""
    given = hash_rows(architecture[None])
    at = int(np.searchsorted(records.hashes, given[0]))
    row = len(records.scores)
    return Records(
        architectures=np.concatenate([records.architectures, np.asarray(architecture, np.int32)[None]]),
        scores=np.append(records.scores, np.nan),
        values=np.append(records.values, value),
        rollouts=np.append(records.rollouts, rollout),
        leaves=np.append(records.leaves, np.int32(leaf)),
        status=np.append(records.status, np.int8(PENDING)),
        hashes=np.insert(records.hashes, at, given[0]),
        order=np.insert(records.order, at, np.int32(row)),
    )
