import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from parsec.cells.domain import product_domain
from parsec.search.lanas.archive import to_values
from parsec.search.lanas.encoding import linear_margin, make_encoding
from parsec.search.lanas.tree import (
    empty_tree,
    expert_of,
    fit_ridge,
    fit_tree,
    leaves,
    path_of,
    ranked_leaves,
    region_of,
    ucb,
    visit,
)

DOMAIN = product_domain((3, 4, 2, 3))
FIT = {"height": 5, "min_samples": 5, "ridge": 0.01, "threshold": "mean"}


def _samples(seed: int, n: int, interactions: bool = True):
    rng = np.random.default_rng(seed)
    encoding = make_encoding(DOMAIN, interactions=interactions)
    rows = np.asarray(DOMAIN.pool)[rng.choice(len(DOMAIN.pool), n, replace=False)]
    values = rows @ np.array([1.0, 0.5, -2.0, 0.2]) + rows[:, 0] * rows[:, 3] + rng.normal(0, 0.5, n)
    return encoding, rows, encoding.expand(encoding.encode(rows)), values


@pytest.mark.parametrize("n", [6, 40])
def test_ridge_is_the_closed_form_in_primal_and_dual(n):
    _, _, encoded, values = _samples(0, n, interactions=False)
    penalty = 0.1 * np.mean(np.sum((encoded - encoded.mean(0)) ** 2, 1))
    expected = Ridge(alpha=float(penalty)).fit(encoded.astype(np.float64), values)
    weights, intercept = fit_ridge(encoded, values, 0.1)
    np.testing.assert_allclose(weights, expected.coef_, atol=2e-5)
    np.testing.assert_allclose(intercept, expected.intercept_, atol=2e-5)


def test_ridge_of_a_constant_is_that_constant():
    _, _, encoded, _ = _samples(0, 20)
    weights, intercept = fit_ridge(encoded, np.full(20, 7.0), 0.1)
    np.testing.assert_allclose(weights, 0, atol=1e-6)
    assert intercept == pytest.approx(7.0)


def test_pairs_hold_what_a_linear_encoding_cannot():
    # Exclusive or of two binary choices: no linear function of the one-hots correlates with it.
    domain = product_domain((2, 2))
    rows = np.asarray(domain.pool)
    values = (rows[:, 0] ^ rows[:, 1]).astype(float)
    for interactions, error in ((False, 0.5), (True, 0.0)):
        encoding = make_encoding(domain, interactions=interactions)
        encoded = encoding.expand(encoding.encode(rows))
        weights, intercept = fit_ridge(encoded, values, 1e-4)
        np.testing.assert_allclose(np.abs(encoded @ weights + intercept - values), error, atol=1e-3)


def test_pairs_that_never_vary_are_dropped_and_the_margin_is_their_linear_function():
    encoding, rows, encoded, _ = _samples(1, 50)
    width = sum(DOMAIN.sizes)
    # Of the 66 pairs, those within one choice are always zero: 3 + 6 + 1 + 3.
    assert len(encoding.pairs) == width * (width - 1) // 2 - 13
    weights = np.random.default_rng(0).normal(size=encoded.shape[1]).astype(np.float32)
    np.testing.assert_allclose(
        linear_margin(encoding, weights, 0.5).of(encoding.encode(rows)), encoded @ weights + 0.5, atol=1e-4
    )


def test_the_lighter_products_are_the_less_a_regression_believes_in_them():
    domain = product_domain((2, 2))
    rows = np.asarray(domain.pool)
    values = (rows[:, 0] ^ rows[:, 1]).astype(float)
    held = []
    for weight in (1.0, 0.3, 0.1):
        encoding = make_encoding(domain, interactions=True, weight=weight)
        encoded = encoding.expand(encoding.encode(rows))
        weights, intercept = fit_ridge(encoded, values, 0.03)
        predicted = encoded @ weights + intercept
        margin = linear_margin(encoding, weights, intercept).of(encoding.encode(rows))
        np.testing.assert_allclose(margin, predicted, atol=1e-5)
        held.append(float(np.ptp(predicted)))
    assert held[0] > 0.9 and held[1] < 0.8 and held[2] < 0.3


def test_most_pairs_keeps_those_that_vary_most():
    few = make_encoding(DOMAIN, interactions=True, most_pairs=4)
    # The product of two options is active with probability 1 / (size * size'): choices of 2 and 3 options vary most.
    owner = np.repeat(np.arange(4), DOMAIN.sizes)
    assert len(few.pairs) == 4
    assert all(2 in owner[pair] for pair in few.pairs)


def test_evaluated_architectures_are_counted_where_their_prediction_sends_them():
    _, _, encoded, values = _samples(2, 60)
    tree = fit_tree(encoded, values, **FIT)
    assert tree.split[0] and tree.split.sum() >= 3
    scored, total = np.zeros_like(tree.scored), np.zeros_like(tree.total)
    for vector, value in zip(encoded, values, strict=True):
        path = path_of(tree, vector)
        scored[path] += 1
        total[path] += value
    np.testing.assert_array_equal(tree.scored, scored)
    np.testing.assert_array_equal(tree.visits, scored)
    np.testing.assert_allclose(tree.total, total)
    for node in np.flatnonzero(tree.split):
        assert min(tree.scored[2 * node + 1], tree.scored[2 * node + 2]) >= FIT["min_samples"]


