"""Comparing strategies on NAS-Bench-101 cells, from its config to result.json."""

from dataclasses import replace

import numpy as np
import pytest

from configs.nb101_compare import VARIANTS, get_config
from parsec.cells.nasbench101_cells import cells, decode
from parsec.errors import UserError
from parsec.jobs.tables.compare import run_compare


def test_a_complete_table_is_compared_and_the_best_cell_found(tmp_path):
    pool = cells(4).pool
    adjacency, operations = np.zeros((91, 4, 4), np.uint8), np.full((91, 2), 255, np.uint8)
    sizes = np.zeros(91, np.uint8)
    for at, architecture in enumerate(pool):
        edges, run = decode(architecture, 4)
        sizes[at] = n = len(edges)
        adjacency[at, :n, :n], operations[at, : n - 2] = edges, run
    correct = np.stack([np.arange(91), 9000 + np.arange(91)[::-1]], 1)
    np.savez(
        tmp_path / "all.npz",
        adjacency=adjacency,
        ops=operations,
        n_vertices=sizes,
        valid_acc=correct,
        valid_acc_denominator=np.array([9984]),
        epochs=np.array([4, 108]),
        train_time_s=np.ones(91),
        params=np.ones(91),
    )
    config = replace(
        get_config("sample"),
        data_dir=str(tmp_path / "all.npz"),
        max_vertices=4,
        strategies=("random", "local_search"),
        budget=91,
        seeds=2,
    )
    result = run_compare(config, tmp_path / "run")
    assert result["architectures"] == 91
    assert result["best_objective"] == pytest.approx(100 * 9090 / 9984)
    for found in result["strategies"].values():
        assert found["optimum_hits"] == 2


def test_every_variant_names_a_column_and_a_size_that_fit_together():
    assert {get_config(variant).dataset for variant in VARIANTS} == {"surrogate", "five_vertices", "sample", "official"}
    with pytest.raises(UserError, match="seven"):
        get_config("sevn")


def test_without_data_the_comparison_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="surrogate") as error:
        run_compare(get_config(), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
