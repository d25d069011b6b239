"""A search for networks and their training together: strategies on the joint space, at equal trained epochs.

Every network is really trained (`parsec.hyper`). A run spends the epochs of `budget` full trainings, however its
strategy divides them; what a front holds was trained for a full training's epochs at least, those included that its
weights inherited. Files: `searches/NAME-SEED/journal.jsonl`, from which a killed run goes on; `curves.npz` and
`hypervolume.png` (hypervolume after each epoch), `attained.png` (with two objectives: what half of the runs attain, and
the front of all), `table.md`, `front.md` and `front.json` (that front, with test accuracies), `result.json` and
`timing.json`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parsec.errors import UserError, unknown
from parsec.evaluate.goals import scaled
from parsec.files import replacing, writing
from parsec.hyper.space import extreme_counts, parameter_count, to_text
from parsec.jobs.hyper.problem import Problem, load_problem
from parsec.jobs.hyper.runs import Network, Watch, play_bulk_and_cut, play_strategy
from parsec.report.pareto import (
    band,
    found_front,
    front_text,
    hypervolume,
    hypervolume_curves,
    median_attainment,
    point_text,
)
from parsec.report.pareto_plots import draw_fronts, draw_reached
from parsec.report.searches import searches_text, summarise_searches
from parsec.run.loop import timed
from parsec.run.opening import begin, report_finished
from parsec.run.progress import Progress
from parsec.run.saved_trials import parse_options, write_npz
from parsec.run.signals import graceful_stop
from parsec.run.workdir import RESULT, Claim, write_json_atomic, write_text_atomic
from parsec.search.contract import Strategy
from parsec.search.registry import STRATEGIES, make_strategy
from parsec.settings.hyper import BULK_AND_CUT, HyperConfig

SEARCHES = "searches"
CURVES, PLOT, FRONTS, TEXT = "curves.npz", "hypervolume.png", "attained.png", "table.md"
FRONT, ARCHITECTURES = "front.md", "front.json"


class Found(NamedTuple):
    """Every network of every run, N of them, in one list.

    Attributes:
      networks: themselves.
      gains: over the reference point, float64 [N, M]; NaN where one diverged.
      tested: likewise with the accuracies on the test images.
      rows: by strategy, the network that was finished with each epoch and counts, int [runs, total]; -1 for none.
      trained: by strategy, the networks of each run, int [runs].
      failed: by strategy, those that diverged, int [runs].
    """

    networks: list[Network]
    gains: np.ndarray
    tested: np.ndarray
    rows: dict[str, np.ndarray]
    trained: dict[str, np.ndarray]
    failed: dict[str, np.ndarray]


def run_hyper(config: HyperConfig, workdir: Path) -> dict[str, Any]:
    """Searches, or goes on with a search that was cut short, or reports a finished one.

    Args:
      config: see `HyperConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds. Its `strategies` map each name to the figures of
      `parsec.report.searches.summarise_searches`, and its `front` lists the best of what all runs trained.

    Raises:
      UserError: as of `load_problem`; for an unknown strategy or option; or a run directory that is in use or belongs
        to another config. All but the last before anything is written.
      StoppedError: if a signal asked to stop; every network trained so far is kept.
    """
    result = report_finished(config, workdir, partial(_show, config))
    if result is not None:
        return result
    problem = load_problem(config)
    strategies = _make_strategies(config, problem)
    title = f"Searching networks and their training on {config.dataset} with {len(strategies)} strategies"
    with begin(config, workdir, {"dataset": problem.digest}, title, _plan(config, problem), problem.notes) as run:
        runs = _play(config, problem, strategies, run)
        result = _conclude(config, problem, runs, run.path)
        _show(config, result, run.path)
        return result


def _make_strategies(config: HyperConfig, problem: Problem) -> dict[str, Strategy | None]:
    """Returns each strategy as it is told the scores of trainings; None for BULK&CUT, which is none."""
    if not config.strategies:
        raise UserError(f"config.strategies is empty; choose from {', '.join((*STRATEGIES, BULK_AND_CUT))}")
    # Those of a strategy that is left out stay without effect, or a config's own would have to be left out with it.
    options = parse_options(config.options, (*STRATEGIES, BULK_AND_CUT))
    made: dict[str, Strategy | None] = {}
    for name in config.strategies:
        if name in made:
            raise UserError(f"config.strategies names {name} more than once")
        if name not in STRATEGIES and name != BULK_AND_CUT:
            raise unknown("strategy", name, (*STRATEGIES, BULK_AND_CUT))
        if name == BULK_AND_CUT and name in options:
            raise UserError(f"strategy {name} has no options; {next(iter(options[name]))!r} was given")
        if name == BULK_AND_CUT:
            made[name] = None
        else:
            strategy = make_strategy(name, problem.domain, options.get(name, {}), len(problem.goals.names))
            made[name] = scaled(strategy, problem.goals)
    return made


def _play(
    config: HyperConfig, problem: Problem, strategies: Mapping[str, Strategy | None], run: Claim
) -> dict[str, list[list[Network]]]:
    """Returns the networks of every run by strategy; each goes on from its journal."""
    runs: dict[str, list[list[Network]]] = {name: [] for name in strategies}
    done = 0
    with (
        graceful_stop() as stop,
        Progress(problem.total * config.seeds * len(strategies), label="epochs") as progress,
    ):

        def pause() -> None:
            stop.heed(done)

        def watcher(name: str, seed: int) -> Watch:
            before = problem.total * sum(map(len, runs.values()))

            def watch(spent: int) -> None:
                nonlocal done
                done = before + spent
                progress.update(done, {"strategy": name, "seed": seed})

            return watch

        for name, strategy in strategies.items():
            with timed(run, name):
                for seed in range(config.seed, config.seed + config.seeds):
                    folder, watch = run.path / SEARCHES / f"{name}-{seed}", watcher(name, seed)
                    if strategy is None:
                        networks = play_bulk_and_cut(problem, seed, folder, watch, pause)
                    else:
                        chooses = STRATEGIES[name].multi_fidelity
                        networks = play_strategy(problem, name, strategy, chooses, seed, folder, watch, pause)
                    runs[name].append(networks)
    return runs


def _gather(problem: Problem, runs: Mapping[str, list[list[Network]]]) -> Found:
    networks = [network for each in runs.values() for run in each for network in run]
    scores = np.stack([network.scores for network in networks])
    gains = scores[:, :-1] - problem.goals.reference[None]
    tested = gains.copy()
    tested[:, 0] = scores[:, -1] - problem.goals.reference[0]
    rows = {name: np.full((len(each), problem.total), -1, np.int64) for name, each in runs.items()}
    number = 0
    for name, each in runs.items():
        for at, run in enumerate(each):
            spent = 0
            for network in run:
                spent += network.epochs
                if network.lived >= problem.longest and np.isfinite(gains[number]).all():
                    rows[name][at, spent - 1] = number
                number += 1
    trained = {name: np.array([len(run) for run in each]) for name, each in runs.items()}
    failed = {
        name: np.array([sum(not np.isfinite(network.scores).all() for network in run) for run in each])
        for name, each in runs.items()
    }
    return Found(networks, gains, tested, rows, trained, failed)


def _conclude(
    config: HyperConfig, problem: Problem, runs: Mapping[str, list[list[Network]]], workdir: Path
) -> dict[str, Any]:
    """Writes the arrays, the plots, the tables and result.json, that one last."""
    found, goals = _gather(problem, runs), problem.goals
    if not any((rows >= 0).any() for rows in found.rows.values()):
        count, failed = len(found.networks), sum(int(each.sum()) for each in found.failed.values())
        if failed == count:
            raise UserError(f"every one of {count} trainings diverged; lower --config.levels.rate")
        raise UserError(
            f"none of {count} trainings lasted the full {problem.longest} epochs and converged, so that there is no "
            f"front; {failed} of them diverged. In another run directory, raise --config.budget={config.budget}"
        )
    curves = {name: hypervolume_curves(rows, found.gains) for name, rows in found.rows.items()}
    strategies = {
        name: summarise_searches(rows, curves[name], found.gains, found.tested, found.trained[name], found.failed[name])
        for name, rows in found.rows.items()
    }
    bands = {name: band(curve) for name, curve in curves.items()}
    write_npz(workdir / CURVES, **curves)
    best = found_front(found.rows, found.gains)
    _draw(config, problem, bands, found, np.array([row for row, _ in best]), workdir)
    front = [_entry(problem, found.networks[row], met) for row, met in best]
    write_text_atomic(workdir / TEXT, searches_text(strategies) + "\n")
    write_text_atomic(workdir / FRONT, front_text(front) + "\n")
    write_json_atomic(workdir / ARCHITECTURES, front)
    finite = np.isfinite(found.gains).all(1)
    counted = np.concatenate([rows[rows >= 0] for rows in found.rows.values()])
    result = {
        "dataset": config.dataset,
        "train_images": problem.task.train.num_examples,
        "valid_images": problem.task.valid.num_examples,
        "test_images": problem.task.test.num_examples,
        "vectors": problem.space.cardinality,
        "objectives": list(config.objectives),
        "reference": (goals.signs * goals.reference).tolist(),
        "ideal": (goals.signs * goals.ideal).tolist(),
        "networks": len(found.networks),
        "beyond_reference": int((found.gains[finite] <= 0).any(1).sum()),
        "epochs": list(config.epochs),
        "budget_epochs": problem.total,
        "seeds": config.seeds,
        "strategies": strategies,
        "hypervolume": hypervolume(found.gains[np.unique(counted)]),
        "front": front,
    }
    write_json_atomic(workdir / RESULT, result)
    return result


def _draw(
    config: HyperConfig,
    problem: Problem,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray]],
    found: Found,
    best: np.ndarray,
    workdir: Path,
) -> None:
    """Draws the curves of hypervolume and, with two objectives, the front of the networks `best`, int [F]."""
    goals = problem.goals
    title = f"{config.dataset}: {', '.join(goals.names)}, {config.seeds} seeds"
    with writing(workdir):
        with replacing(workdir / PLOT) as hidden:
            draw_reached(hidden, bands, title)
        if len(goals.names) != 2:
            return
        sign = goals.signs[None]
        attained = {
            name: sign * (median_attainment(rows, found.gains) + goals.reference[None])
            for name, rows in found.rows.items()
            if (rows >= 0).any(1).all()
        }
        known = sign * (found.gains[best] + goals.reference[None])
        names = (goals.names[0], goals.names[1].removeprefix("-"))
        with replacing(workdir / FRONTS) as hidden:
            draw_fronts(hidden, known, attained, names, f"{title}: what half of the runs attain", "front of all runs")


def _entry(problem: Problem, network: Network, met: dict[str, int]) -> dict[str, Any]:
    """Returns one network of a front: its hyper-parameters, what is known of it, and which strategy trained it."""
    goals = problem.goals
    values = dict(
        zip((name.removeprefix("-") for name in goals.names), (goals.signs * network.scores[:-1]).tolist(), strict=True)
    )
    count = parameter_count(network.hyper, problem.task.image, problem.task.classes)
    hyper = asdict(network.hyper)
    return {
        "hyper": {name: list(each) if isinstance(each, tuple) else each for name, each in hyper.items()},
        "genotype": to_text(network.hyper),
        "values": {
            **{name: round(value, 4) for name, value in values.items()},
            "params": count,
            "test accuracy": round(float(network.scores[-1]), 2),
            "epochs": network.lived,
        },
        "met_by": met,
    }


def _plan(config: HyperConfig, problem: Problem) -> dict[str, Any]:
    task, goals, epochs = problem.task, problem.goals, ", ".join(map(str, config.epochs))
    least, most = extreme_counts(problem.space, task.image, task.classes)
    return {
        "networks": f"{problem.space.cardinality:.3g} on the grid, of {least:,} to {most:,} parameters",
        "images": f"{task.train.num_examples} train, {task.valid.num_examples} judge, "
        f"{task.test.num_examples} test the front",
        "objectives": ", ".join(config.objectives),
        "reference point": f"{point_text(goals.signs * goals.reference)}; what does not surpass it in every "
        "objective counts nothing",
        "budget": f"{problem.total} epochs for each of {config.seeds} seeds; some strategies choose among "
        f"{epochs}, the others train for {problem.longest}",
    }


def _show(config: HyperConfig, result: Mapping[str, Any], workdir: Path) -> None:
    print(
        f"\n{result['dataset']}, {', '.join(config.objectives)}, reference point "
        f"{point_text(result['reference'])}: hypervolume after so many trained epochs, "
        f"mean ± deviation of {result['seeds']} seeds\n"
    )
    print(searches_text(result["strategies"]))
    if result["beyond_reference"]:
        print(
            f"\n{result['beyond_reference']} of {result['networks']} networks do not surpass the reference point in "
            "every objective, and count nothing"
        )
    best = result["front"][-1]
    print(
        f"\nthe front of all runs, {len(result['front'])} networks: {workdir / FRONT}; its most accurate has "
        f"{best['values']['accuracy']:.2f} % on the validation images and {best['values']['test accuracy']:.2f} % on "
        f"the test images with {best['values']['params']:,} parameters: {best['genotype']}"
    )
    print(f"curves, plots and tables: {workdir}")