def test_a_lucky_architecture_is_routed_by_prediction_not_by_its_score():
    _, rows, encoded, _ = _samples(3, 60, interactions=False)
    values = rows[:, 0].astype(float)
    unlucky = int(np.flatnonzero(rows[:, 0] == 0)[0])
    values[unlucky] = 2.0
    tree = fit_tree(encoded, values, **{**FIT, "height": 2})
    assert path_of(tree, encoded[unlucky]) == [0, 2]
    assert values[unlucky] > tree.total[0] / tree.scored[0]


def test_small_or_tied_nodes_are_not_split():
    _, _, encoded, values = _samples(4, 9)
    assert not fit_tree(encoded, values, **FIT).split.any()
    _, _, encoded, _ = _samples(4, 40)
    assert not fit_tree(encoded, np.full(40, 3.0), **FIT).split.any()
    assert leaves(fit_tree(encoded, np.full(40, 3.0), **FIT)) == [0]


def test_the_median_halves_what_is_known():
    _, _, encoded, values = _samples(5, 60)
    tree = fit_tree(encoded, np.exp(values), **{**FIT, "threshold": "median", "height": 2})
    assert tree.scored[1] == tree.scored[2] == 30
    mean = fit_tree(encoded, np.exp(values), **{**FIT, "height": 2})
    assert mean.scored[1] < 30


def test_ucb_is_the_published_bound():
    assert ucb(0.5, 4, 16, exploration=0.1) == pytest.approx(0.5 + 0.2 * np.sqrt(2 * np.log(16) / 4))
    assert ucb(0.5, 4, 16, exploration=0.1, form="sqrt") == pytest.approx(0.5 + 0.2 * np.sqrt(2 * 4 / 4))
    assert ucb(0.5, 0, 16, exploration=0.1) == np.inf


def test_leaves_are_tried_by_mean_or_by_novelty():
    _, _, encoded, values = _samples(6, 70)
    tree = fit_tree(encoded, values, **{**FIT, "height": 3})
    order = ranked_leaves(tree, exploration=0.0, form="log")
    assert sorted(order) == sorted(leaves(tree))
    mean = tree.total / np.maximum(tree.scored, 1)
    node = 0
    while tree.split[node]:
        node = max(2 * node + 1, 2 * node + 2, key=lambda child: mean[child])
    assert order[0] == node
    # A thousand more visits to the best half send a curious search to the other.
    often = visit(tree, [0, 1], visits=1000)
    assert (
        region_of(
            often, ranked_leaves(often, exploration=1e3, form="log")[0], make_encoding(DOMAIN, interactions=True)
        )[0].positive
        is False
    )


def test_regions_partition_the_space_as_paths_do():
    encoding, _, encoded, values = _samples(7, 70)
    tree = fit_tree(encoded, values, **FIT)
    pool = np.asarray(DOMAIN.pool)
    features = encoding.encode(pool)
    ends = np.array([path_of(tree, vector)[-1] for vector in encoding.expand(features)])
    held = {leaf: np.ones(len(pool), bool) for leaf in leaves(tree)}
    for leaf, inside in held.items():
        for half in region_of(tree, leaf, encoding):
            inside &= half.contains(features)
    np.testing.assert_array_equal(sum(inside.astype(int) for inside in held.values()), 1)
    # Both ways of computing a margin round differently; that may move an architecture on the very boundary.
    same = np.mean([held[leaf][at] for at, leaf in enumerate(ends)])
    assert same > 0.98


def test_visits_and_values_are_counted_apart_and_nothing_is_changed_in_place():
    _, _, encoded, values = _samples(8, 40)
    tree = fit_tree(encoded, values, **FIT)
    before = jax.tree.map(np.copy, tree)
    asked = visit(tree, [0, 1], visits=1)
    told = visit(asked, [0, 1], visits=0, value=2.0)
    failed = visit(asked, [0, 1], visits=-1)
    jax.tree.map(np.testing.assert_array_equal, tree, before)
    assert (asked.visits - tree.visits)[:3].tolist() == [1, 1, 0]
    assert (told.visits == asked.visits).all() and told.total[1] == pytest.approx(tree.total[1] + 2.0)
    jax.tree.map(np.testing.assert_array_equal, failed, tree)


def test_the_expert_is_the_deepest_regression_with_enough_behind_it():
    _, _, encoded, values = _samples(9, 70)
    tree = fit_tree(encoded, values, **FIT)
    leaf = leaves(tree)[0]
    assert leaf > 2
    assert expert_of(tree, leaf, 10**6) == 0
    assert expert_of(tree, leaf, int(tree.scored[1])) == 1
    assert expert_of(empty_tree(3, 12), 0, 1) == 0


def test_values_are_ranks_that_no_outlier_moves():
    known = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(to_values(known, known, "rank"), [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(to_values(known, known, "log_rank"), -np.log1p(-np.array([0.125, 0.375, 0.625, 0.875])))
    stretched = np.array([-1e9, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(to_values(stretched, stretched, "log_rank"), to_values(known, known, "log_rank"))
    np.testing.assert_array_equal(to_values(known, known, "score"), known)
    # What beats everything known is worth no more than half a place above the best, and is finite.
    assert np.isfinite(to_values(np.array([9.0]), known, "log_rank")).all()
