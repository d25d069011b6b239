"""Completing prefixes: rollouts by uniformly random legal actions, and the exhaustive walk of a small subtree.

AlphaX completes a node by random actions until a network is reached (Wang et al. 2020, https://arxiv.org/abs/1903.11059).
Here illegal actions are masked, so that every rollout ends in a valid architecture, and architectures proposed before
are filtered by an index of 64-bit hashes.
"""

from collections.abc import Callable, Iterator

import numpy as np

from parsec.search.alphax.tree import Options

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def sample_completions(
    rng: np.random.Generator, options: Options, prefixes: list[tuple[int, ...]], length: int
) -> np.ndarray:
    """Returns one completion of every prefix by uniformly random legal actions, int32 [n, L].

    Args:
      rng: a generator.
      options: the legal actions after a prefix; never empty for a prefix that itself is legal.
      prefixes: n legal prefixes.
      length: decisions of an architecture, L.
    """
    draws = rng.random((len(prefixes), length)).tolist()
    rows = []
    for prefix, uniform in zip(prefixes, draws, strict=True):
        for draw in uniform[len(prefix) :]:
            legal = options(prefix)
            prefix += (legal[int(draw * len(legal))],)
        rows.append(prefix)
    return np.array(rows, np.int32).reshape(-1, length)


def every_completion(options: Options, prefix: tuple[int, ...], length: int) -> Iterator[tuple[int, ...]]:
    """Yields every valid architecture that begins with a prefix, in lexicographic order."""
    if len(prefix) == length:
        yield prefix
        return
    for action in options(prefix):
        yield from every_completion(options, (*prefix, action), length)


def unseen_completions(
    options: Options, prefix: tuple[int, ...], length: int, seen: Callable[[np.ndarray], np.ndarray], most: int
) -> np.ndarray:
    """Returns the first completions of a prefix that were not proposed yet, int32 [0 .. most, L]; empty if none is.

    The walk stops at `most`: it visits no more architectures than `most` and those proposed below the prefix.

    Args:
      options: the legal actions after a prefix.
      prefix: a legal prefix.
      length: decisions of an architecture, L.
      seen: `seen(architectures int32 [n, L]) -> bool [n]`.
      most: how many to return, at least 1.
    """
    found: list[np.ndarray] = []
    block: list[tuple[int, ...]] = []
    missing = most
    for row in every_completion(options, prefix, length):
        block.append(row)
        if len(block) >= missing:
            rows = np.array(block, np.int32)
            rows = rows[~seen(rows)]
            found.append(rows)
            missing -= len(rows)
            block = []
            if missing <= 0:
                break
    if block:
        rows = np.array(block, np.int32)
        found.append(rows[~seen(rows)])
    return np.concatenate(found) if found else np.zeros((0, length), np.int32)


def hash_rows(architectures: np.ndarray) -> np.ndarray:
    """Returns a 64-bit hash of every row of int32 [n, L], uint64 [n]; equal rows hash equally on every machine.

    A row is read as the coefficients of a polynomial, evaluated modulo 2^64 at a fixed odd number.
    """
    powers = np.cumprod(np.full(architectures.shape[1], _MULTIPLIER))
    return (architectures.astype(np.uint64) + np.uint64(1)) @ powers
