"""What strategies compute of fronts, against definitions written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from parsec.report.pareto import hypervolume
from parsec.search.front import SLOPE, contributions, directions, dominates, lengths, quantiles, ranks, reach

SCORES = np.random.default_rng(0).random((12, 2)).astype(np.float32)
SCORES[4] = np.nan
SCORES[7] = SCORES[3]


def beats(first: np.ndarray, second: np.ndarray) -> bool:
    return bool((first >= second).all() and (first > second).any())


def test_dominance_and_fronts_are_those_of_the_definition() -> None:
    found = np.asarray(dominates(jnp.asarray(SCORES), jnp.asarray(SCORES)))
    assert found.tolist() == [[beats(a, b) for b in SCORES] for a in SCORES]
    expected, left = np.full(12, 12), {row for row in range(12) if row != 4}
    for level in range(12):
        front = {row for row in left if not any(beats(SCORES[other], SCORES[row]) for other in left)}
        expected[list(front)] = level
        left -= front
    assert np.asarray(ranks(jnp.asarray(SCORES))).tolist() == expected.tolist() and len(set(expected)) > 3


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_mean_of_the_largest_lengths_is_the_hypervolume_up_to_a_constant(objectives: int) -> None:
    rng = np.random.default_rng(1)
    along = directions(objectives, 4096)
    np.testing.assert_allclose(np.linalg.norm(along, axis=1), 1, atol=0.01)

    def volume(scores: np.ndarray) -> float:
        return float((np.asarray(lengths(jnp.asarray(scores), along)).max(0) ** objectives).mean())

    ratios = []
    for _ in range(5):
        scores = rng.random((6, objectives)).astype(np.float32)
        ratios.append(volume(scores) / hypervolume(scores.astype(float)))
    np.testing.assert_allclose(ratios, ratios[0], rtol=0.03)


def test_contributions_are_to_ones_own_front_and_none_for_equal_rows() -> None:
    scores = jnp.asarray(np.array([[1, 3], [2, 2], [3, 1], [3, 1], [1.9, 1.9], [0.5, 0.5]], np.float32))
    share = np.asarray(contributions(scores, ranks(scores), directions(2, 4096)))
    assert share[2] == share[3] == 0 and (share[[0, 1, 4, 5]] > 0).all()
    # Without the first row one unit cell is lost, without the second one as well.
    assert share[0] == pytest.approx(share[1], rel=0.02)


def test_quantiles_count_what_is_worse_and_half_of_what_is_equal() -> None:
    scores = np.array([[1, 5], [2, 5], [np.nan, 9], [3, 7]], np.float32)
    found = np.asarray(quantiles(jnp.asarray(scores)))
    np.testing.assert_allclose(found[[0, 1, 3]], np.array([[1 / 6, 1 / 3], [1 / 2, 1 / 3], [5 / 6, 5 / 6]]), rtol=1e-6)


def test_along_a_direction_one_that_dominates_reaches_further_than_one_that_is_as_long():
    scores = np.array([[0.4, 0.2], [0.4, 0.6], [-1.0, 0.5], [np.nan, 0.5]], np.float32)
    far = reach(scores, np.array([1.0, 0.5], np.float32))
    np.testing.assert_allclose(far, [0.4 + 0.6 * SLOPE, 0.4 + 1.0 * SLOPE, 0.5 * SLOPE, np.nan], rtol=1e-6)
    # Of NumPy's arrays it makes NumPy's, and of one objective the score, below zero too.
    assert isinstance(far, np.ndarray)
    np.testing.assert_allclose(reach(jnp.array([[-2.0], [3.0]]), jnp.ones(1)), [-2 - 2 * SLOPE, 3 + 3 * SLOPE])
