"""The surrogate: what it learns, that it is the same every time, and how its quality is told."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from parsec.cells.nasbench101 import canonical_features
from parsec.cells.nasbench101_cells import cells
from parsec.cells.nasbench101_features import parameters
from parsec.tables.nasbench101 import load_sample, load_surrogate
from parsec.tables.surrogate import cross_validate, fit, predict

SMALL = {"iterations": 60, "epochs": 4}


@pytest.fixture(scope="module")
def sized() -> tuple[np.ndarray, np.ndarray]:
    """Features of the cells of five vertices, and a score that they hide: deep and large is good, with a cliff."""
    pool = cells(5).pool
    features = np.asarray(canonical_features(5)(pool))
    scores = 90 + np.log(parameters(pool, 5)) - 60.0 * (features[:, -3] > 0.7)
    return features, scores


def test_ranks_architectures_that_it_has_not_seen(sized):
    features, scores = sized
    surrogate = fit(features[::2], scores[::2], **SMALL)
    unseen = predict(surrogate, features[1::2])
    assert spearmanr(unseen, scores[1::2]).statistic > 0.95
    # It predicts in the units of the scores, over the cliff too.
    assert np.median(np.abs(unseen - scores[1::2])) < 1


def test_is_the_same_every_time_and_for_each_architecture_alone(sized):
    features, scores = sized
    first, second = (fit(features[::4], scores[::4], seed=3, **SMALL) for _ in range(2))
    together = predict(first, features[:50])
    np.testing.assert_array_equal(together, predict(second, features[:50]))
    np.testing.assert_allclose(together[7], predict(first, features[7:8])[0], rtol=1e-6)


def test_a_feature_constant_in_the_sample_says_nothing(sized):
    features, scores = sized
    features = np.concatenate([features, np.ones((len(features), 1), np.float32)], 1)
    surrogate = fit(features[::4], scores[::4], **SMALL)
    changed = features.copy()
    changed[:, -1] = 100.0
    np.testing.assert_array_equal(predict(surrogate, features[:20]), predict(surrogate, changed[:20]))


def test_cross_validation_tells_signal_from_noise(sized):
    features, scores = sized
    good = cross_validate(features[::3], scores[::3], 2, **SMALL)
    noise = cross_validate(features[::3], np.random.default_rng(0).permutation(scores[::3]), 2, **SMALL)
    assert good["kendall"] > 0.8
    assert abs(noise["kendall"]) < 0.15
    assert good["median_absolute_error"] < noise["median_absolute_error"]


def test_predictions_beyond_the_sample_are_not_tied():
    from parsec.tables.surrogate import _scores_at

    known = np.array([10.0, 50.0, 90.0])
    scores = _scores_at(np.array([-0.1, 0.1, 0.5, 1.0, 1.01, 1.02]), np.array([0.2, 0.6, 1.0]), known)
    assert (np.diff(scores) > 0).all()
    assert scores[3] == 90


@pytest.mark.shared_data
@pytest.mark.slow
def test_surrogate_of_nasbench101_ranks_cells_it_was_not_fitted_to(shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    whole = shared_data / "nasbench101_sample30k.npz"
    part = tmp_path / "every_tenth.npz"
    arrays = np.load(whole)
    count = len(arrays["adjacency"])
    np.savez(part, **{name: value[::10] if len(value) == count else value for name, value in arrays.items()})
    table, sample = load_surrogate(part, 6), load_sample(whole, 6)
    assert table.columns["surrogate_valid_108"].shape == (64542,)
    fitted = {row.tobytes() for row in load_sample(part, 6).architectures}
    unseen = np.array([row.tobytes() not in fitted for row in sample.architectures])
    predicted = table.columns["surrogate_valid_108"][table.find(sample.architectures[unseen])]
    assert spearmanr(predicted, sample.columns["valid_108"][unseen]).statistic > 0.95
    assert len(list((tmp_path / "parsec").iterdir())) == 1
    again = load_surrogate(part, 6)
    np.testing.assert_array_equal(again.columns["surrogate_valid_108"], table.columns["surrogate_valid_108"])
