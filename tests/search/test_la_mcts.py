import numpy as np
import pytest

from parsec.cells.domain import product_domain
from parsec.search.la_mcts import Fit, fit_split
from parsec.search.lanas.encoding import linear_margin, make_encoding

DOMAIN = product_domain((3, 3, 3, 3))
ENCODING = make_encoding(DOMAIN, interactions=False)
SPLIT = {"leaf_size": 20, "min_samples": 5, "kernel": "rbf"}


def _fit(values: np.ndarray, rows: np.ndarray) -> Fit:
    ranking = linear_margin(ENCODING, np.zeros(12, np.float32), 0.0)
    return Fit(b"name", ENCODING.encode(rows), values, ranking)


def _known(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(DOMAIN.pool)[np.random.default_rng(0).permutation(81)[:n]]
    return rows, (2.0 * (rows[:, 0] == 2) + rows[:, 1] * 0.1).astype(np.float64)


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly"])
def test_a_split_parts_better_from_worse_where_the_machine_says(kernel):
    rows, values = _known()
    split = fit_split(_fit(values, rows), np.arange(60), (), **{**SPLIT, "kernel": kernel})
    assert split is not None
    assert sorted([*split.good, *split.bad]) == list(range(60))
    assert values[split.good].mean() > values[split.bad].mean() + 0.5
    np.testing.assert_array_equal(split.margin.of(ENCODING.encode(rows))[split.good] >= 0, True)
    np.testing.assert_array_equal(split.margin.of(ENCODING.encode(rows))[split.bad] < 0, True)
    # What it learnt holds for architectures it has not seen.
    unseen = np.asarray(DOMAIN.pool)[np.random.default_rng(0).permutation(81)[60:]]
    good = split.margin.of(ENCODING.encode(unseen)) >= 0
    assert (good == (unseen[:, 0] == 2)).mean() > 0.8


def test_the_better_side_is_positive_whichever_cluster_it_is():
    rows, values = _known()
    for sign in (1.0, -1.0):
        split = fit_split(_fit(sign * values, rows), np.arange(60), (), **SPLIT)
        assert split is not None
        assert (sign * values)[split.good].mean() > (sign * values)[split.bad].mean()


def test_small_tied_or_lopsided_nodes_are_leaves():
    rows, values = _known()
    assert fit_split(_fit(values, rows), np.arange(20), (), **SPLIT) is None
    assert fit_split(_fit(np.ones(60), rows), np.arange(60), (), **SPLIT) is None
    lone = np.zeros(60)
    lone[0] = 1.0
    assert fit_split(_fit(lone, rows), np.arange(60), (), **{**SPLIT, "min_samples": 40}) is None


def test_splits_depend_on_path_and_name_only():
    rows, values = _known()
    names = {
        fit_split(_fit(values, rows), np.arange(60), path, **SPLIT).margin.name  # pyright: ignore
        for path in ((), (True,), (False,), (True, False))
        for _ in range(2)
    }
    assert len(names) == 4
