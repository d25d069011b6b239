"""Strategies that search one table for a Pareto front: the same objectives, constraints, budget and reference point.

Like a comparison (`parsec.jobs.tables.compare`), it saves the runs of each strategy as soon as they are finished.
Files: `strategies/NAME.npz` (rows charged and proposals), `curves.npz` and `hypervolume.png` (fraction of the exact
hypervolume after every query), `attained.png` (with two objectives: the exact front and what half of the runs attain),
`table.md`, `front.md` and `front.json` (what the runs found, with genotypes), `result.json` and `timing.json`.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsec.cells import NASBENCH201, Space, get_space
from parsec.cells.domain import Domain
from parsec.cells.genotypes import to_text
from parsec.cells.nasbench101_cells import to_text as nasbench101_text
from parsec.errors import UserError
from parsec.files import replacing, writing
from parsec.jobs.footprint import check_compare_memory
from parsec.jobs.tables.benchmarks import Source, load_benchmark
from parsec.report.pareto import (
    band,
    found_front,
    front_rows,
    front_text,
    fronts_text,
    hypervolume,
    hypervolume_curves,
    median_attainment,
    point_text,
    summarise_fronts,
)
from parsec.report.pareto_plots import draw_fronts, draw_hypervolume
from parsec.run.opening import begin, report_finished
from parsec.run.saved_trials import make_tasks, run_saved, write_npz
from parsec.run.trials import Trials
from parsec.run.workdir import RESULT, write_json_atomic, write_text_atomic
from parsec.search.registry import STRATEGIES
from parsec.settings.pareto import ParetoConfig
from parsec.tables.fidelities import read_fidelities, scaled_columns
from parsec.tables.objectives import Objectives, constrain, read_objectives
from parsec.tables.table import Table, table_domain

CURVES, PLOT, FRONTS, TEXT = "curves.npz", "hypervolume.png", "attained.png", "table.md"
FRONT, ARCHITECTURES = "front.md", "front.json"


class Problem(NamedTuple):
    """What is searched.

    Attributes:
      table: of the architectures that satisfy the constraints.
      objectives: what is wanted of them.
      space: that names them by genotypes, or None.
      domain: what strategies see of the table.
    """

    table: Table
    objectives: Objectives
    space: Space | None
    domain: Domain


def run_pareto(config: ParetoConfig, workdir: Path) -> dict[str, Any]:
    """Searches, or goes on with a search that was cut short, or reports a finished one.

    Args:
      config: see `ParetoConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds. Its `strategies` map each name to the figures of `parsec.report.pareto.summarise_fronts`,
      and its `front` lists what all runs together found.

    Raises:
      UserError: as of `load_problem`; for an unknown strategy or option, a budget above the number of architectures, or
        a run directory that is in use or belongs to another config. All but the last before anything is written.
      StoppedError: if a signal asked to stop; the strategies finished so far are saved.
    """
    result = report_finished(config, workdir, functools.partial(_show, config))
    if result is not None:
        return result
    check_compare_memory(config.seeds, config.budget)
    problem = load_problem(config)
    table, objectives = problem.table, problem.objectives
    load = functools.partial(load_told, config)
    told, domain = load()
    tasks = make_tasks(config, objectives.names, told, domain)
    beyond = objectives.beyond
    plan = {
        "architectures": f"{len(table)}" + f" with {', '.join(config.constraints)}" * bool(config.constraints),
        "objectives": ", ".join(config.objectives),
        "reference point": point_text(objectives.reference)
        + f", which {beyond} architectures do not surpass in every objective; they count nothing" * bool(beyond),
        "budget": f"{config.budget} queries ({config.count} proposals are charged), {config.seeds} seeds"
        + _choice(domain.fidelities),
    }
    title = f"Searching {table.name} for a front with {len(tasks)} strategies"
    with begin(config, workdir, {"table": table.digest}, title, plan) as run:
        trials = run_saved(load, tasks, len(table), config.seeds, config.workers, run.path)
        result = _conclude(config, problem, trials, run.path)
        _show(config, result, run.path)
        return result


def load_problem(config: ParetoConfig) -> Problem:
    """Returns what a config searches.

    Raises:
      UserError: for a table that is missing or cannot be used, a space that its architectures are not of, or as of
        `constrain` and `read_objectives`.
    """
    source = Source(
        config.benchmark, config.data_dir, config.table, config.dataset, config.max_vertices, costs=config.costs
    )
    whole, domain = load_benchmark(source)
    table, _ = constrain(whole, config.benchmark, config.constraints, config.costs)
    if len(table) < len(whole):
        domain = replace(table_domain(table), features=domain.features)
    usual = NASBENCH201 if config.benchmark in ("nasbench201", "digits201") else None
    space = get_space(config.space) if config.space else usual
    if space is not None and tuple(map(int, space.sizes)) != table.sizes:
        raise UserError(
            f"config.space={space.name} has choices of {_sizes(space.sizes)} options; table {table.name} has "
            f"{_sizes(table.sizes)}"
        )
    objectives = read_objectives(table, config.benchmark, config.objectives, config.reference, config.costs)
    return Problem(table, objectives, space, domain)


def load_told(config: ParetoConfig) -> tuple[Table, Domain]:
    """Returns what strategies are told from and see: a column for each objective, scaled by the reference point.

    Where some of them choose how long to train, there is one for each objective and training, and the domain names the
    trainings.
    """
    table, objectives, _, domain = load_problem(config)
    fidelities = _fidelities(config, table, objectives)
    return (
        replace(table, columns=scaled_columns(table, objectives, fidelities)),
        replace(domain, fidelities=fidelities) if fidelities else domain,
    )


def _fidelities(config: ParetoConfig, table: Table, objectives: Objectives) -> tuple[int, ...]:
    """Returns the epochs that strategies of several fidelities choose among; () where there is no such strategy."""
    if not any(name in STRATEGIES and STRATEGIES[name].multi_fidelity for name in config.strategies):
        return ()
    return read_fidelities(table, config.benchmark, objectives.names, config.epochs)


def _conclude(config: ParetoConfig, problem: Problem, trials: Mapping[str, Trials], workdir: Path) -> dict[str, Any]:
    """Writes the arrays, the plots, the tables and result.json, that one last."""
    table, objectives = problem.table, problem.objectives
    gains, scaled = objectives.gains, objectives.scaled
    exact = hypervolume(gains)
    curves = {name: hypervolume_curves(found.rows, gains) for name, found in trials.items()}
    strategies = {
        name: summarise_fronts(found.rows, found.proposals, curves[name], scaled, exact)
        for name, found in trials.items()
    }
    bands = {name: band(curve / exact) for name, curve in curves.items()}
    arrays = {f"{name}/{kind}": pair[at] for name, pair in bands.items() for at, kind in enumerate(("mean", "half"))}
    write_npz(workdir / CURVES, **arrays)
    rows = {name: found.rows for name, found in trials.items()}
    _draw(config, problem, bands, rows, workdir)
    front = [_entry(config, problem, row, met) for row, met in found_front(rows, gains)]
    write_text_atomic(workdir / TEXT, fronts_text(strategies) + "\n")
    write_text_atomic(workdir / FRONT, front_text(front) + "\n")
    write_json_atomic(workdir / ARCHITECTURES, front)
    result = {
        "benchmark": config.benchmark,
        "table": table.name,
        "architectures": len(table),
        "objectives": list(config.objectives),
        "constraints": list(config.constraints),
        "reference": objectives.reference.tolist(),
        "ideal": objectives.ideal.tolist(),
        "beyond_reference": objectives.beyond,
        "exact_hypervolume": exact,
        "exact_front": len(front_rows(gains)),
        "budget": config.budget,
        "count": config.count,
        "fidelities": list(_fidelities(config, table, objectives)),
        "seeds": config.seeds,
        "strategies": strategies,
        "front": front,
    }
    write_json_atomic(workdir / RESULT, result)
    return result


def _draw(
    config: ParetoConfig,
    problem: Problem,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]],
    rows: Mapping[str, np.ndarray],
    workdir: Path,
) -> None:
    table, objectives = problem.table, problem.objectives
    with writing(workdir):
        with replacing(workdir / PLOT) as hidden:
            draw_hypervolume(hidden, bands, f"{table.name}: {_wanted(config)}, {config.seeds} seeds, 95 % bands")
        if len(objectives.names) != 2:
            return
        sign = np.where(objectives.minimised, -1.0, 1.0)
        exact = objectives.values[front_rows(objectives.gains)]
        attained = {
            name: sign * median_attainment(each, objectives.gains) + objectives.reference
            for name, each in rows.items()
            if (each >= 0).any(1).all()
        }
        title = f"{table.name}: what half of {config.seeds} runs attain in {config.budget} queries"
        first, second = objectives.names
        with replacing(workdir / FRONTS) as hidden:
            draw_fronts(hidden, exact, attained, (first, second), title)


def _entry(config: ParetoConfig, problem: Problem, row: int, met: dict[str, int]) -> dict[str, Any]:
    """Returns one architecture of a front: what it is, what is known of it, and how many runs met it."""
    table, objectives, space = problem.table, problem.objectives, problem.space
    architecture = table.architectures[row]
    if space is not None:
        genotype = to_text(space, architecture)
    elif config.benchmark == "nasbench101":
        genotype = nasbench101_text(architecture, config.max_vertices)
    else:
        genotype = " ".join(map(str, architecture.tolist()))
    values = dict(zip(objectives.names, objectives.values[row].tolist(), strict=True))
    known = {name: float(column[row]) for name, column in table.columns.items() if np.isfinite(column[row])}
    return {
        "architecture": architecture.tolist(),
        "genotype": genotype,
        "values": {**values, **{name: value for name, value in known.items() if name not in values}},
        "met_by": met,
    }


def _show(config: ParetoConfig, result: Mapping[str, Any], workdir: Path) -> None:
    print(
        f"\n{result['table']}, {result['architectures']} architectures, {_wanted(config)}, reference point "
        f"{point_text(result['reference'])}: exact hypervolume {result['exact_hypervolume']:.6g}, a front of "
        f"{result['exact_front']}\nfraction of it found, mean ± deviation of {config.seeds} seeds, after so many "
        "queries, and distance to the exact front\n"
    )
    print(fronts_text(result["strategies"]))
    print(f"\nthe front they found, {len(result['front'])} architectures: {workdir / FRONT}")
    if result["front"] and config.benchmark in ("nasbench201", "digits201"):
        print(f"train one: python main.py --config=cifar_train --config.genotype='{result['front'][-1]['genotype']}'")
    print(f"curves, plots and tables: {workdir}")


def _wanted(config: ParetoConfig) -> str:
    return ", ".join(config.objectives) + (f" with {', '.join(config.constraints)}" if config.constraints else "")


def _choice(fidelities: tuple[int, ...]) -> str:
    if not fidelities:
        return ""
    return f"; a query is {fidelities[-1]} epochs, some strategies choose among {', '.join(map(str, fidelities))}"


def _sizes(sizes: Any) -> str:
    return ", ".join(str(int(size)) for size in sizes)
