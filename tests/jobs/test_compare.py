"""A comparison: its figures, its files, resuming, what is charged, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parsec.cells import get_space
from parsec.command.config_files import load_config
from parsec.errors import UserError
from parsec.jobs.search.coherence import check_search
from parsec.jobs.tables.compare import run_compare
from parsec.report.comparison import comparison_text, incumbents, queries_to_optimum, regret_curve, summarise
from parsec.run import saved_trials
from parsec.run.ledger import PROPOSALS_PER_QUERY
from parsec.run.trials import Task, run_trials
from parsec.search.registry import STRATEGIES, Entry
from parsec.settings.compare import CompareConfig
from parsec.tables.table import Table, make_table, save_table, table_domain

DOCS = Path(__file__).parents[2] / "docs" / "strategies.md"
SIZES = (3, 3, 4)


def small_table() -> Table:
    rows = np.stack(np.unravel_index(np.arange(36), SIZES), 1)
    rows = rows[rows.sum(1) % 4 != 1]
    score = np.sin(rows * [1.0, 2.0, 3.0]).sum(1)
    score[[2, 9]] = np.nan
    return make_table("small", np.array(SIZES), rows, {"score": score, "cost": rows.sum(1).astype(float)})


@pytest.fixture
def config(tmp_path: Path) -> CompareConfig:
    save_table(tmp_path / "small.npz", small_table())
    return CompareConfig(
        benchmark="table",
        table=str(tmp_path / "small.npz"),
        objective="score",
        report="-cost",
        strategies=("random", "lanas"),
        seeds=3,
        budget=12,
        workers=1,
    )


def files_of(run: Path) -> dict[str, bytes]:
    kept = ("result.json", "table.md", "curves.npz", "regret.png", "strategies/random.npz", "strategies/lanas.npz")
    return {name: (run / name).read_bytes() for name in kept}


def test_figures_files_resume_and_a_second_run_byte_for_byte(
    config: CompareConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_compare(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert list(result["strategies"]) == ["random", "lanas"] and result["failed_in_table"] == 2
    whole = files_of(tmp_path / "run")
    assert whole["regret.png"].startswith(b"\x89PNG")
    assert set(json.loads((tmp_path / "run" / "timing.json").read_text())) == {"random", "lanas"}
    table = small_table()
    with np.load(tmp_path / "run" / "strategies" / "random.npz") as saved:
        best = np.nanmax(table.columns["score"][saved["rows"]], 1)
    assert result["strategies"]["random"]["objective"]["mean"] == pytest.approx(best.mean())
    with np.load(tmp_path / "run" / "curves.npz") as curves:
        assert sorted(curves.files) == ["lanas/half", "lanas/mean", "random/half", "random/mean"]

    # A run that was cut short: one strategy finished, another's file damaged by the crash.
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    (tmp_path / "cut" / "result.json").unlink()
    (tmp_path / "cut" / "strategies" / "lanas.npz").write_bytes(whole["strategies/lanas.npz"][:100])
    capsys.readouterr()
    run_compare(config, tmp_path / "cut")
    shown = capsys.readouterr().out
    assert "random was finished before" in shown and "damaged" in shown
    assert files_of(tmp_path / "cut") == whole

    # A byte that another took the place of, wherever it is.
    for at in range(0, len(whole["strategies/lanas.npz"]), 7):
        damaged = bytearray(whole["strategies/lanas.npz"])
        damaged[at] ^= 0xFF
        (tmp_path / "damaged.npz").write_bytes(damaged)
        saved_trials._read_trials(tmp_path / "damaged.npz", (3, 12), len(table))

    # The same file's name, another table: what was saved is not of it.
    (tmp_path / "cut" / "result.json").unlink()
    other = small_table()
    save_table(tmp_path / "small.npz", replace(other, columns={**other.columns, "cost": other.columns["cost"] + 1}))
    with pytest.raises(UserError, match="table"):
        run_compare(config, tmp_path / "cut")
    save_table(tmp_path / "small.npz", other)

    assert run_compare(config, tmp_path / "run") == result
    assert "queries to the optimum" in capsys.readouterr().out
    with pytest.raises(UserError, match="config: budget was 12, now 13"):
        run_compare(replace(config, budget=13), tmp_path / "run")
    assert files_of(tmp_path / "run") == whole


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"objective": "scor"}, r"unknown column of table small 'scor'.*did you mean 'score'"),
        ({"report": "-costs"}, r"unknown column of table small 'costs'"),
        ({"strategies": ("random", "lannas")}, r"unknown strategy 'lannas'.*did you mean 'lanas'"),
        ({"strategies": ()}, "config.strategies is empty"),
        ({"strategies": ("random", "random")}, "names random more than once"),
        ({"budget": 28}, r"config\.budget=28 is larger than table small; it holds 27 architectures"),
        ({"benchmark": "nasbench"}, r"unknown benchmark 'nasbench'"),
        ({"benchmark": "nasbench201", "table": ""}, r"--config\.data_dir=DIR"),
        ({"benchmark": "nasbench201"}, r"config\.table='.* means nothing here; it needs config\.benchmark=table"),
        ({"table": ""}, r"--config\.table=FILE"),
        ({"table": "absent.npz"}, "there is no file absent.npz"),
        ({"options": ("batch=3",)}, r"write NAME\.OPTION=VALUE"),
        ({"options": ("random.bach=3",)}, r"unknown option of strategy random 'bach'.*did you mean 'batch'"),
        ({"options": ("parsec.children=3",)}, "unknown strategy in config.options 'parsec'"),
        ({"options": ("random.batch=x",)}, r"random\.batch='x' does not fit; it must be an integer"),
        ({"options": ("random.batch=0",)}, r"random\.batch=0 is out of range; it must be at least 1"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_written(
    config: CompareConfig, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as refused:
        run_compare(replace(config, **changed), tmp_path / "run")
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_options_reach_their_strategy(config: CompareConfig, tmp_path: Path) -> None:
    found = run_compare(replace(config, strategies=("random",), options=("random.batch=4",)), tmp_path / "run")
    # Asked for four at a time, proposals are a multiple of four.
    assert (found["strategies"]["random"]["proposals"] * 3) % 4 == pytest.approx(0)


def test_counting_all_charges_repeats_and_counting_unique_does_not() -> None:
    table = small_table()

    def load() -> tuple[Table, Any]:
        return table, table_domain(table)

    every = run_trials(load, Task("random", {}, ("score",), 60, "all", 0), 5)
    assert (every.rows >= 0).all() and (every.proposals == 60).all()
    assert all(len(np.unique(run)) < 60 for run in every.rows)
    once = run_trials(load, Task("random", {}, ("score",), 20, "unique", 0), 5)
    assert all(len(np.unique(run)) == 20 for run in once.rows) and (once.proposals >= 20).all()
    for run, all_rows in zip(once.rows, every.rows, strict=True):
        _, first = np.unique(all_rows, return_index=True)
        expected = all_rows[np.sort(first)][:20]
        np.testing.assert_array_equal(run[: len(expected)], expected)


def test_a_strategy_that_only_repeats_itself_ends_at_its_proposals() -> None:
    """Two architectures, one of which REINFORCE settles on long before a budget of both could be spent by chance."""
    rows = np.array([[0], [1], [2]])
    table = make_table("three", np.array([3]), rows, {"score": np.array([0.0, 5.0, 0.0])})
    task = Task("reinforce", {"learning_rate": 5.0}, ("score",), 3, "unique", 0)
    found = run_trials(lambda: (table, table_domain(table)), task, 20)
    unfinished = (found.rows < 0).any(1)
    assert unfinished.any()
    assert (found.proposals[unfinished] == 3 * PROPOSALS_PER_QUERY).all()


def test_more_runs_only_add_to_fewer() -> None:
    table = small_table()
    task = Task("random", {}, ("score",), 10, "unique", 4)
    few, more = (run_trials(lambda: (table, table_domain(table)), task, runs) for runs in (3, 7))
    np.testing.assert_array_equal(more.rows[:3], few.rows)


def test_incumbents_and_queries_to_the_optimum() -> None:
    scores = np.array([1.0, 5.0, np.nan, 3.0, 5.0])
    rows = np.array([[2, 0, 3, 1, 4], [0, 2, 3, -1, -1], [2, 2, -1, -1, -1]])
    expected = [[-1, 0, 3, 1, 1], [0, 0, 3, 3, 3], [-1, -1, -1, -1, -1]]
    np.testing.assert_array_equal(incumbents(rows, scores), expected)
    np.testing.assert_array_equal(queries_to_optimum(rows, scores), [4, 0, 0])


def test_figures_of_censored_and_failed_runs() -> None:
    scores, report = np.array([1.0, 5.0, np.nan, 3.0]), np.array([10.0, 50.0, 70.0, 30.0])
    rows = np.array([[0, 1, 3], [0, 2, 3], [1, 0, 3]])
    found = summarise(rows, np.array([3, 4, 5]), scores, report)
    assert found["optimum_hits"] == 2 and found["median_queries_to_optimum"] == 2
    assert found["mean_queries_to_optimum"] == 2 and found["mean_queries_is_lower_bound"]
    assert found["objective"]["mean"] == pytest.approx(13 / 3) and found["reported"]["mean"] == pytest.approx(130 / 3)
    assert found["objective"]["deviation"] == pytest.approx(np.std([5, 3, 5], ddof=1))
    assert found["objective"]["interval"] == pytest.approx(4.3027 * np.std([5, 3, 5], ddof=1) / np.sqrt(3), rel=1e-3)
    assert found["failed"] == pytest.approx(1 / 3) and found["proposals"] == 4
    never = summarise(rows[1:2], np.array([3]), scores, report)
    assert never["median_queries_to_optimum"] is None and never["objective"]["deviation"] is None
    nothing = summarise(np.array([[2]]), np.array([1]), scores, report)
    assert nothing["objective"]["mean"] is None
    text = comparison_text({"a": found, "b": never, "c": nothing}, 3)
    assert "over 3" in text and "at least 2" in text and "none" in text


def test_regret_is_of_the_reported_column_at_the_best_by_objective() -> None:
    scores, report = np.array([1.0, 2.0, 3.0]), np.array([9.0, 4.0, 7.0])
    mean, half = regret_curve(np.array([[0, 1, 2], [1, 2, 0]]), scores, report)
    np.testing.assert_allclose(mean, [2.5, 3.5, 2.0])
    assert half[2] == 0 and half[0] == pytest.approx(12.7062 * np.std([0, 5], ddof=1) / np.sqrt(2), rel=1e-3)


def test_the_documented_strategy_and_table_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Executes the code of docs/strategies.md as its reader would."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    strategy, config, search, table = blocks
    assert len(strategy.splitlines()) < 50
    (tmp_path / "accepting.py").write_text(strategy)
    (tmp_path / "accepting_compare.py").write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Removed again afterwards: the generic tests run over the registry.
    monkeypatch.setitem(STRATEGIES, "accepting", Entry("accepting", ""))
    exec(compile(table, "docs/strategies.md", "exec"), {})
    (tmp_path / "accepting_search.py").write_text(search)
    searching = load_config("accepting_search.py").config
    check_search(searching, get_space(searching.space))
    assert searching.strategy.name == "accepting"
    found = run_compare(load_config("accepting_compare.py").config, tmp_path / "run")
    figures = found["strategies"]
    assert list(figures) == ["accepting", "random", "local_search"]
    assert found["failed_in_table"] == 1
    assert figures["accepting"]["objective"]["mean"] > figures["random"]["objective"]["mean"]


@pytest.mark.shared_data
@pytest.mark.slow
def test_published_baselines_are_reproduced(shared_data: Path) -> None:
    """12-epoch validation, 200-epoch test, every query charged: means of 300 seeds within two standard errors."""
    published = {
        "random": {50: (93.50, 0.53), 100: (93.74, 0.37), 200: (93.88, 0.24), 500: (93.98, 0.22)},
        "regularized_evolution": {50: (93.61, 0.63), 100: (93.91, 0.45), 200: (94.12, 0.25), 500: (94.30, 0.15)},
        "reinforce": {50: (93.45, 0.54), 100: (93.75, 0.35), 200: (93.93, 0.26), 500: (94.12, 0.23)},
    }
    from parsec.tables.nasbench201 import load_nasbench201

    table = load_nasbench201(shared_data / "nasbench201.npz", "cifar10")
    test = table.columns["test_200"]
    for name, figures in published.items():
        task = Task(name, {}, ("valid_12",), 500, "all", 0)
        found = run_trials(lambda: (table, table_domain(table)), task, 2000)
        best = incumbents(found.rows, table.objective("valid_12"))
        for queries, (mean, deviation) in figures.items():
            reached = test[best[:, queries - 1]]
            error = np.hypot(deviation / np.sqrt(300), reached.std() / np.sqrt(2000))
            # The published means are rounded to two decimals.
            assert abs(reached.mean() - mean) < 2 * error + 0.005, (name, queries, reached.mean())
