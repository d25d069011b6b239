"""NSGA-II of pymoo on a table: what is a query, and that it searches."""

import warnings

import numpy as np
import pytest

from parsec.report.pareto import hypervolume
from parsec.tables.table import make_table


def test_a_query_is_the_first_evaluation_and_the_front_is_found() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pymoo.algorithms.moo.nsga2")
    from benchmarks.nsga2 import one_run

    sizes = (4, 4, 4, 4)
    rows = np.stack(np.unravel_index(np.arange(256), sizes), 1)
    scaled = np.stack([rows[:, :2].sum(1) / 6, 1 - rows.sum(1) / 12], 1)
    table = make_table("toy", np.array(sizes), rows, {"x": scaled[:, 0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = one_run(table, scaled, 100, 10, 0)
    assert len(np.unique(found)) == 100 and found.min() >= 0
    drawn = np.random.default_rng(0).permutation(256)[:100]
    assert hypervolume(scaled[found]) > hypervolume(scaled[drawn])
