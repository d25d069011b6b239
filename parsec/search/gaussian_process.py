"""Gaussian processes over architectures: what is alike in what it is made of has alike scores.

The covariance of two architectures is a mixture of a linear one, by which scores are sums, and of a squared
exponential, by which they are any smooth function; of features that matter wherever they come from, such as how often
an operation occurs (`Domain.common`), and of the options themselves (Rasmussen and Williams 2006, chapters 2 and 5).
Which mixture, over which length, and how much of the scores is signal are chosen by the evidence from a short list.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import Domain
from parsec.prior.categorical import one_hot
from parsec.search.told import standardise

# Shares of the signal in the variance of the scores; the largest is for what is known exactly, such as a cost.
_SIGNAL = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.999], np.float32)
# Of features in common: linear, and exponential over a length of 0.5, 1 and 2; and linear in the options.
_MIXTURES = np.array(
    [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [0.5, 0, 0.5, 0, 0],
        [0, 0, 0.5, 0, 0.5],
        [0.5, 0, 0, 0, 0.5],
    ],
    np.float32,
)
_LENGTHS = (0.5, 1.0, 2.0)
# Robust deviations beyond which a score is drawn in: at the cheap end of a front networks are far below the others.
_FARTHEST = 6.0


class Features(NamedTuple):
    """What architectures are compared by, each part with a mean square of one over uniform architectures.

    Attributes:
      common: `common(architectures int32 [N, L]) -> float32 [N, D]`.
      own: likewise, of the options alone, float32 [N, L * O].
    """

    common: Callable[[jax.Array], jax.Array]
    own: Callable[[jax.Array], jax.Array]


class Process(NamedTuple):
    """A process fitted to C scores.

    Attributes:
      parts: shares of the covariance's parts, float32 [5].
      signal: share of the signal in the variance of a uniform architecture's score, float32 [].
      noise: variance of the noise, in squares of the unit, float32 [].
      lower: Cholesky factor of the scores' covariance in units of the noise, float32 [C, C].
      weights: what the scores say, float32 [C].
      center: their mean, float32 [].
      unit: their deviation, float32 [].
    """

    parts: jax.Array
    signal: jax.Array
    noise: jax.Array
    lower: jax.Array
    weights: jax.Array
    center: jax.Array
    unit: jax.Array


def make_features(domain: Domain) -> Features:
    """Returns what architectures of a domain are compared by; where nothing is known in common, its encoding."""
    mask = domain.mask
    uniform = jnp.asarray(domain.sample(jax.random.key(0), 512))

    def options(architectures: jax.Array) -> jax.Array:
        return one_hot(architectures, mask).reshape(len(architectures), -1)

    def occurrences(architectures: jax.Array) -> jax.Array:
        if domain.common is None:
            return jnp.asarray(domain.features(architectures))
        return options(architectures) @ jnp.asarray(domain.common).reshape(len(domain.common), -1).T

    def scaled(features: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
        plain = features(uniform)
        mean = plain.mean(0)
        size = jnp.sqrt(jnp.maximum(((plain - mean[None]) ** 2).sum(1).mean(), 1e-12))
        return lambda architectures: (features(jnp.maximum(architectures, 0)) - mean[None]) / size

    return Features(scaled(occurrences), scaled(options))


@jax.default_matmul_precision("highest")
def fit(features: Features, architectures: jax.Array, scores: jax.Array) -> Process:
    """Returns the process with the largest evidence for scores float32 [C], NaN where a row says nothing.

    Args:
      features: of `make_features`.
      architectures: int32 [C, L].
      scores: float32 [C].
    """
    rows = jnp.isfinite(scores).astype(jnp.float32)
    count = jnp.maximum(rows.sum(), 1.0)
    target, center, unit = standardise(scores, _FARTHEST)
    # Rows that say nothing are told of no other, and tell of none.
    pairs, parts = rows[:, None] * rows[None], _parts(features, architectures, architectures)

    def solve(mixture: jax.Array, signal: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        covariance = _mix(mixture, parts) * pairs * signal / (1 - signal)
        lower = jnp.linalg.cholesky(covariance + jnp.eye(len(rows), dtype=jnp.float32))
        weights = jax.scipy.linalg.cho_solve((lower, True), target)
        return lower, weights, jnp.maximum(target @ weights, 1e-6) / count

    def evidence(chosen: tuple[jax.Array, jax.Array]) -> jax.Array:
        lower, _, noise = solve(*chosen)
        return -0.5 * count * jnp.log(noise) - jnp.log(jnp.diagonal(lower)).sum()

    mixtures = jnp.asarray(_MIXTURES.repeat(len(_SIGNAL), 0))
    signals = jnp.asarray(np.tile(_SIGNAL, len(_MIXTURES)))
    # A covariance that rounding made indefinite has no factor.
    best = jnp.nan_to_num(jax.lax.map(evidence, (mixtures, signals)), nan=-jnp.inf).argmax()
    lower, weights, noise = solve(mixtures[best], signals[best])
    return Process(mixtures[best], signals[best], noise, lower, weights, center, unit)


@jax.default_matmul_precision("highest")
def predict(
    features: Features, process: Process, architectures: jax.Array, there: jax.Array, asked: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the mean of the scores of `asked` int32 [N, L], float32 [N], and a factor of their covariance [N, N].

    Args:
      features: of `make_features`.
      process: of `fit`.
      architectures: that it was fitted to, int32 [C, L].
      there: which of these have a score, bool [C].
      asked: int32 [N, L].
    """
    ratio = process.signal / (1 - process.signal)
    across = _mix(process.parts, _parts(features, asked, architectures)) * there.astype(jnp.float32)[None]
    within = _mix(process.parts, _parts(features, asked, asked)) * ratio
    solved = jax.scipy.linalg.solve_triangular(process.lower, (across * ratio).T, lower=True)
    left = within - solved.T @ solved + 1e-3 * jnp.maximum(ratio, 1.0) * jnp.eye(len(asked), dtype=jnp.float32)
    factor = jnp.nan_to_num(jnp.linalg.cholesky(left)) * jnp.sqrt(process.noise)
    return process.center + process.unit * ratio * (across @ process.weights), process.unit * factor


def _mix(mixture: jax.Array, parts: jax.Array) -> jax.Array:
    """Returns the covariance of a mixture [5] of parts [5, N, P], float32 [N, P], that of an intercept included.

    The mean of what was told is not that of uniform architectures, from which features are told.
    """
    return jnp.tensordot(mixture, parts, 1) + 1


def _parts(features: Features, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns the parts of the covariance of architectures [N, L] and [P, L], float32 [5, N, P]."""
    here, there = features.common(first), features.common(second)
    products = here @ there.T
    distance = (here**2).sum(1)[:, None] + (there**2).sum(1)[None] - 2 * products
    near = [jnp.exp(-0.5 * jnp.maximum(distance, 0.0) / length**2) for length in _LENGTHS]
    return jnp.stack([products, *near, features.own(first) @ features.own(second).T])
