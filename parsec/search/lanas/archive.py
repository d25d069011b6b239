"""What a sampler knows: the architectures evaluated, their scores, and those under way."""

from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import rankdata

from parsec.cells.domain import ArrayLike

# What a score may be turned into; see `to_values`.
TARGETS = ("log_rank", "rank", "score")


class Archive(NamedTuple):
    """Evaluations in the order they were told, and proposals not yet told.

    Attributes:
      architectures: int32 [n, L].
      scores: float32 [n]; NaN for a failed evaluation.
      pending: int32 [p, L], in the order they were proposed.
    """

    architectures: np.ndarray
    scores: np.ndarray
    pending: np.ndarray


def empty_archive(length: int) -> Archive:
    """Returns the archive of nothing, for architectures of `length` choices."""
    nothing = np.zeros((0, length), np.int32)
    return Archive(nothing, np.zeros(0, np.float32), nothing)


def propose(archive: Archive, architectures: np.ndarray) -> Archive:
    """Returns the archive with architectures, int32 [b, L], under way."""
    return archive._replace(pending=np.concatenate([archive.pending, architectures]))


def record(archive: Archive, architecture: np.ndarray, score: float) -> tuple[Archive, bool]:
    """Returns the archive with one more evaluation, and whether it was under way.

    Args:
      archive: not changed.
      architecture: int32 [L]; any, proposed or not.
      score: higher is better; anything not finite is a failure and kept as NaN.
    """
    same = np.flatnonzero((archive.pending == architecture).all(1))
    return Archive(
        np.concatenate([archive.architectures, architecture[None]]),
        np.append(archive.scores, np.float32(score if np.isfinite(score) else np.nan)),
        np.delete(archive.pending, same[:1], 0),
    ), bool(same.size)


def succeeded(archive: Archive) -> np.ndarray:
    """Returns which evaluations have a score, bool [n]."""
    return np.isfinite(archive.scores)


def taken(archive: Archive) -> set[bytes]:
    """Returns the keys of all architectures evaluated or under way; the key of one is its int32 bytes."""
    return {row.tobytes() for row in archive.architectures} | {row.tobytes() for row in archive.pending}


def first_scores(scores: ArrayLike) -> np.ndarray:
    """Returns the first of M objectives of each architecture, float32 [B], on the host; scores are [B, M] or [B]."""
    given = np.asarray(scores, np.float32)
    return given.reshape(len(given), -1)[:, 0]


def to_values(scores: np.ndarray, reference: np.ndarray, target: str) -> np.ndarray:
    """Returns what scores are worth to the regressions and the bounds, float64 [n].

    Args:
      scores: finite, float [n].
      reference: the finite scores known when the tree was last learnt, float [m], m >= 1.
      target: "score" for the scores themselves; "rank" for the fraction r of the reference that is worse (ties count
        half), which no monotone change of the scores alters and no outlier stretches; "log_rank" for -log(1 - r), the
        quantiles of an exponential law, which sets the best apart and lumps the worse half together.
    """
    if target == "score":
        return scores.astype(np.float64)
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    # A score above all of the reference is at most half a place above its best.
    worse = np.minimum(below, 2 * len(ordered) - 1) / (2.0 * len(ordered))
    return worse if target == "rank" else -np.log1p(-worse)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's correlation of two float [n]; 0 where either is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def host_rng(key: jax.Array) -> np.random.Generator:
    """Returns a generator of numpy's that is determined by a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
