"""Proof by training: the cells of finished searches against random cells and a plain residual network.

All are trained alike and from scratch, with several seeds, and judged once on the test images by `report.verdict`. A
search that cannot beat cells drawn at random, trained under the same budget, was not worth its time (Yang, Esperança,
Carlucci 2020, "NAS evaluation is frustratingly hard", arXiv 1912.12522). Networks are normalised by the statistics of
the batch, and their accuracies are those of short trainings: they rank networks, and are no final training's.

Files: retrained.jsonl with a line for each network as it is trained, accuracies.png, table.md and result.json.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.cells import Space, get_space
from parsec.cells.costs import named_costs, network_cost
from parsec.cells.domain import Domain
from parsec.cells.genotypes import to_text
from parsec.cells.network import Shape
from parsec.config import affecting_results
from parsec.data import load
from parsec.errors import UserError, shown
from parsec.files import replacing, writing
from parsec.footprint import require_memory
from parsec.jobs.footprint import network_needs
from parsec.jobs.latency_model import read_model
from parsec.jobs.retrain.finished_searches import check_images, check_sizes, read_searches
from parsec.jobs.search.alike import (
    Accuracies,
    Entrants,
    alike_evaluator,
    draw_random,
    make_recipe,
    plain_evaluator,
    plain_network,
    plan_of,
    residual_params,
    train_alike,
    whole_parts,
)
from parsec.jobs.search.domain import known_costs, search_domain
from parsec.jobs.search.problem import check_cells
from parsec.jobs.search.shared_out import OpenedEvaluator
from parsec.report.accuracies import Row, draw_accuracies, ordered
from parsec.report.verdict import judge, percent, rank, summarise
from parsec.run.opening import begin, report_finished
from parsec.run.progress import announce
from parsec.run.workdir import RESULT, read_json, write_json_atomic, write_text_atomic
from parsec.settings.retrain import RetrainConfig
from parsec.settings.search import NetworkSettings, SearchConfig
from parsec.train.each import Parts
from parsec.train.many import make_trainer
from parsec.train.recipe import Recipe

TABLE, PLOT = "table.md", "accuracies.png"


def run_retrain(config: RetrainConfig, workdir: Path) -> dict[str, Any]:
    """Compares found cells with random ones, goes on with a comparison that was cut short, or reports a finished one.

    Args:
      config: see `RetrainConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds; accuracies in percent. Nothing in it depends on the clock.

    Raises:
      UserError: for runs that are unfinished, no searches, or not of the same space, data and size; unusable data; or a
        run directory that belongs to another run.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; what was trained is kept.
    """
    result = report_finished(config, workdir, show_comparison)
    if result is not None:
        return result
    searches = read_searches(config.from_runs)
    check_sizes(config.network, searches)
    first = searches[0].config
    space = get_space(first.space)
    dataset = load(first.dataset, config.data_dir or first.data_dir, first.data.image_size)
    check_images(searches, dataset)
    parts, shape = whole_parts(dataset), _shape(config, first, space, len(dataset.class_names))
    training = config.training
    augmentation = first.data.augmentation if training.augmentation == "searched" else training.augmentation
    recipe = make_recipe(training, len(dataset.labels), augmentation)
    height, width, channels = dataset.images.shape[1:]
    image = (height, width, channels)
    _check_memory(config, shape, space, image)
    by_text = {to_text(space, each.architecture): each for each in searches}
    found = np.stack([each.architecture for each in by_text.values()])
    domain = _domain(config, space, shape, image, found)
    random = draw_random(space, found, config.random, config.seed, domain)
    entrants = Entrants(space, shape, found, random, plain_network(space, shape, found, image))
    digests = {"images": dataset.digest, "cells": sha256("\n".join(by_text).encode()).hexdigest()}
    if config.latency:
        digests["latency"] = read_model(config.latency, space).digest
    title = f"found against random cells of {space.name} on {first.dataset}"
    with begin(config, workdir, digests, title, _plan(config, entrants, recipe, parts), dataset.notes) as run:

        def open_cells() -> AbstractContextManager[OpenedEvaluator]:
            trainer = make_trainer(entrants.space, entrants.shape, recipe, parts.train)
            return nullcontext((alike_evaluator(trainer, parts.test, recipe.steps, config.seed, config.seeds), None))

        plain = partial(plain_evaluator, entrants, recipe, parts, config.seed, config.seeds)
        accuracies = train_alike(run, entrants, open_cells, plain, config.seeds)
        runs = {text: [each.run for each in searches if to_text(space, each.architecture) == text] for text in by_text}
        result = _describe(config, first, entrants, accuracies, recipe, parts, list(runs.values()))
        with writing(run.path):
            _write_plot(run.path / PLOT, accuracies, result["summary"]["sentence"])
        write_text_atomic(run.path / TABLE, table_text(result))
        write_json_atomic(run.path / RESULT, result)
        result = read_json(run.path / RESULT)
        show_comparison(result, run.path)
        return result


def _domain(
    config: RetrainConfig, space: Space, shape: Shape, image: tuple[int, int, int], found: np.ndarray
) -> Domain | None:
    """Returns what random cells are of, None for the whole space; raises `UserError` where a found cell is not."""
    if not config.constraints:
        if config.latency:
            raise UserError(f"config.latency={shown(config.latency)} means nothing here; it needs config.constraints")
        return None
    table = known_costs(space.name, shape, image, config.latency)
    domain = search_domain(space, lambda: table, config.constraints)
    for cell in found[~np.asarray(domain.valid(found))]:
        costs = ", ".join(f"{name} {cost:,.6g}" for name, cost in named_costs(table, cell).items())
        raise UserError(
            f"config.constraints={','.join(config.constraints)} leaves out a found cell, which has at this size {costs}"
        )
    return domain


def show_comparison(result: dict[str, Any], workdir: Path) -> None:
    """Prints a finished comparison: the verdict first, then the figures of each network."""
    summary, residual = result["summary"], result["residual"]
    low, high = summary["beaten_interval"]
    rows: dict[str, Any] = {"verdict": f"{summary['sentence']}."}
    for each in result["found"]:
        rows[f"found, rank {each['rank']} of {each['among']}"] = f"{_runs(each)}  {each['genotype']}"
    rows["random cells beaten"] = f"{summary['beaten']:.0%}, of all cells of the space {low:.0%} to {high:.0%} (95 %)"
    rows["plain residual network"] = f"{_runs(residual)}  {residual['blocks']} blocks, {residual['channels']} channels"
    if summary["failed"]:
        rows["failed"] = f"{summary['failed']} training runs diverged"
    rows |= {"table": workdir / TABLE, "plot": workdir / PLOT}
    print()
    announce(f"found cells on {result['dataset']}", rows)


def table_text(result: dict[str, Any]) -> str:
    """Returns the Markdown table of all networks, from the best mean to the worst, under the verdict."""
    lines = [
        f"{result['summary']['sentence']}.",
        "",
        "| | network | test accuracy | deviation | runs | parameters |",
        "|---|---|---|---|---|---|",
    ]
    rows = [("found", each) for each in result["found"]] + [("random", each) for each in result["random"]]
    rows += [("residual", result["residual"])]
    for kind, each in sorted(rows, key=lambda row: -np.inf if row[1]["mean"] is None else -row[1]["mean"]):
        runs = ", ".join("diverged" if value is None else f"{value:.2f}" for value in each["test"])
        name = f"`{each['genotype']}`" if "genotype" in each else "plain residual network"
        mean, deviation = (_two_digits(each[key]) for key in ("mean", "deviation"))
        # A cell of the text holds no bar.
        name = name.replace("|", "\\|")
        lines.append(f"| {kind} | {name} | {mean} | {deviation} | {runs} | {each['params']:,} |")
    return "\n".join(lines) + "\n"


def _shape(config: RetrainConfig, searched: SearchConfig, space: Space, num_classes: int) -> Shape:
    settings = asdict(searched.network)
    given = {name: value for name, value in asdict(config.network).items() if value not in (0, "searched")}
    shape = Shape(num_classes=num_classes, **(settings | given))
    check_cells(space, shape)
    return shape


def _check_memory(config: RetrainConfig, shape: Shape, space: Space, image: tuple[int, int, int]) -> None:
    """Raises `UserError` where one training, or the random cells, certainly do not fit in memory."""
    size = NetworkSettings(shape.channels, shape.cells, shape.stem_stride, shape.dtype, shape.stem)
    needs = network_needs(size, space, image, config.training.batch_size)
    cells = {"random cells": config.random * len(space.choices) * 4}
    require_memory(
        needs | cells, "lower config.network.channels, config.training.batch_size or whichever is the largest"
    )


def _plan(config: RetrainConfig, entrants: Entrants, recipe: Recipe, parts: Parts) -> dict[str, Any]:
    test = 0 if parts.test is None else len(parts.test.labels)
    size = entrants.shape
    return {
        "networks": plan_of(entrants, recipe, config.seeds),
        "images": f"{len(parts.train.labels)} to train, {test} for the test, {parts.train.images.shape[1:]} each",
        "cells": f"{size.cells} cells, {size.channels} channels, {size.dtype}",
        "plain network": f"{entrants.residual.cells} blocks a stage, {entrants.residual.channels} channels",
        "device": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}",
    }


def _describe(
    config: RetrainConfig,
    searched: SearchConfig,
    entrants: Entrants,
    accuracies: Accuracies,
    recipe: Recipe,
    parts: Parts,
    runs: list[list[str]],
) -> dict[str, Any]:
    space, shape = entrants.space, entrants.shape
    height, width, channels = parts.train.images.shape[1:]
    images = 0 if parts.test is None else len(parts.test.labels)

    def cell(architecture: np.ndarray, test: np.ndarray) -> dict[str, Any]:
        params = network_cost(space, architecture, shape, (height, width, channels)).params
        return {"genotype": to_text(space, architecture), "params": params, **_figures(test)}

    found = []
    for architecture, test, of in zip(entrants.found, accuracies.found, runs, strict=True):
        place, verdict = rank(test, accuracies.random), judge(test[None], accuracies.random, images)
        found.append(
            {"runs": of, **cell(architecture, test)}
            | {"rank": place.rank, "among": place.among, "beaten": place.beaten}
            | {"beaten_interval": list(place.interval), "verdict": verdict.words, "p_better": verdict.p_better}
        )
    plain = {"blocks": entrants.residual.cells, "channels": entrants.residual.channels}
    return {
        "space": space.name,
        "dataset": searched.dataset,
        "seed": config.seed,
        "summary": summarise(*accuracies, images),
        "found": found,
        "random": [
            cell(architecture, test) for architecture, test in zip(entrants.random, accuracies.random, strict=True)
        ],
        "residual": plain
        | {"params": residual_params(entrants, (height, width, channels)), **_figures(accuracies.residual)},
        "network": asdict(shape),
        "recipe": asdict(recipe),
        "config": affecting_results(config),
    }


def _figures(test: np.ndarray) -> dict[str, Any]:
    finite = test[np.isfinite(test)]
    return {
        "test": [float(value) if np.isfinite(value) else None for value in test],
        "mean": float(finite.mean()) if finite.size else None,
        "deviation": float(finite.std(ddof=1)) if finite.size > 1 else None,
    }


def _write_plot(path: Path, accuracies: Accuracies, title: str) -> None:
    rows = [Row("found", runs) for runs in accuracies.found] + [Row("random", runs) for runs in accuracies.random]
    with replacing(path) as hidden:
        draw_accuracies(hidden, ordered([*rows, Row("residual", accuracies.residual)]), title)


def _runs(network: dict[str, Any]) -> str:
    return percent(network["mean"], network["deviation"])


def _two_digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
