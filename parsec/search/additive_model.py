"""Bayesian linear regression of scores on choices: a score is a sum over choices of an effect of the option taken.

Scores that cost a training each are noisy and few, so that all of them are explained at once: theta = known + common +
own [L, O]. What is known beforehand is taken off the scores; common effects are few, such as that of an operation
wherever it stands, and own ones are as many as there are options. Effects are Gaussian, noise is Gaussian, so that the
posterior is exact. How much of the scores is signal and how much of the signal is common are chosen by the evidence
(MacKay 1992, Neural Computation 4, 415-447), which is what empirical Bayes means: noise alone has no signal.

A prior that another search learnt is one more common effect. Its size is a single number, so that few scores tell how
much of it is true here: where a share s of the scores is signal it is believed to be half of sqrt(s / (1 - s)), give or
take half of sqrt(s), and where scores have no signal it is what is believed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.domain import ArrayLike, Domain
from parsec.prior.categorical import one_hot
from parsec.search.told import standardise

# Shares that the evidence chooses from: of signal in the scores, and of common effects in the signal.
_SIGNAL = np.array([0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97], np.float32)
_COMMON = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
# Chance, before any score, that they are noise: of some fifty pairs of shares one always fits noise a little better.
_NOISE = 0.9
# How much more likely than any other share it is that choices have all in common: some hundred scores cannot tell.
_ALL_COMMON = 36.0
# Of what a carried prior says, before any score: its deviation in units of the signal's own, and its mean (see above).
_CARRIED = 0.5
# Robust deviations beyond which a score is drawn in.
_FARTHEST = 3.0


class Basis(NamedTuple):
    """What turns weights [D] into effects [L, O]: columns of own effects, of common ones, of a carried prior if any.

    The last weight is the intercept's, which has no column.

    Attributes:
      columns: float32 [L * O, D - 1], each part scaled so that a uniform architecture has variance one in it. A
        choice's existing options sum to zero: what all of them have in common decides nothing.
      own: which columns are own effects, bool [D - 1].
      carried: which column is a carried prior, bool [D - 1].
    """

    columns: jax.Array
    own: np.ndarray
    carried: np.ndarray


class Posterior(NamedTuple):
    """What the scores say of the effects.

    Attributes:
      mean: of the weights, float32 [D].
      factor: upper triangular, float32 [D, D]; it turns independent normal numbers into draws about the mean.
      chance: that the scores have such a signal at all, float32 []; else all weights are zero.
      signal: the share of signal in the scores' variance that the evidence chose, float32 [].
      common: likewise, of common effects in the signal.
      unit: of the effects, in that of the scores, float32 [].
    """

    mean: jax.Array
    factor: jax.Array
    chance: jax.Array
    signal: jax.Array
    common: jax.Array
    unit: jax.Array


def make_basis(domain: Domain) -> Basis:
    """Returns the effects that architectures of a domain may have: own, common and carried ones, as far as it says."""
    mask = domain.mask
    existing = np.flatnonzero(mask.reshape(-1))
    parts: list[ArrayLike] = [np.eye(mask.size, dtype=np.float32)[existing]]
    if domain.common is not None:
        parts.append(domain.common)
    if domain.initial is not None:
        parts.append(domain.initial)
    chance = (mask / mask.sum(1, keepdims=True)).astype(np.float32)[None]
    columns = []
    for part in parts:
        effects = part.reshape(-1, *mask.shape)
        effects = (effects - (effects * chance).sum(-1, keepdims=True)) * mask[None]
        deviation = (effects**2 * chance).sum() ** 0.5 + 1e-12
        columns.append(effects.reshape(len(effects), -1).T / deviation)
    columns = jnp.concatenate([jnp.asarray(each, jnp.float32) for each in columns], 1)
    at = np.arange(columns.shape[1])
    return Basis(columns, at < len(existing), (at == at[-1]) & (domain.initial is not None))


def fit(basis: Basis, mask: np.ndarray, architectures: jax.Array, scores: jax.Array, known: jax.Array) -> Posterior:
    """Returns the posterior of the weights, with the shares that have the largest evidence.

    Args:
      basis: of the architectures' domain.
      mask: which options exist, bool [L, O].
      architectures: int32 [C, L].
      scores: float32 [C]; NaN for a row that says nothing.
      known: what each option adds to the scores as is known before any, float32 [L, O].
    """
    scored = jnp.isfinite(scores)
    rows = scored.astype(jnp.float32)
    count = jnp.maximum(rows.sum(), 1.0)
    hot = one_hot(architectures, mask).reshape(len(rows), -1)
    target, _, unit = standardise(scores - hot @ known.reshape(-1), _FARTHEST)
    features = hot @ basis.columns * rows[:, None]
    features = jnp.concatenate([features, rows[:, None]], 1)
    products, onto = features.T @ features, features.T @ target
    square = jnp.maximum((target * target).sum(), 1e-6)
    own, carried = np.append(basis.own, False), np.append(basis.carried, False)
    intercept = np.arange(len(own)) == len(own) - 1

    def weigh(signal: jax.Array, common: jax.Array) -> tuple[jax.Array, ...]:
        part = jnp.where(carried, np.float32(_CARRIED**2), jnp.where(own, 1 - common, common))
        # Parts of no variance keep a trace of it, so that nothing divides by zero.
        deviation = jnp.sqrt(jnp.where(intercept, 1.0, jnp.maximum(part, 1e-6) * signal / (1 - signal)))
        # A carried weight's mean; all others' are zero. A deviation is in units of the noise, the mean in those of the
        # scores: with half of the signal's deviation as the mean, sixteen noisy scores could turn a prior round.
        before = jnp.where(carried, deviation, 0.0)
        inside = jnp.eye(len(own), dtype=jnp.float32) + products * deviation[:, None] * deviation[None]
        lower = jnp.linalg.cholesky(inside)
        along = jax.scipy.linalg.solve_triangular(lower, deviation * (onto - products @ before), lower=True)
        left = square - 2 * before @ onto + before @ products @ before
        return lower, along, deviation, before, jnp.maximum(left - (along * along).sum(), 1e-6 * square)

    def evidence(shares: tuple[jax.Array, jax.Array]) -> jax.Array:
        lower, _, _, _, residual = weigh(*shares)
        spread = jnp.log(jnp.diagonal(lower)).sum()
        return -0.5 * count * jnp.log(residual / count) - spread

    shares = _COMMON[: 1 if basis.own.all() else None]
    signal, common = (jnp.asarray(grid.reshape(-1)) for grid in np.meshgrid(_SIGNAL, shares))
    odds = np.where(shares == 1, _ALL_COMMON, 1.0)
    before = np.log((1 - _NOISE) * odds / odds.sum() / len(_SIGNAL)).repeat(len(_SIGNAL))
    found = jax.lax.map(evidence, (signal, common)) + before.astype(np.float32)
    best = found.argmax()
    # Scores without signal keep their square as it is.
    nothing = -0.5 * count * jnp.log(square / count) - 0.5 * jnp.log1p(count) + np.float32(np.log(_NOISE))
    chance = jax.nn.sigmoid(jax.nn.logsumexp(found) - nothing)
    lower, along, deviation, expected, residual = weigh(signal[best], common[best])
    back = jax.scipy.linalg.solve_triangular(lower, jnp.eye(len(own), dtype=jnp.float32), lower=True).T
    noise = jnp.sqrt(residual / count)
    factor = deviation[:, None] * back
    return Posterior(expected + factor @ along, factor * noise, chance, signal[best], common[best], unit)


def draw_effects(key: jax.Array, basis: Basis, mask: np.ndarray, posterior: Posterior, count: int) -> jax.Array:
    """Returns draws of the effects, float32 [count, L, O]."""
    among, within = jax.random.split(key)
    normal = jax.random.normal(within, (posterior.mean.shape[0], count), jnp.float32)
    weights = posterior.mean[:, None] + posterior.factor @ normal
    there = jax.random.bernoulli(among, posterior.chance, (count,))[None]
    weights = jnp.where(there, weights[:-1], _silent(basis)[:, None])
    return effects_of(basis, mask, weights)


def mean_effects(basis: Basis, mask: np.ndarray, posterior: Posterior) -> jax.Array:
    """Returns the means of the effects, in the posterior's unit, float32 [L, O]."""
    weights = posterior.chance * posterior.mean[:-1] + (1 - posterior.chance) * _silent(basis)
    return effects_of(basis, mask, weights)


def _silent(basis: Basis) -> np.ndarray:
    """Returns the weights where scores have no signal, float32 [D - 1]: what is carried is believed."""
    return np.where(basis.carried, np.float32(_CARRIED), np.float32(0))


def effects_of(basis: Basis, mask: np.ndarray, weights: jax.Array) -> jax.Array:
    """Returns the effects of weights [D - 1] or [D - 1, n], float32 [L, O] or [n, L, O]."""
    return (basis.columns @ weights).T.reshape(*weights.shape[1:], *mask.shape)
