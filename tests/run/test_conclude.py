"""The end of a search where a child's score is no number: result.json stays JSON, and the summary says so."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.digits_search import get_config
from parsec.cells.nasbench201 import NASBENCH201
from parsec.cells.network import Shape
from parsec.run.conclude import Outcome, conclude, show_result
from parsec.run.workdir import write_json_atomic
from parsec.tables.digits201 import load_digits201

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

    def score(architecture: np.ndarray) -> float:
        return np.nan if np.array_equal(architecture, FOUND) else next(pending)

    write_json_atomic(tmp_path / "config.json", {})
    (tmp_path / "metrics.jsonl").write_text("")
    outcome = Outcome(FOUND, score, None, None, ranks=False)
    conclude(config, NASBENCH201, Shape(4, 1, 10), outcome, (8, 8, 1), None, tmp_path)

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert result["valid_accuracy"] is None
    assert (result["random_valid_accuracy"], result["random_valid_deviation"]) == (mean, deviation)
    show_result(tmp_path, result)
    assert "not finite" in capsys.readouterr().out


def test_scores_that_are_all_alike_have_no_rank_correlation(tmp_path: Path):
    """NaN, which a correlation of constants is, would be no JSON."""
    table = load_digits201()
    table = replace(table, columns={"test_200": table.columns["test"]})
    config = get_config("quick")
    config = replace(config, derive=replace(config.derive, ranked_cells=5))
    write_json_atomic(tmp_path / "config.json", {})
    (tmp_path / "metrics.jsonl").write_text("")
    for judge, correlated in (
        (lambda architecture: 50.0, False),
        (lambda architecture: float(architecture.sum()), True),
    ):
        outcome = Outcome(FOUND, judge, None, None, ranks=True)
        result = conclude(config, NASBENCH201, Shape(4, 1, 10), outcome, (8, 8, 1), table, tmp_path)
        assert (result["spearman"] is not None) == correlated
        assert "NaN" not in (tmp_path / "result.json").read_text()
