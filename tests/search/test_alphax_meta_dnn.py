"""The Meta-DNN: it learns what can be learnt, knows when it has not, and compiles once per capacity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr

from parsec.cells.domain import product_domain
from parsec.search.alphax.meta_dnn import (
    Training,
    held_out_quality,
    new_meta_dnn,
    predict,
    rank_correlation,
    train,
)
from parsec.search.alphax.values import VALUES, quantiles

DOMAIN = product_domain((4,) * 5)
TRAINING = Training(widths=(32, 32), members=4, steps=150)


def _problem(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    worth = rng.normal(size=(5, 4))
    rows = rng.integers(0, 4, (n, 5)).astype(np.int32)
    targets = worth[np.arange(5), rows].sum(1)
    return rows, (targets - targets.mean()) / targets.std()


def test_it_learns_and_says_how_well(key):
    rows, targets = _problem(400)
    folds = (np.arange(200) % TRAINING.members).astype(np.int32)
    meta = new_meta_dnn(key, DOMAIN.features, 5, TRAINING)
    assert not meta.trusted
    meta = train(key, meta, DOMAIN.features, rows[:200], targets[:200], folds, TRAINING)
    assert meta.trusted
    assert float(meta.correlation) > 0.9
    assert 0.7 < float(meta.gain) < 1.0
    unseen = predict(meta, DOMAIN.features, rows[200:], TRAINING)
    assert unseen.shape == (4, 200)
    assert rank_correlation(unseen.mean(0), targets[200:]) > 0.9
    again = train(key, meta, DOMAIN.features, rows[:200], targets[:200], folds, TRAINING)
    assert float(again.gain) > float(meta.gain)


def test_a_member_never_learns_from_its_own_fold(key):
    rows, targets = _problem(60)
    folds = (np.arange(60) % TRAINING.members).astype(np.int32)
    changed = np.where(folds == 2, targets + 5.0, targets)
    meta = new_meta_dnn(key, DOMAIN.features, 5, TRAINING)
    one = train(key, meta, DOMAIN.features, rows, targets, folds, TRAINING)
    two = train(key, meta, DOMAIN.features, rows, changed, folds, TRAINING)
    before, after = (predict(m, DOMAIN.features, rows, TRAINING) for m in (one, two))
    np.testing.assert_array_equal(before[2], after[2])
    assert np.abs(before[0] - after[0]).max() > 0.5


def test_noise_is_not_trusted(key):
    rows, _ = _problem(80)
    noise = np.random.default_rng(0).normal(size=80)
    folds = (np.arange(80) % TRAINING.members).astype(np.int32)
    meta = new_meta_dnn(key, DOMAIN.features, 5, TRAINING)
    meta = train(key, meta, DOMAIN.features, rows, noise, folds, TRAINING)
    assert float(meta.gain) < 0.0
    assert not meta.trusted


def test_it_compiles_once_per_capacity(key):
    traced = []

    def features(architectures):
        traced.append(architectures.shape)
        return jax.nn.one_hot(jnp.asarray(architectures), 4, dtype=jnp.float32).reshape(-1, 20)

    rows, targets = _problem(1100)
    meta = new_meta_dnn(key, features, 5, TRAINING)
    for n in (20, 21, 100, 1024):
        folds = (np.arange(n) % TRAINING.members).astype(np.int32)
        meta = train(key, meta, features, rows[:n], targets[:n], folds, TRAINING)
        predict(meta, features, rows[: n % 16 + 1], TRAINING)
    # The first weights, one training and one prediction.
    assert traced == [(1, 5), (1024, 5), (16, 5)]
    folds = (np.arange(1100) % TRAINING.members).astype(np.int32)
    train(key, meta, features, rows, targets, folds, TRAINING)
    assert traced[3:] == [(16384, 5)]


def test_held_out_figures_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=30)
    predictions = targets + rng.normal(size=30)
    folds = rng.integers(0, 3, 30)
    constant = np.array([targets[folds != fold].mean() for fold in folds])
    correlation, gain = held_out_quality(predictions, targets, folds)
    assert correlation == pytest.approx(spearmanr(predictions, targets)[0])
    assert gain == pytest.approx(1 - ((targets - predictions) ** 2).sum() / ((targets - constant) ** 2).sum())
    assert held_out_quality(constant, targets, folds)[1] == pytest.approx(0.0)
    tied = np.array([1.0, 1.0, 2.0, 3.0, 3.0])
    assert rank_correlation(tied, targets[:5]) == pytest.approx(spearmanr(tied, targets[:5])[0])
    assert np.isnan(rank_correlation(np.ones(5), targets[:5]))
    assert held_out_quality(np.zeros(6), np.ones(6), np.arange(6) % 2)[1] == 0.0


@pytest.mark.parametrize("kind", VALUES)
def test_predictions_and_scores_share_their_units(kind):
    """Predicting a score's own target exactly gives the value of the score."""
    values = VALUES[kind]
    scores = np.random.default_rng(0).normal(90.0, 4.0, 50)
    scale = np.sort(scores)
    targets = values.targets(scale, scores)
    assert abs(targets.mean()) < 0.05
    assert 0.8 < targets.std() < 1.1
    np.testing.assert_allclose(values.of_predictions(scale, targets), values.of_scores(scale, scores), rtol=1e-9)


def test_quantiles_are_inside_zero_and_one_and_ties_share_the_middle():
    scale = np.array([1.0, 2.0, 2.0, 5.0])
    np.testing.assert_allclose(
        quantiles(scale, np.array([0.0, 1.0, 2.0, 5.0, 9.0])), np.array([0.5, 1, 2.5, 4, 4.5]) / 5
    )
    assert quantiles(np.zeros(0), np.array([3.0])) == 0.5
    assert VALUES["min_max"].bounds(scale) == (1.0, 5.0)
    assert VALUES["min_max"].bounds(scale[1:3]) == (2.0, 3.0)
