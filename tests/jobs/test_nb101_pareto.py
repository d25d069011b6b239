"""A search for fronts on NAS-Bench-101 cells: accuracy and energy, constraints, and cells written out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.nb101_pareto import VARIANTS, get_config
from parsec.cells.nasbench101 import domain as whole_space
from parsec.cells.nasbench101_cells import cells, decode
from parsec.errors import UserError
from parsec.jobs.tables.pareto import load_problem, load_told, run_pareto
from parsec.report.pareto import front_rows, hypervolume
from parsec.settings.pareto import ParetoConfig

VALID = 0.1 + 0.8 * np.random.default_rng(0).random(91)
ENERGY = np.round(0.02 + 0.05 * VALID + 0.01 * np.random.default_rng(1).random(91), 6)


@pytest.fixture
def config(tmp_path: Path) -> ParetoConfig:
    """All 91 cells of at most four vertices, in the format of EC-NAS."""
    adjacency, operations = np.zeros((91, 5, 5), np.uint8), np.full((91, 3), 255, np.uint8)
    sizes = np.zeros(91, np.uint8)
    for at, architecture in enumerate(cells(4).pool):
        edges, run = decode(architecture, 4)
        sizes[at] = n = len(edges)
        adjacency[at, :n, :n], operations[at, : n - 2] = edges, run
    both = {"valid_acc": VALID, "train_acc": VALID, "test_acc": VALID - 0.05, "train_time_s": 1000 * ENERGY}
    np.savez(
        tmp_path / "ecnas_5v_4epochs.npz",
        adjacency=adjacency,
        ops=operations,
        n_vertices=sizes,
        epochs=np.array([2, 4]),
        params=1000 + np.arange(91),
        **{name: np.stack([values / 2, values], 1) for name, values in (both | {"energy_kwh": ENERGY}).items()},
    )
    return replace(
        get_config(), data_dir=str(tmp_path), max_vertices=4, strategies=("random", "emoa"), seeds=2, budget=91
    )


def test_the_whole_front_of_a_complete_table_is_found_and_its_cells_are_written_out(
    config: ParetoConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_pareto(replace(config, strategies=("random",)), tmp_path / "run")
    assert result["reference"] == [0, 0.1] and result["beyond_reference"] == 0
    gains = np.stack([100 * VALID, 0.1 - ENERGY], 1)
    assert result["exact_hypervolume"] == pytest.approx(hypervolume(gains))
    assert result["strategies"]["random"]["hypervolume"]["91"]["mean"] == pytest.approx(1)
    front = front_rows(gains)
    found = [(each["values"]["valid_4"], each["values"]["energy_kwh_4"]) for each in result["front"]]
    np.testing.assert_allclose(found, np.stack([100 * VALID, ENERGY], 1)[front])
    # Operations, then edges; and no command that would train what is no cell of a space.
    assert all("; 0->" in each["genotype"] for each in result["front"])
    assert "train one" not in capsys.readouterr().out


def test_every_description_of_a_cell_finds_its_row_in_the_part_that_a_constraint_leaves(config: ParetoConfig) -> None:
    whole, part = load_problem(config), load_problem(replace(config, constraints=("params>=1040",)))
    assert len(part.table) == 51 and part.table.columns["params"].min() == 1040
    described = np.random.default_rng(2).integers(0, np.array(whole.table.sizes), (300, 8)).astype(np.int32)
    before, after = whole.table.find(described), part.table.find(described)
    assert (after >= 0).sum() > 20
    np.testing.assert_array_equal(after, np.where(before >= 40, before - 40, -1))
    np.testing.assert_array_equal(np.asarray(part.domain.valid(described)), after >= 0)
    # A cell is described to a model as it was before.
    np.testing.assert_array_equal(part.domain.features(described[:5]), whole.domain.features(described[:5]))


def test_strategies_search_the_space_itself_where_all_of_it_is_known(config: ParetoConfig) -> None:
    told, domain = load_told(config)
    # Not the product of the choices, nor rows one choice away.
    assert domain is whole_space(4)
    assert told.columns["energy_kwh_4"].max() == 1


def test_what_is_measured_by_training_is_no_constraint(config: ParetoConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"energy_kwh_4 is only known once it is measured; on nasbench101 .* params$"):
        run_pareto(replace(config, constraints=("energy_kwh_4<0.05",)), tmp_path / "run")


def test_every_variant_names_a_table_and_columns_with_a_reference_point() -> None:
    assert {get_config(variant).dataset for variant in VARIANTS} == {"five_vertices", "sample", "official"}
    with pytest.raises(UserError, match="sample"):
        get_config("smaple")


@pytest.mark.shared_data
def test_the_published_table_has_the_front_that_the_docs_tell(shared_data: Path) -> None:
    problem = load_problem(replace(get_config(), data_dir=str(shared_data)))
    assert len(problem.table) == 2532 and problem.objectives.beyond == 0
    assert hypervolume(problem.objectives.gains) == pytest.approx(7.207873, abs=5e-7)
    assert len(front_rows(problem.objectives.gains)) == 13
    sample = load_problem(replace(get_config("sample"), data_dir=str(shared_data)))
    assert len(sample.table) == 30_001 and sample.objectives.reference.tolist() == [0, 8]
