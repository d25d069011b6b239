"""Where an architecture stands: by the table's own figures, or by a prediction that is named as one."""

from dataclasses import replace

import numpy as np
import pytest

from parsec.cells.darts import DARTS
from parsec.cells.nasbench201 import NASBENCH201
from parsec.tables import standing as module
from parsec.tables.nasbench301 import ordered
from parsec.tables.standing import edge_counts, standing
from parsec.tables.table import Table, make_table

CONVOLUTION = DARTS.operations.index("sep_conv_3x3")


def value(architectures: np.ndarray) -> np.ndarray:
    """The more separable convolutions, those that read the cell's inputs above all, the better."""
    chosen = architectures[:, 1::2] == CONVOLUTION
    return 90.0 + chosen.sum(1) + (chosen & (architectures[:, ::2] < 2)).sum(1)


@pytest.fixture(scope="module")
def sample() -> Table:
    cells = np.random.default_rng(0).integers(0, DARTS.sizes, (300, len(DARTS.sizes)))
    return replace(make_table("sample", DARTS.sizes, cells, {"score": value(cells)}), ranked_by="score")


def test_a_cell_that_the_table_holds_has_its_figures_and_its_place():
    cells = np.array([[0] * 6, [1] * 6, [2] * 6, [3] * 6])
    columns = {"test": np.array([90.0, np.nan, 92.0, 91.0]), "seconds": np.array([1.0, 2.0, np.inf, 4.0])}
    table = replace(make_table("small", np.full(6, 5), cells, columns), ranked_by="test")
    assert standing(NASBENCH201, table, cells[3]) == {"test": 91.0, "seconds": 4.0, "share_above": 0.3333}
    assert standing(NASBENCH201, table, cells[2]) == {"test": 92.0, "seconds": None, "share_above": 0.0}
    # Of one that failed nothing is known, not even its place.
    assert standing(NASBENCH201, table, cells[1]) == {"test": None, "seconds": 2.0, "share_above": None}


def test_a_cell_that_the_table_does_not_hold_is_placed_by_a_prediction(sample: Table, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_FIT", {"iterations": 40, "epochs": 10})
    good, bad = np.zeros((2, len(DARTS.sizes)), np.int32)
    good[1::2] = CONVOLUTION
    best, worst = (standing(DARTS, sample, cell) for cell in (good, bad))
    assert list(best) == list(worst)
    assert best["predicted_score"] > 97 > 93 > worst["predicted_score"]
    assert best["share_above"] < 0.05 < 0.75 < worst["share_above"]
    assert best["random_share_above"] < 0.05 < 0.75 < worst["random_share_above"]
    assert 0.6 < best["kendall"] < 1 and best["architectures"] == 300
    # No cell of the sample is of one operation only.
    assert best["extrapolated"] and worst["extrapolated"]
    turned = sample.architectures[:1].copy()
    turned[:, 0] = 1 - turned[:, 0]
    assert not standing(DARTS, sample, turned[0])["extrapolated"]


def test_the_features_count_every_edge_and_do_not_see_the_order_of_slots(sample: Table):
    counts = edge_counts(DARTS, sample.architectures)
    # Two kinds of cells, eight slots in each, each slot counted by three pairs.
    assert (counts.sum(1) == 2 * 8 * 3).all() and counts.dtype == np.float32
    turned = sample.architectures.reshape(-1, 8, 2, 2)[:, :, ::-1].reshape(300, -1)
    np.testing.assert_array_equal(edge_counts(DARTS, turned), counts)
    same = (np.asarray(ordered(sample.architectures))[:, None] == np.asarray(ordered(sample.architectures))).all(2)
    assert ((counts[:, None] == counts[None]).all(2) == same).mean() > 0.99
    # Fixed sources are counted as chosen ones are.
    cells = np.eye(6, dtype=int)
    assert (edge_counts(NASBENCH201, cells).sum(1) == 6 * 3).all()
    assert len(np.unique(edge_counts(NASBENCH201, cells), axis=0)) == 6
