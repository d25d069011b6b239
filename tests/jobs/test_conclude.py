"""The end of a search: what result.json says of scores that are no numbers, and of how scores rank a table's cells."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.digits_search import get_config
from parsec.cells.nasbench201 import NASBENCH201
from parsec.cells.network import Shape
from parsec.evaluate.supernet import Scored
from parsec.jobs.search import conclude as conclude_module
from parsec.jobs.search.conclude import Outcome, conclude, show_result
from parsec.run.workdir import write_json_atomic
from parsec.settings.search import StrategySettings
from parsec.tables.digits201 import load_digits201
from parsec.tables.table import Table

FOUND = np.array([3, 1, 3, 2, 0, 3], np.int32)


@pytest.mark.parametrize(
    ("scores", "mean", "deviation"), [([np.nan], None, None), ([np.nan, 40.0, 60.0], 50.0, 10.0)], ids=["all", "one"]
)
def test_scores_that_are_not_finite_are_null_and_left_out_of_means(
    scores: list[float], mean: float | None, deviation: float | None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    config = get_config("quick")
    config = replace(config, derive=replace(config.derive, random_children=len(scores)))
    pending = iter(scores)

    def score(architecture: np.ndarray) -> Scored:
        return Scored(np.nan if np.array_equal(architecture, FOUND) else next(pending), np.nan)

    write_json_atomic(tmp_path / "config.json", {})
    (tmp_path / "metrics.jsonl").write_text("")
    outcome = Outcome(FOUND, score, ranks=False)
    conclude(config, NASBENCH201, Shape(4, 1, 10), outcome, (8, 8, 1), None, tmp_path)

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert result["valid_accuracy"] is None
    assert (result["random_valid_accuracy"], result["random_valid_deviation"]) == (mean, deviation)
    show_result(result, tmp_path)
    assert "not finite" in capsys.readouterr().out


def concluded(table: Table, judge: Callable[[np.ndarray], Scored], folder: Path, ranked_cells: int = 40) -> dict:
    """Returns the result of a search on `table` whose cells `judge` scores; what was written is JSON without NaN."""
    config = get_config("quick")
    config = replace(config, derive=replace(config.derive, ranked_cells=ranked_cells, random_children=1))
    write_json_atomic(folder / "config.json", {})
    (folder / "metrics.jsonl").write_text("")
    outcome = Outcome(FOUND, judge, ranks=True)
    result = conclude(config, NASBENCH201, Shape(4, 1, 10), outcome, (8, 8, 1), table, folder)
    assert "NaN" not in (folder / "result.json").read_text()
    return result


@pytest.fixture(scope="module")
def table() -> Table:
    return replace(load_digits201(), ranked_by="test")


def test_scores_are_compared_with_the_table_over_all_cells_and_among_its_best(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Accuracies as the table has them but upside down among its best, likelihoods that are the table's negative."""
    third = np.quantile(table.columns["test"], 2 / 3)

    def judge(architecture: np.ndarray) -> Scored:
        figure = float(table.columns["test"][table.find(architecture[None])[0]])
        return Scored(figure if figure < third else 2 * third - figure, -figure)

    result = concluded(table, judge, tmp_path, ranked_cells=300)
    record = result["rank_correlation"]
    assert (record["cells"], record["drawn_from"], record["failed"]) == (300, "space", 0)
    assert record["accuracy"]["best_third"] < -0.9 < 0 < record["accuracy"]["all"] < 1
    assert record["log_likelihood"] == {"all": -1.0, "best_third": -1.0}
    show_result(result, tmp_path)
    shown = capsys.readouterr().out
    assert "-1.000 with test of 300 cells" in shown and "share_above" in shown
    assert "-1.000 with test of 300 cells" in (tmp_path / "report.html").read_text()


def test_scores_that_are_all_alike_or_missing_have_no_rank_correlation(table: Table, tmp_path: Path):
    """NaN, which a correlation of constants is, would be no JSON."""
    record = concluded(table, lambda architecture: Scored(50.0, math.nan), tmp_path)["rank_correlation"]
    nothing = {"all": None, "best_third": None}
    assert (record["accuracy"], record["log_likelihood"]) == (nothing, nothing)
    assert (
        concluded(table, lambda architecture: Scored(math.nan, math.nan), tmp_path)["rank_correlation"]["failed"] == 40
    )
    assert concluded(table, lambda a: Scored(1.0, 1.0), tmp_path, ranked_cells=0)["rank_correlation"] is None


@pytest.mark.parametrize(("asked", "ranked"), [(1000, 60), (25, 25)])
def test_of_a_table_that_holds_a_sample_its_own_cells_are_ranked(table: Table, tmp_path: Path, asked: int, ranked: int):
    rows = np.random.default_rng(0).permutation(len(table))[:60]
    # The found cell is one of them, so that no surrogate needs to be fitted.
    rows[0] = table.find(FOUND[None])[0]
    columns = {name: values[rows] for name, values in table.columns.items()}
    sample = replace(table, architectures=table.architectures[rows], columns=columns)
    seen = []

    def judge(architecture: np.ndarray) -> Scored:
        row = sample.find(architecture[None])[0]
        seen.append(int(row))
        return Scored(float(sample.columns["test"][row]), 0.0)

    record = concluded(sample, judge, tmp_path, ranked_cells=asked)["rank_correlation"]
    assert (record["cells"], record["drawn_from"], record["accuracy"]["all"]) == (ranked, "table", 1.0)
    assert len(set(seen[-ranked:])) == ranked and min(seen[-ranked:]) >= 0


def test_a_run_that_was_killed_before_its_page_was_written_is_not_finished(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed(*given: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(conclude_module, "report_page", killed)
    with pytest.raises(KeyboardInterrupt):
        concluded(table, lambda architecture: Scored(50.0, -1.0), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_a_collapsed_search_is_told_what_would_help_it_and_nothing_that_is_refused(table: Table, tmp_path: Path):
    skips = np.ones(6, np.int32)
    joint = get_config("quick")
    trained = replace(joint, strategy=StrategySettings(name="additive", evaluator="train"))
    for config, helps in ((joint, True), (trained, False)):
        (warning,) = conclude_module._warnings(NASBENCH201, skips, config)
        assert "may have collapsed" in warning and ("--config.prior.warmup" in warning) == helps
