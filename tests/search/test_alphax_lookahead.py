"""What is drawn at a node: legal, spread over its edges, the same every time, and read edge by edge."""

import jax
import numpy as np

from parsec.cells.domain import product_domain
from parsec.search.alphax.lookahead import Drawn, best_below, remembered_draws
from parsec.search.alphax.meta_dnn import Training, new_meta_dnn, predict
from parsec.search.alphax.rollouts import hash_rows

DOMAIN = product_domain((3, 4, 2))
TRAINING = Training(widths=(8, 8), members=2, steps=1)


def _legal(prefix: tuple[int, ...]) -> tuple[int, ...]:
    return (0, 2) if len(prefix) == 0 else tuple(range(DOMAIN.sizes[len(prefix)]))


def test_draws_follow_from_the_prefix_the_visits_and_the_weights_alone(key):
    meta = new_meta_dnn(key, DOMAIN.features, 3, TRAINING)
    other = new_meta_dnn(jax.random.key(9), DOMAIN.features, 3, TRAINING)
    draw = remembered_draws(_legal, DOMAIN.features, TRAINING, 3, 12)
    first = draw(meta, (), 4)
    assert draw(meta, (), 5) is first
    assert (draw(meta, (), 6).rows != first.rows).any()
    anew = remembered_draws(_legal, DOMAIN.features, TRAINING, 3, 12)(meta, (), 4)
    np.testing.assert_array_equal(anew.rows, first.rows)
    np.testing.assert_array_equal(anew.predictions, first.predictions)
    assert (draw(other, (), 4).predictions != first.predictions).any()
    assert (draw(meta, (2,), 0).rows[:, 0] == 2).all()


def test_draws_are_legal_spread_evenly_and_answered_by_the_meta_dnn(key):
    meta = new_meta_dnn(key, DOMAIN.features, 3, TRAINING)
    drawn = remembered_draws(_legal, DOMAIN.features, TRAINING, 3, 12)(meta, (), 4)
    assert np.bincount(drawn.rows[:, 0]).tolist() == [6, 0, 6]
    expected = predict(meta, DOMAIN.features, drawn.rows, TRAINING).mean(0)
    np.testing.assert_allclose(drawn.predictions, expected, rtol=1e-6)


def test_the_best_below_an_edge_counts_new_completions_only():
    rows = np.array([[0, 1], [0, 2], [1, 0], [2, 2]], np.int32)
    drawn = Drawn(rows, hash_rows(rows), np.array([0.5, 2.0, -1.0, 3.0], np.float32))
    new = np.array([True, False, True, True])
    np.testing.assert_array_equal(best_below(drawn, new, 0, np.array([0, 1, 3])), [0.5, -1.0, -np.inf])
