"""Gaussian processes over architectures: their posterior against a dense one, and what they are for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells import get_space
from parsec.cells.domain import product_domain
from parsec.search.gaussian_process import Process, fit, make_features, predict

SPACE = get_space("darts")
DOMAIN = product_domain(tuple(map(int, SPACE.sizes)), common=SPACE.common)
MISSING = (3, 17)


def drawn(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, SPACE.sizes, (count, len(SPACE.sizes)), dtype=np.int32)


def collapse(architectures: np.ndarray) -> np.ndarray:
    """Cells of few convolutions learn little."""
    convolutions = (architectures[:, 1::2] >= 3).sum(1)
    return np.where(convolutions < 7, 20.0, 40.0) + 0.3 * convolutions


def peak(architectures: np.ndarray) -> np.ndarray:
    """What no sum of effects is: four or five of the normal cell's eight operations are convolutions."""
    return -(((architectures[:, 1:16:2] >= 3).sum(1) - 4.5) ** 2)


def learn(architectures: np.ndarray, scores: np.ndarray, asked: np.ndarray) -> tuple[Process, np.ndarray, np.ndarray]:
    features = make_features(DOMAIN)

    @jax.jit
    def both(rows: jax.Array, told: jax.Array, others: jax.Array) -> tuple[Process, jax.Array, jax.Array]:
        process = fit(features, rows, told)
        return process, *predict(features, process, rows, jnp.isfinite(told), others)

    process, mean, factor = both(architectures, scores.astype(np.float32), asked)
    return process, np.asarray(mean), np.asarray(factor)


def test_the_posterior_is_that_of_the_dense_formulas():
    architectures, asked = drawn(0, 30), drawn(1, 5)
    scores = collapse(architectures) + np.random.default_rng(2).normal(size=30)
    scores[list(MISSING)] = np.nan
    process, mean, factor = learn(architectures, scores, asked)
    kept = np.isfinite(scores)
    features = make_features(DOMAIN)
    rows = jnp.asarray(np.concatenate([architectures[kept], asked]))
    common, own = (np.asarray(of(rows), np.float64) for of in features)
    squares = ((common[:, None] - common[None]) ** 2).sum(-1)
    parts = [common @ common.T, *(np.exp(-0.5 * squares / length**2) for length in (0.5, 1.0, 2.0)), own @ own.T]
    signal, count = float(process.signal), int(kept.sum())
    # The one is an intercept's.
    covariance = (np.tensordot(np.asarray(process.parts, np.float64), np.stack(parts), 1) + 1) * signal / (1 - signal)
    # No score is an outlier here, so that the unit is the plain deviation.
    target = (scores[kept] - scores[kept].mean()) / scores[kept].std()
    assert float(process.unit) == pytest.approx(scores[kept].std(), rel=1e-4)
    inverse = np.linalg.inv(covariance[:count, :count] + np.eye(count))
    across = covariance[count:, :count]
    expected = scores[kept].mean() + scores[kept].std() * across @ inverse @ target
    np.testing.assert_allclose(mean, expected, rtol=2e-3)
    left = covariance[count:, count:] - across @ inverse @ across.T
    noise = target @ inverse @ target / count
    assert float(process.noise) == pytest.approx(noise, rel=1e-3)
    found = factor @ factor.T / float(process.unit) ** 2
    np.testing.assert_allclose(found, noise * left, atol=0.01 * noise * np.abs(left).max())


def test_what_is_no_sum_of_effects_is_learnt():
    architectures, asked = drawn(3, 200), drawn(4, 300)
    scores = peak(architectures) + 0.3 * peak(architectures).std() * np.random.default_rng(5).normal(size=200)
    process, mean, _ = learn(architectures, scores, asked)
    # An additive model of the same scores has -0.18.
    assert np.corrcoef(mean, peak(asked))[0, 1] > 0.2 and np.asarray(process.parts)[1:4].sum() > 0


def test_a_cost_is_learnt_nearly_exactly():
    # What a search concentrates on is on average another cell than a uniform one.
    architectures, asked = drawn(3, 400), drawn(4, 300)
    architectures = architectures[np.argsort(-(architectures[:, 1::2] >= 3).sum(1))[:96]]
    each = np.random.default_rng(6).random(7)
    cost, others = (each[rows[:, 1::2]].sum(1) for rows in (architectures, asked))
    process, predicted, _ = learn(architectures, cost, asked)
    assert float(process.signal) > 0.9
    assert np.abs(predicted - others).mean() < 0.05 * others.std()


def test_scores_of_noise_are_expected_to_be_their_mean():
    architectures = drawn(7, 96)
    noise = 5 + np.random.default_rng(8).normal(size=96)
    _, mean, _ = learn(architectures, noise, drawn(9, 300))
    assert mean.mean() == pytest.approx(noise.mean(), abs=0.2) and mean.std() < 0.5


def test_one_score_that_is_far_out_does_not_hide_the_others():
    architectures, asked = drawn(3, 200), drawn(4, 300)
    scores = collapse(architectures) + np.random.default_rng(5).normal(size=200)
    without = np.corrcoef(learn(architectures, scores, asked)[1], collapse(asked))[0, 1]
    scores[0] = -1e6
    beside = np.corrcoef(learn(architectures, scores, asked)[1], collapse(asked))[0, 1]
    assert without > 0.4 and beside > without - 0.1
