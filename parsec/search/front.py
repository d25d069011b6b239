"""What strategies of several objectives compute of scores: dominance, and how far a front reaches in many directions.

Scores are float32 [N, M], higher is better, 0 at the reference point; what is not above it reaches nowhere. The length
of a point y in a direction d, a unit vector of positive numbers, is min_m y_m / d_m: how far one can go from the
reference point along d within the box that y dominates. The hypervolume of a set is, up to a constant, the mean over
uniform directions of its largest length to the power M (Zhang and Golovin, "Random hypervolume scalarizations for
provable multi-objective black box optimization", ICML 2020, arXiv 2006.04655). With a fixed list of directions this
holds for any M, needs no sorting, and is the same in plain `jax.numpy` for a thousand runs at once; the more exact
numbers of a report are computed elsewhere.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm, qmc

Array = TypeVar("Array", np.ndarray, jax.Array)

# Directions that a strategy keeps by default.
DIRECTIONS = 64
# Along one direction, what all objectives add together counts so much besides: of two that reach equally far, one may
# dominate the other. The weight is ParEGO's.
SLOPE = 0.05
# Components of a direction are at least so much of a unit vector, so that no length is infinite.
_LEAST = 1e-2


def directions(objectives: int, count: int = DIRECTIONS) -> np.ndarray:
    """Returns unit vectors spread evenly over the positive ones, float32 [D, M]; D is 1 for a single objective."""
    if objectives == 1:
        return np.ones((1, 1), np.float32)
    if objectives == 2:
        angles = (np.arange(count) + 0.5) / count * np.pi / 2
        spread = np.stack([np.sin(angles), np.cos(angles)], 1)
    else:
        # Normal numbers of a low-discrepancy sequence are uniform on the sphere; its first point is the corner.
        spread = np.abs(norm.ppf(qmc.Halton(objectives, scramble=False).random(count + 1)[1:]))
    spread = spread / np.linalg.norm(spread, axis=1, keepdims=True)
    return np.maximum(spread, _LEAST).astype(np.float32)


def scored(scores: jax.Array) -> jax.Array:
    """Whether every objective of a row is finite, bool [N]; any other row is a failed evaluation, or empty."""
    return jnp.isfinite(scores).all(1)


def lengths(scores: jax.Array, along: np.ndarray) -> jax.Array:
    """Returns how far each point reaches in each direction, float32 [N, D]; 0 for a row that is not finite."""
    inside = jnp.where(scored(scores)[:, None], jnp.maximum(scores, 0.0), 0.0)
    return (inside[:, None, :] / jnp.asarray(along)[None]).min(2)


def reach(scores: Array, way: Array) -> Array:
    """Returns how far each row of scores reaches along one direction float32 [M], float32 [N]; NaN where not finite.

    That is its length and `SLOPE` times what its objectives add up to, each from its reference point on; a single
    objective has no such point, and counts below zero too. NumPy's arrays stay so: a list that grows would be
    compiled anew at every length.
    """
    inside: Any = scores if scores.shape[1] == 1 else scores.clip(0)
    return (inside / way[None]).min(1) + SLOPE * inside.sum(1)


def gains(length: jax.Array, reached: jax.Array, objectives: int) -> jax.Array:
    """Returns the hypervolume that points of lengths [N, D] add to what has reached [D], float32 [N], to a constant.

    Where nothing is added it is not above zero: by how much a point falls short in the direction where it does so least
    (the uncrowded hypervolume improvement, Toure, Hansen, Auger and Brockhoff, GECCO 2019, arXiv 1904.08823).
    """
    return uncrowded(*added(length, reached, objectives))


def added(length: jax.Array, reached: jax.Array, objectives: int) -> tuple[jax.Array, jax.Array]:
    """Returns what points of lengths [N, D] add to what has reached [D], and how they fall short, float32 [N] both."""
    volume = jnp.maximum(length**objectives - reached[None] ** objectives, 0.0).mean(1)
    return volume, (length - reached[None]).max(1)


def uncrowded(volume: jax.Array, short: jax.Array) -> jax.Array:
    """Returns the volume that is added, or where there is none what is short of it, at most zero; float32 [N]."""
    return jnp.where(volume > 0, volume, short)


def dominates(scores: jax.Array, others: jax.Array) -> jax.Array:
    """Whether row i of float32 [N, M] dominates row j of float32 [P, M], bool [N, P]; never where one is not finite."""
    first, second = scores[:, None, :], others[None, :, :]
    finite = scored(scores)[:, None] & scored(others)[None, :]
    return (first >= second).all(2) & (first > second).any(2) & finite


def ranks(scores: jax.Array) -> jax.Array:
    """Returns the number of each row's non-dominated front, int32 [N], 0 the best; N for rows that are not finite.

    Fast non-dominated sorting's result (Deb, Pratap, Agarwal and Meyarivan 2002, IEEE Transactions on Evolutionary
    Computation 6, 182-197), by peeling off one front after another.
    """
    count = scores.shape[0]
    beaten_by = dominates(scores, scores)
    finite = scored(scores)

    def peel(level: jax.Array, rank: jax.Array) -> jax.Array:
        left = finite & (rank == count)
        beaten = (beaten_by & left[:, None]).any(0)
        return jnp.where(left & ~beaten, level, rank)

    return jax.lax.fori_loop(0, count, peel, jnp.full(count, count, jnp.int32))


def largest_cost(scores: jax.Array) -> jax.Array:
    """Returns the largest of the objectives but the first as a cost, 1 minus the score, float32 [N]; of one, 0."""
    if scores.shape[1] == 1:
        return jnp.zeros_like(scores[:, 0])
    return (1 - scores[:, 1:]).max(1)


def contributions(scores: jax.Array, rank: jax.Array, along: np.ndarray) -> jax.Array:
    """Returns what its front's hypervolume would lose without each row, float32 [N], up to a constant.

    Args:
      scores: float32 [N, M].
      rank: of `ranks`; a row is compared with those of its own front.
      along: directions, float32 [D, M].
    """
    volume = lengths(scores, along) ** scores.shape[1]
    others = (rank[:, None] == rank[None, :]) & ~jnp.eye(scores.shape[0], dtype=bool)
    rival = jnp.where(others[:, :, None], volume[None], 0.0).max(1)
    return jnp.maximum(volume - rival, 0.0).mean(1)


def quantiles(scores: jax.Array) -> jax.Array:
    """Returns which share of the finite rows each is better than, in each objective, float32 [N, M] in (0, 1).

    Ties share the middle. Rows that are not finite get nothing that means anything. What is a front stays one under
    any increasing change of each objective, and this one lets no broken network stretch the scale.
    """
    finite = scored(scores)
    count = jnp.maximum(finite.sum(dtype=jnp.int32), 1).astype(jnp.float32)
    below = ((scores[None] < scores[:, None]) & finite[None, :, None]).sum(1, dtype=jnp.int32)
    equal = ((scores[None] == scores[:, None]) & finite[None, :, None]).sum(1, dtype=jnp.int32)
    share = (below.astype(jnp.float32) + 0.5 * equal.astype(jnp.float32)) / count
    return jnp.clip(share, 0.5 / count, 1 - 0.5 / count)
