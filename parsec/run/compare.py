"""Strategies compared on one table: the same scores, the same budget, the same count, many seeds.

Every strategy's runs are saved as soon as they are finished, so the same command goes on with the strategies that are
missing and reports a comparison that is complete. Files: `strategies/NAME.npz` (rows charged and proposals),
`curves.npz` and `regret.png`, `table.md`, `result.json` (no clock times) and `timing.json`.
"""

import functools
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import UserError, unknown
from parsec.files import expanded
from parsec.report.comparison import comparison_text, regret_curve, summarise
from parsec.report.regret import draw_regret
from parsec.run.compare_settings import CompareConfig
from parsec.run.footprint import check_compare_memory
from parsec.run.progress import announce
from parsec.run.signals import StoppedError, graceful_stop
from parsec.run.trials import Task, Trials, run_trials
from parsec.run.workdir import (
    RESULT,
    TIMING,
    claim,
    finished_result,
    locate,
    read_json,
    reporting,
    write_json_atomic,
    write_text_atomic,
    writing,
)
from parsec.search.registry import STRATEGIES, make_strategy
from parsec.tables.digits201 import load_digits201
from parsec.tables.nasbench101 import SOURCES, load_nasbench101
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, load_table, table_domain

FINISHED, CURVES, PLOT, TEXT = "strategies", "curves.npz", "regret.png", "table.md"


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
    path = locate(workdir)
    result = finished_result(path, config)
    if result is not None:
        with reporting(path):
            _show(config, result, path)
        return result
    check_compare_memory(config)
    load = functools.partial(load_benchmark, config)
    table, domain = load()
    scores, report = table.objective(config.objective), table.objective(config.report or config.objective)
    tasks = _tasks(config, table, domain)
    with claim(path, config, {"table": table.digest}) as run:
        for note in run.notes:
            print(note)
        announce(
            f"Comparing {len(tasks)} strategies on {table.name}",
            {
                "architectures": f"{len(table)}, of which {int(np.isnan(scores).sum())} have no finite score (failed)",
                "objective": f"{config.objective}, best {np.nanmax(scores):.6g}",
                "reported": f"{config.report or config.objective}, best {np.nanmax(report):.6g}",
                "budget": f"{config.budget} queries ({config.count} proposals are charged), {config.seeds} seeds",
                "run directory": run.path,
            },
        )
        trials = _run_all(config, load, tasks, table, run.path)
        result = _conclude(config, table, trials, run.path)
        _show(config, result, run.path)
        return result


def load_benchmark(config: CompareConfig) -> tuple[Table, Domain]:
    """Returns the table of a config and the domain that strategies see.

    Raises:
      UserError: for an unknown benchmark, or a table that is missing or cannot be used.
    """
    if config.benchmark not in BENCHMARKS:
        raise unknown("benchmark", config.benchmark, BENCHMARKS)
    return BENCHMARKS[config.benchmark](config)


def _nasbench201(config: CompareConfig) -> tuple[Table, Domain]:
    if not config.data_dir:
        raise UserError(
            "the NAS-Bench-201 comparison needs nasbench201.npz; name its folder with --config.data_dir=DIR "
            "(its format is in docs/strategies.md)"
        )
    table = load_nasbench201(expanded(config.data_dir) / "nasbench201.npz", config.dataset)
    return table, table_domain(table)


def _nasbench101(config: CompareConfig) -> tuple[Table, Domain]:
    if not config.data_dir:
        raise UserError(
            "the NAS-Bench-101 comparison needs a file of its cells; name it or its folder with --config.data_dir=DIR "
            f"(--config.dataset chooses one of {', '.join(SOURCES)})"
        )
    return load_nasbench101(config.dataset, expanded(config.data_dir), config.max_vertices)


def _digits201(config: CompareConfig) -> tuple[Table, Domain]:
    del config
    table = load_digits201()
    return table, table_domain(table)


def _file(config: CompareConfig) -> tuple[Table, Domain]:
    if not config.table:
        raise UserError(
            "no table given; name an .npz file with --config.table=FILE (its format is in docs/strategies.md)"
        )
    table = load_table(expanded(config.table))
    return table, table_domain(table)


# Where a table comes from: a function from the config to the table and the domain that strategies see.
BENCHMARKS: dict[str, Callable[[CompareConfig], tuple[Table, Domain]]] = {
    "nasbench201": _nasbench201,
    "nasbench101": _nasbench101,
    "digits201": _digits201,
    "table": _file,
}


