"""Strategies compared on one table: the same scores, the same budget, the same count, many seeds.

Every strategy's runs are saved as soon as they are finished, so the same command goes on with the strategies that are
missing and reports a comparison that is complete. Files: `strategies/NAME.npz` (rows charged and proposals),
`curves.npz` and `regret.png`, `table.md`, `result.json` (no clock times) and `timing.json`.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parsec.files import replacing, writing
from parsec.jobs.footprint import check_compare_memory
from parsec.jobs.tables.benchmarks import Source, load_benchmark
from parsec.report.comparison import comparison_text, regret_curve, summarise
from parsec.report.regret import draw_regret
from parsec.run.opening import begin, report_finished
from parsec.run.saved_trials import make_tasks, run_saved, write_npz
from parsec.run.trials import Trials
from parsec.run.workdir import RESULT, write_json_atomic, write_text_atomic
from parsec.settings.compare import CompareConfig
from parsec.tables.table import Table

CURVES, PLOT, TEXT = "curves.npz", "regret.png", "table.md"


def run_compare(config: CompareConfig, workdir: Path) -> dict[str, Any]:
    """Compares strategies, or goes on with a comparison that was cut short, or reports a finished one.

    Args:
      config: see `CompareConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds. Its `strategies` map each name to the figures of `parsec.report.comparison.summarise`.

    Raises:
      UserError: for an unknown benchmark, column, strategy or option, a table that cannot be used, a budget above its
        size, or a run directory that is in use or belongs to another config. All but the last before anything is
        written.
      StoppedError: if a signal asked to stop; the strategies finished so far are saved.
    """
    result = report_finished(config, workdir, functools.partial(_show, config))
    if result is not None:
        return result
    check_compare_memory(config.seeds, config.budget)
    load = functools.partial(load_benchmark, source_of(config))
    table, domain = load()
    scores, report = table.objective(config.objective), table.objective(config.report or config.objective)
    tasks = make_tasks(config, (config.objective,), table, domain)
    plan = {
        "architectures": f"{len(table)}, of which {int(np.isnan(scores).sum())} have no finite score (failed)",
        "objective": f"{config.objective}, best {np.nanmax(scores):.6g}",
        "reported": f"{config.report or config.objective}, best {np.nanmax(report):.6g}",
        "budget": f"{config.budget} queries ({config.count} proposals are charged), {config.seeds} seeds",
    }
    title = f"Comparing {len(tasks)} strategies on {table.name}"
    with begin(config, workdir, {"table": table.digest}, title, plan) as run:
        trials = run_saved(load, tasks, len(table), config.seeds, config.workers, run.path)
        result = _conclude(config, table, trials, run.path)
        _show(config, result, run.path)
        return result


def source_of(config: CompareConfig) -> Source:
    """Returns where the table of a comparison comes from."""
    return Source(config.benchmark, config.data_dir, config.table, config.dataset, config.max_vertices)


def _conclude(config: CompareConfig, table: Table, trials: Mapping[str, Trials], workdir: Path) -> dict[str, Any]:
    """Writes the arrays, the plot, the table and result.json, that one last."""
    reported = config.report or config.objective
    scores, report = table.objective(config.objective), table.objective(reported)
    strategies = {name: summarise(*found, scores, report) for name, found in trials.items()}
    curves = {name: regret_curve(found.rows, scores, report) for name, found in trials.items()}
    arrays = {f"{name}/{kind}": curve[at] for name, curve in curves.items() for at, kind in enumerate(("mean", "half"))}
    write_npz(workdir / CURVES, **arrays)
    title = f"{table.name}: {reported} of the best by {config.objective}, {config.seeds} seeds, 95 % bands"
    with writing(workdir), replacing(workdir / PLOT) as hidden:
        draw_regret(hidden, curves, title, reported)
    write_text_atomic(workdir / TEXT, comparison_text(strategies, config.budget) + "\n")
    result = {
        "benchmark": config.benchmark,
        "table": table.name,
        "architectures": len(table),
        "failed_in_table": int(np.isnan(scores).sum()),
        "objective": config.objective,
        "report": reported,
        "best_objective": float(np.nanmax(scores)),
        "best_report": float(np.nanmax(report)),
        "budget": config.budget,
        "count": config.count,
        "seeds": config.seeds,
        "strategies": strategies,
    }
    write_json_atomic(workdir / RESULT, result)
    return result


def _show(config: CompareConfig, result: Mapping[str, Any], workdir: Path) -> None:
    strategies = result["strategies"]
    width = max(map(len, strategies))
    print(
        f"\n{result['table']}, {config.budget} queries, {config.seeds} seeds: objective {result['objective']} and "
        f"reported {result['report']} at the budget, mean ± deviation"
    )
    print(f"{'':{width}}  {'objective':>18}  {'reported':>18}  {'95 % of the mean':>19}  queries to the optimum")
    for name in strategies:
        found = strategies[name]
        told, reported = found["objective"], found["reported"]
        median = found["median_queries_to_optimum"]
        reached = f"{found['optimum_hits']}/{found['seeds']} reached it"
        print(
            f"{name:{width}}  {_figure(told):>18}  {_figure(reported):>18}  {_interval(reported):>19}  "
            f"median {'-' if median is None else f'{median:g}'}, {reached}"
        )
    print(f"curves, plot and tables: {workdir}")


def _figure(spread: Mapping[str, float | None]) -> str:
    if spread["mean"] is None:
        return "none"
    return f"{spread['mean']:.5g}" + ("" if spread["deviation"] is None else f" ± {spread['deviation']:.3g}")


def _interval(spread: Mapping[str, float | None]) -> str:
    mean, half = spread["mean"], spread["interval"]
    return "-" if mean is None or half is None else f"{mean - half:.5g} to {mean + half:.5g}"
