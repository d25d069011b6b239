"""Measuring what networks take on this device, and fitting what predicts it; files latency.npz and latency.json."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.cells import Space, get_space
from parsec.cells.costs import cost_table, table_costs
from parsec.cells.genotypes import from_text, to_text
from parsec.cells.network import Shape
from parsec.errors import UserError
from parsec.evaluate.latency import Call, LatencyModel, compile_network, fit_latency, measure, predict_latency
from parsec.files import writing
from parsec.jobs.latency_model import MODEL, describe_model
from parsec.jobs.search.problem import check_cells
from parsec.jobs.tables.build import choose_rows
from parsec.jobs.train.cell_source import cells_of_run
from parsec.report.ranking import rank_correlation
from parsec.run.opening import begin, report_finished
from parsec.run.progress import Progress, announce
from parsec.run.signals import graceful_stop
from parsec.run.workdir import RESULT, write_json_atomic
from parsec.settings.latency import LatencyConfig
from parsec.tables.table import make_table, save_table

TABLE = "latency.npz"


def run_latency(config: LatencyConfig, workdir: Path) -> dict[str, Any]:
    """Measures cells and fits the model of their latency, or reports a finished run.

    One that was cut short begins anew: latencies compare only where they were measured in turns.

    Args:
      config: see `LatencyConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds.

    Raises:
      UserError: the space is unknown or smaller than the number of cells, a run is unfinished or of another space, or
        the directory belongs to another run.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop.
    """
    space = get_space(config.space)
    result = report_finished(config, workdir, _show)
    if result is not None:
        return result
    shape = Shape(num_classes=config.num_classes, **asdict(config.network))
    owners = [(run, cell) for run in config.from_runs for cell in _found(run, space)]
    # Fronts may share cells.
    found = np.unique(np.array([cell for _, cell in owners], np.int32).reshape(-1, len(space.sizes)), axis=0)
    drawn = _draw(config, space, shape, found)
    cells, image = np.concatenate([drawn, found]), (config.image_size, config.image_size, 3)
    with begin(config, workdir, {}, f"latencies of {space.name}", _plan(config, len(drawn), len(found))) as run:
        rounds = _measure(
            config, [partial(compile_network, space, cell, shape, image, config.batch_size) for cell in cells]
        )
        milliseconds = 1e3 * np.median(rounds, 0)
        model = fit_latency(space, drawn, milliseconds[: len(drawn)])
        held_out = _held_out(model, milliseconds[: len(drawn)])
        costs = table_costs(cost_table(space, shape, image), cells)
        columns = {
            "latency_ms": milliseconds,
            "latency_ms_deviation": 1e3 * rounds.std(0),
            "predicted_latency_ms": predict_latency(model, cells),
            "params": costs[:, 0],
            "flops": costs[:, 1],
        }
        table = make_table("latency", space.sizes, cells, columns)
        with writing(run.path):
            save_table(run.path / TABLE, table)
        told = _describe(config, held_out)
        write_json_atomic(run.path / MODEL, describe_model(space, model.intercept, model.effects, told))
        result = _summarise(owners, space, cells, columns, held_out)
        write_json_atomic(run.path / RESULT, result)
        _show(result, run.path)
        return result


def _draw(config: LatencyConfig, space: Space, shape: Shape, found: np.ndarray) -> np.ndarray:
    """Returns random cells int32 [N, L], none of which is among the found ones; raises `UserError`."""
    check_cells(space, shape)
    if config.cells + len(found) > space.cardinality:
        raise UserError(f"config.cells={config.cells} is more than {space.name} has, {space.cardinality}")
    rows = choose_rows(space, config.cells + len(found), config.seed)
    drawn = rows.architectures[rows.trained]
    known = (drawn[:, None] == found[None]).all(-1).any(1)
    fresh = drawn[~known]
    kept = np.random.default_rng(config.seed).permutation(len(fresh))[: config.cells]
    return fresh[np.sort(kept)]


def _found(run: str, space: Space) -> list[np.ndarray]:
    cells = cells_of_run(run, "config.from_runs")
    if cells[0].space != space.name:
        raise UserError(f"config.from_runs={run}: its cell is of {cells[0].space}, and config.space={space.name}")
    return [from_text(space, cell.genotype) for cell in cells]


def _measure(config: LatencyConfig, compilers: list[Callable[[], Call]]) -> np.ndarray:
    """Returns seconds float64 [rounds, N]."""
    calls: list[Call] = []
    rounds: list[np.ndarray] = []
    with graceful_stop() as stop:
        with Progress(len(compilers), label="compiled") as progress:
            for compiler in compilers:
                calls.append(compiler())
                progress.update(len(calls), {})
                stop.heed(0)
        with Progress(config.rounds, label="rounds") as progress:
            for seconds in measure(calls, config.rounds):
                rounds.append(seconds)
                progress.update(len(rounds), {"median ms": 1e3 * float(np.median(seconds))})
                stop.heed(0)
    return np.stack(rounds)


def _plan(config: LatencyConfig, drawn: int, found: int) -> dict[str, Any]:
    return {
        "cells": f"{drawn} random ones" + f", {found} found ones" * bool(found),
        "network": f"{config.network.cells} cells, {config.network.channels} channels, {config.network.dtype}",
        "batch": f"{config.batch_size} x {config.image_size} x {config.image_size} x 3",
        "rounds": config.rounds,
        "device": f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
    }


def _held_out(model: LatencyModel, milliseconds: np.ndarray) -> dict[str, float | None]:
    """Returns how far predictions of cells that the model was not fitted to are off, and how they rank."""
    return {
        "mean_relative_error": float(np.mean(np.abs(model.held_out - milliseconds) / milliseconds)),
        "rank_correlation": rank_correlation(model.held_out, milliseconds),
    }


def _describe(config: LatencyConfig, held_out: dict[str, float | None]) -> dict[str, Any]:
    """Returns what latency.json says of how it was measured."""
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "network": asdict(config.network),
        "batch": [config.batch_size, config.image_size, config.image_size, 3],
        "held_out": held_out,
    }


def _summarise(
    owners: Sequence[tuple[str, np.ndarray]],
    space: Space,
    cells: np.ndarray,
    columns: dict[str, np.ndarray],
    held_out: dict[str, float | None],
) -> dict[str, Any]:
    found = [int((cells == cell[None]).all(1).argmax()) for _, cell in owners]
    return {
        "space": space.name,
        "device": jax.devices()[0].device_kind,
        "cells": len(cells) - len(set(found)),
        "latency_ms": {
            name: float(np.quantile(columns["latency_ms"], share))
            for name, share in (("least", 0), ("median", 0.5), ("most", 1))
        },
        "held_out": held_out,
        "found": [
            {
                "run": run,
                "genotype": to_text(space, cells[at]),
                **{name: float(values[at]) for name, values in columns.items()},
            }
            for (run, _), at in zip(owners, found, strict=True)
        ],
    }


def _show(result: dict[str, Any], path: Path) -> None:
    spread = result["latency_ms"]
    error, correlation = result["held_out"].values()
    rows: dict[str, Any] = {
        "latency": f"{spread['least']:.3g} to {spread['most']:.3g} ms, median {spread['median']:.3g}",
        "predicted cells": f"{error:.1%} off in the mean where the model was not fitted to them"
        + ("" if correlation is None else f", rank correlation {correlation:.2f}"),
    }
    for at, each in enumerate(result["found"], 1):
        told = f"{each['latency_ms']:.3g} ± {each['latency_ms_deviation']:.2g} ms"
        # The folder's name alone: a long path would leave no room for the figures.
        rows[f"{at}. {Path(each['run']).name}, {each['params']:,.0f} parameters"] = (
            f"{told}, predicted {each['predicted_latency_ms']:.3g}"
        )
    rows |= {"table": path / TABLE, "model": path / MODEL}
    announce(f"latencies of {result['space']} on {result['device']}", rows)