def _tasks(config: CompareConfig, table: Table, domain: Domain) -> dict[str, Task]:
    """Returns the task of each strategy, every one of them made once so that a bad option is told at once."""
    if config.budget > len(table):
        raise UserError(
            f"config.budget={config.budget} is larger than table {table.name}; it holds {len(table)} architectures"
        )
    if not config.strategies:
        raise UserError(f"config.strategies is empty; choose from {', '.join(STRATEGIES)}")
    repeated = [name for name in dict.fromkeys(config.strategies) if config.strategies.count(name) > 1]
    if repeated:
        raise UserError(f"config.strategies names {repeated[0]} more than once")
    options = _parse_options(config)
    tasks = {}
    for name in config.strategies:
        make_strategy(name, domain, options.get(name, {}))
        tasks[name] = Task(name, options.get(name, {}), (config.objective,), config.budget, config.count, config.seed)
    return tasks


def _parse_options(config: CompareConfig) -> dict[str, dict[str, str]]:
    parsed: dict[str, dict[str, str]] = {}
    for text in config.options:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not equals or not dot:
            raise UserError(f"config.options has {text!r}; write NAME.OPTION=VALUE, such as parsec.children=16")
        if name not in config.strategies:
            raise unknown("strategy in config.options", name, config.strategies)
        parsed.setdefault(name, {})[option] = value
    return parsed


def _run_all(
    config: CompareConfig,
    load: Callable[[], tuple[Table, Domain]],
    tasks: Mapping[str, Task],
    table: Table,
    workdir: Path,
) -> dict[str, Trials]:
    timing = read_json(workdir / TIMING) if (workdir / TIMING).is_file() else {}
    with writing(workdir):
        (workdir / FINISHED).mkdir(exist_ok=True)
    trials = {}
    with graceful_stop() as stop:
        for at, (name, task) in enumerate(tasks.items()):
            saved = _read_trials(workdir / FINISHED / f"{name}.npz", config, table)
            if saved is None:
                began = time.perf_counter()
                print(f"{name} ...", end="", flush=True)
                saved = run_trials(load, task, config.seeds, config.workers)
                seconds = time.perf_counter() - began
                print(f" {seconds:.1f} s", flush=True)
                _write_npz(workdir / FINISHED / f"{name}.npz", rows=saved.rows, proposals=saved.proposals)
                timing = {**timing, name: round(seconds, 3)}
                write_json_atomic(workdir / TIMING, timing)
            else:
                print(f"{name} was finished before", flush=True)
            trials[name] = saved
            if stop.signal is not None and at + 1 < len(tasks):
                raise StoppedError(stop.signal, at + 1)
    return trials


def _conclude(config: CompareConfig, table: Table, trials: Mapping[str, Trials], workdir: Path) -> dict[str, Any]:
    """Writes the arrays, the plot, the table and result.json, that one last."""
    reported = config.report or config.objective
    scores, report = table.objective(config.objective), table.objective(reported)
    strategies = {name: summarise(*found, scores, report) for name, found in trials.items()}
    curves = {name: regret_curve(found.rows, scores, report) for name, found in trials.items()}
    arrays = {f"{name}/{kind}": curve[at] for name, curve in curves.items() for at, kind in enumerate(("mean", "half"))}
    _write_npz(workdir / CURVES, **arrays)
    title = f"{table.name}: {reported} of the best by {config.objective}, {config.seeds} seeds, 95 % bands"
    with writing(workdir):
        hidden = workdir / f".{PLOT}"
        draw_regret(hidden, curves, title, reported)
        hidden.replace(workdir / PLOT)
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


def _write_npz(path: Path, **arrays: np.ndarray) -> None:
    hidden = path.with_name(f".{path.name}")
    with writing(path):
        with hidden.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)


def _read_trials(path: Path, config: CompareConfig, table: Table) -> Trials | None:
    """Returns the saved runs of a strategy, or None where there are none; a damaged file counts as none."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            found = Trials(saved["rows"], saved["proposals"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        print(f"{path} is damaged; its strategy is run again")
        return None
    fits = found.rows.shape == (config.seeds, config.budget) and found.rows.max(initial=-1) < len(table)
    return found if fits else None
