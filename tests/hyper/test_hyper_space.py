"""The joint space: one vector for each network, neighbours that stay inside, counts that are exact, honest levels."""

import itertools

import jax
import numpy as np
import pytest

from parsec.errors import UserError
from parsec.hyper.network import ConvNet, Task, fresh
from parsec.hyper.space import (
    HyperParameters,
    HyperSpace,
    extreme_counts,
    hyper_domain,
    integer_levels,
    map_sizes,
    parameter_count,
    real_levels,
    to_text,
)

TINY = HyperSpace((2, 4), (3, 5), (0.001, 0.1), (1, 8))


def canonical(space: HyperSpace) -> np.ndarray:
    """Returns every valid vector, by decoding all."""
    kept = []
    for vector in itertools.product(*map(range, space.sizes)):
        try:
            space.decode(np.array(vector))
        except UserError:
            continue
        kept.append(vector)
    return np.array(kept, np.int32)


def test_no_network_has_two_vectors_and_valid_tells_them() -> None:
    every = np.array(list(itertools.product(*map(range, TINY.sizes))), np.int32)
    kept = canonical(TINY)
    valid = np.asarray(hyper_domain(TINY).valid(every))
    np.testing.assert_array_equal(every[valid], kept)
    assert len(kept) == TINY.cardinality == len({TINY.decode(vector) for vector in kept})


def test_samples_mutations_and_neighbours_are_valid_and_one_decision_away(space: HyperSpace) -> None:
    domain, key = hyper_domain(space), jax.random.key(0)
    rows = np.asarray(domain.sample(key, 400))
    assert np.asarray(domain.valid(rows)).all()
    # Every decision that counts is uniform: a third of the networks has each depth.
    assert (np.abs(np.bincount(rows[:, 0]) - 400 / 3) < 40).all()
    mutate = jax.jit(domain.mutate)
    for at, row in enumerate(rows[:30]):
        around = domain.neighbours(row)
        assert np.asarray(domain.valid(around)).all() and (around != row).any(1).all()
        assert len(np.unique(around, axis=0)) == len(around)
        child = np.asarray(mutate(jax.random.fold_in(key, at), row))
        assert (around == child).all(1).any()


def test_an_added_layer_is_as_wide_as_the_last_and_a_removed_one_leaves_nothing() -> None:
    domain = hyper_domain(TINY)
    one = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], np.int32)
    deeper = [row for row in domain.neighbours(one) if row[0] == 2]
    assert [row[1:4].tolist() for row in deeper] == [[1, 1, 1]]
    back = [row for row in domain.neighbours(deeper[0]) if row[0] == 0]
    np.testing.assert_array_equal(back, [one])


def test_legal_prefixes_end_in_valid_vectors_and_in_all_of_them() -> None:
    domain, found = hyper_domain(TINY), [()]
    for _ in TINY.sizes:
        found = [(*prefix, int(option)) for prefix in found for option in np.flatnonzero(domain.legal(prefix))]
    np.testing.assert_array_equal(np.array(found), canonical(TINY))


def test_the_encoding_tells_all_vectors_apart_and_is_bounded(space: HyperSpace) -> None:
    domain = hyper_domain(space)
    rows = np.unique(np.asarray(domain.sample(jax.random.key(1), 300)), axis=0)
    features = np.asarray(domain.features(rows))
    assert np.abs(features).max() <= 1 and len(np.unique(features, axis=0)) == len(rows)


@pytest.mark.parametrize("vector", [0, 1, 2, 3, 4, 5])
def test_parameters_are_those_of_the_built_network(vector: int, space: HyperSpace, task: Task) -> None:
    row = np.asarray(hyper_domain(space).sample(jax.random.key(vector), 1))[0]
    hyper = space.decode(row)
    images = np.zeros((2, *task.image), np.float32)
    built = dict(jax.eval_shape(lambda key: ConvNet(hyper, 2).init(key, images, False), jax.random.key(0)))
    total = sum(leaf.size for leaf in jax.tree.leaves(built["params"]))
    assert parameter_count(hyper, task.image, 2) == total
    first = fresh(hyper, task.image, 2, np.random.default_rng(0))
    assert jax.tree.map(np.shape, first) == jax.tree.map(np.shape, built)


def test_the_paper_s_spatial_sizes_and_its_extreme_networks() -> None:
    hyper = HyperParameters((16, 16, 16), (True,) * 3, 3, False, False, (2,), 0.1, 1)
    assert [height * width for height, width in map_sizes(hyper, 28, 28)] == [196, 49, 9]
    assert [height * width for height, width in map_sizes(hyper, 16, 16)] == [64, 16, 4]
    # By hand: 3x3x1x16 + 16, twice 3x3x16x16 + 16, 9x16 to 2, 2 to 10.
    assert parameter_count(hyper, (28, 28, 1), 10) == 160 + 2 * 2320 + 290 + 30
    paper = HyperSpace((16, 1024), (2, 512), (1e-5, 1.0), (1, 512))
    least, most = extreme_counts(paper, (28, 28, 1), 10)
    # One 3x3 convolution, the mean over its map, one fc of two units, the head.
    assert least == 160 + 34 + 30 and most > 10**8


def test_text_shows_what_a_vector_stands_for() -> None:
    hyper = TINY.decode(np.array([1, 1, 0, 0, 2, 1, 0, 0, 1, 0, 0, 1, 1]))
    assert to_text(hyper) == "conv 4 2 of 7x7, batch norm, fc 5, lr 0.1, batch 8"


def test_levels_are_as_many_as_stated_or_refused() -> None:
    assert integer_levels((2, 512), 9, "levels.fc") == (2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert real_levels((1e-5, 1.0), 6, "levels.rate") == (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0)
    with pytest.raises(UserError, match=r"config\.levels\.fc has 9 levels from 2 to 5, of which only 4 are different"):
        integer_levels((2, 5), 9, "levels.fc")
    with pytest.raises(UserError, match=r"runs from 8 to 8"):
        integer_levels((8, 8), 2, "levels.conv")
    with pytest.raises(UserError, match=r"both are positive"):
        real_levels((0.0, 1.0), 3, "levels.rate")


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ([0] * 12, r"the joint space has 13 integers, not int64 \[12\]"),
        ([3] + [0] * 12, r"option 3 of choice 'n_conv_l' is outside 0\.\.2"),
        ([0, 0, 1] + [0] * 10, r"choice 'n_conv_1' is of a layer that does not exist; it must be 0"),
    ],
)
def test_a_vector_that_is_none_is_refused(vector: list[int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TINY.decode(np.array(vector))
