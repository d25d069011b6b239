"""From images to a network that tells their classes: a search, its verification, and two trainings, within a time.

The stages are jobs of their own in folders of the run directory, with everything that such a job writes and reads:
`search` (`parsec.jobs.search.job`), `train`, where the found cell is trained from scratch and exported, and
`residual`, where a plain residual network of as many parameters is trained alike (both `parsec.jobs.train.job`). Each
goes on exactly where it was stopped, and how long it lasts is settled once, by `parsec.jobs.images.budget`. The last
thing is result.json.
"""

import contextlib
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from parsec.cells import get_space
from parsec.config import affecting_results, flatten, renamed_settings
from parsec.data.dataset import class_sizes
from parsec.data.examples import is_streamed
from parsec.errors import UserError, shown
from parsec.jobs.images.budget import fit_search, fit_trainings, read_budget, shortened, write_budget
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.job import run_search
from parsec.jobs.search.problem import Problem, in_memory, load_problem
from parsec.jobs.search.verify import plan_verification
from parsec.jobs.train.cell_source import CellSource, any_cell, chosen_cell
from parsec.jobs.train.export import PROGRAM
from parsec.jobs.train.job import run_train
from parsec.jobs.train.task import check_task, make_task
from parsec.run.opening import report_finished
from parsec.run.progress import announce
from parsec.run.workdir import RESULT, TIMING, claim, finished_result, locate, read_json, write_json_atomic
from parsec.settings.images import RESIDUAL, SEARCH, TRAIN, PipelineConfig
from parsec.settings.search import SearchConfig
from parsec.settings.train import TrainConfig
from parsec.train.model_file import WEIGHTS
from parsec.train.residual import RESIDUAL as PLAIN

Config = TypeVar("Config", SearchConfig, TrainConfig)
# What is given once, for all stages -> the key path in a stage.
_SHARED = {"dataset": "dataset", "data_dir": "data_dir", "seed": "seed", "image_size": "data.image_size"}
# Of the time that both trainings were promised, the least that they take: a network of one epoch is of no use.
_LEAST_OF_PROMISED = 0.5
# In the timing.json of a stage: seconds of its parts, which do not overlap.
_SPENT = ("seconds", "evaluation_seconds", "final_seconds", "retraining_seconds")
# Two-sided, of a normal distribution.
_Z95 = 1.96


class Stages(NamedTuple):
    """The configs of the stages, as long as they were given."""

    search: SearchConfig
    train: TrainConfig
    residual: TrainConfig


def run_pipeline(config: PipelineConfig, workdir: Path) -> dict[str, Any]:
    """Searches, trains and exports, goes on with what was cut short, or reports what is finished.

    Args:
      config: see `PipelineConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds; accuracies in percent. Nothing in it depends on the clock but the lengths of the stages.

    Raises:
      UserError: for settings that contradict each other, and for whatever a stage refuses; before the search where it
        can be known.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the same command goes on.
    """
    began = time.monotonic()
    stages = make_stages(config)
    result = report_finished(config, workdir, show_result)
    if result is not None:
        return result
    with _of_stage(SEARCH, stages.search):
        check_search(stages.search, get_space(stages.search.space))
        problem = load_problem(stages.search)
    check_trainings(stages, problem)
    path = locate(workdir)
    announce(f"from {config.dataset} to a trained network", _plan(config, stages, problem, path))
    settled = read_budget(path)
    if config.minutes and SEARCH not in settled:
        print("measuring the speed of the search, a minute or so on a CPU", flush=True)
        with _of_stage(SEARCH, stages.search):
            fit = fit_search(stages.search, problem, config.search_share * config.minutes * 60 - _since(began))
        print(f"search and verification: {fit.words}")
        settled = {SEARCH: fit.settings}
    with claim(path, config, {"images": problem.dataset.digest}) as run:
        for note in run.notes:
            print(note)
        # Another process may have settled it since.
        settled |= read_budget(path)
        if SEARCH in settled:
            write_budget(path, SEARCH, settled[SEARCH])
        clock = Clock(path, began)
        try:
            searched = _stage(run_search, shortened(stages.search, settled.get(SEARCH, {})), path / SEARCH)
            clock.write()
            settings = _settle_trainings(config, stages, problem, path, clock)
            found = _stage(run_train, shortened(stages.train, settings), path / TRAIN)
            plain = _stage(run_train, shortened(stages.residual, settings), path / RESIDUAL)
        finally:
            clock.write()
        result = _describe(config, searched, found, plain, problem)
        write_json_atomic(path / RESULT, result)
        result = read_json(path / RESULT)
        show_result(result, path)
        return result


def make_stages(config: PipelineConfig) -> Stages:
    """Returns the configs of the stages; raises `UserError` for a contradiction or streamed images."""
    if is_streamed(config.dataset):
        raise UserError(
            f"config.dataset={config.dataset} is streamed, which this job does not do yet; a search and a training of "
            "their own do: --config=SOURCE --transfer_to=imagenet --train"
        )
    for name in ("from_run", "genotype", "weights"):
        if getattr(config.train, name):
            raise UserError(
                f"config.train.{name} means nothing here: the found cell is trained, and the plain residual network; "
                "leave it out, or train that alone with --config=images_train"
            )
    search, train = _with_shared(config, config.search, SEARCH), _with_shared(config, config.train, TRAIN)
    # Relative to their own run directories, so that the run does not depend on where it lies.
    train = replace(train, from_run=f"../{SEARCH}")
    # The found cell is as large as it is; only the plain network's size can be chosen.
    found = replace(train, network=replace(train.network, params=0))
    return Stages(search, found, replace(train, genotype=PLAIN))


def check_trainings(stages: Stages, problem: Problem) -> None:
    """Raises `UserError` for what the trainings would refuse after the search."""
    dataset = in_memory(problem).dataset
    if not len(dataset.test_labels):
        raise UserError(f"dataset {dataset.name!r} has no test part, by which the networks could be compared")
    # Any cell of the space stands for the one that will be found.
    cell = any_cell(stages.search.space)
    with _of_stage(TRAIN, stages.train):
        for config, source in ((stages.train, cell), (stages.residual, CellSource(PLAIN, PLAIN))):
            check_task(make_task(config, dataset, source, cell))


def show_result(result: Mapping[str, Any], path: Path) -> None:
    """Prints what came out: the verdict on the search, both networks, and how the trained one is used."""
    found, plain = result["found"], result["residual"]
    retrained = result["retrained"]
    rows: dict[str, Any] = {
        "verdict on the cell": "none was asked for" if retrained is None else f"{retrained['sentence']}.",
        "the largest class alone, test": f"{result['largest_class']:.2f} %",
        "found cell, test": _described(found, path / TRAIN),
        "plain residual, test": _described(plain, path / RESIDUAL),
        "difference": f"{result['difference']:+.2f} ± {result['difference_interval']:.2f} points (95 %, of "
        f"{result['test_images']} images, one training each)",
        "weights": path / TRAIN / WEIGHTS,
        "program": path / TRAIN / PROGRAM,
        "report of the search": path / SEARCH / "report.html",
        "time": f"{_timing(path).get('seconds', 0.0) / 60:.1f} minutes",
    }
    print()
    announce(f"trained on {result['dataset']}", rows)
    # On lines of their own, to be copied.
    print(f"python main.py --predict={shlex.quote(_near(path))} FILES_OR_FOLDER")
    if result["difference"] < 0:
        print("or, with the plain residual network, which has the higher test accuracy here:")
        print(f"python main.py --predict={shlex.quote(_near(path / RESIDUAL))} FILES_OR_FOLDER")


class Clock:
    """Seconds spent on a run by all the processes that worked on it.

    Of one that was killed: what it wrote itself, and what its stages have saved since.
    """

    def __init__(self, path: Path, began: float) -> None:
        self._path, self._began = path, began
        written = _timing(path)
        self._before = written.get("seconds", 0.0) + self._of_stages() - written.get("of_stages", 0.0)

    def spent(self) -> float:
        return self._before + _since(self._began)

    def write(self) -> None:
        seconds = {"seconds": self.spent(), "of_stages": self._of_stages()}
        write_json_atomic(self._path / TIMING, {name: round(value, 3) for name, value in seconds.items()})

    def _of_stages(self) -> float:
        stages = (_timing(self._path / name) for name in (SEARCH, TRAIN, RESIDUAL))
        return sum(stage.get(name, 0.0) for stage in stages for name in _SPENT)


def _settle_trainings(
    config: PipelineConfig, stages: Stages, problem: Problem, path: Path, clock: Clock
) -> dict[str, str]:
    """Returns what shortens both trainings, chosen once and kept in the run directory."""
    settled = read_budget(path)
    if not config.minutes or TRAIN in settled:
        return settled.get(TRAIN, {})
    print("measuring the speed of both trainings, a minute or so on a CPU", flush=True)
    tasks = [
        make_task(stage, in_memory(problem).dataset, *chosen_cell(stage.from_run, stage.genotype, path / name))
        for name, stage in ((TRAIN, stages.train), (RESIDUAL, stages.residual))
    ]
    left, promised = config.minutes * 60 - clock.spent(), (1 - config.search_share) * config.minutes * 60
    if left < _LEAST_OF_PROMISED * promised:
        print(
            "the search took longer than was measured beforehand, as on a machine that became busy: "
            f"{clock.spent():.0f} of {config.minutes * 60:.0f} seconds are gone, and the trainings go on beyond them"
        )
        left = _LEAST_OF_PROMISED * promised
    fit = fit_trainings(tasks, left)
    print(f"trainings: {fit.words}")
    write_budget(path, TRAIN, fit.settings)
    return fit.settings


def _stage(run: Callable[[Config, Path], dict[str, Any]], config: Config, path: Path) -> dict[str, Any]:
    """Runs a stage, or goes on with it; one that is finished is told in a line."""
    with _of_stage(TRAIN if path.name == RESIDUAL else path.name, config):
        result = finished_result(path, config)
        if result is not None:
            print(f"{path.name}: finished before, in {path}")
            return result
        return run(config, path)


@contextlib.contextmanager
def _of_stage(name: str, config: SearchConfig | TrainConfig) -> Iterator[None]:
    """Gives the settings in a stage's errors the names by which they are set here."""
    shared = {key: top for top, key in _SHARED.items()}
    with renamed_settings(config, lambda key: f"config.{shared.get(key, f'{name}.{key}')}"):
        yield


def _with_shared(config: PipelineConfig, stage: Config, name: str) -> Config:
    """Returns a stage with what is given for all; raises `UserError` where it has another value of its own."""
    own = dict(flatten(stage))
    for shared, key in _SHARED.items():
        given = getattr(config, shared)
        if own[key] not in ("", 0, given):
            raise UserError(
                f"config.{name}.{key}={shown(own[key])} contradicts config.{shared}={shown(given)}, which all stages "
                f"share; give --config.{shared} alone"
            )
    data: Any = replace(stage.data, image_size=config.image_size)
    return replace(stage, dataset=config.dataset, data_dir=config.data_dir, seed=config.seed, data=data)


def _plan(config: PipelineConfig, stages: Stages, problem: Problem, path: Path) -> dict[str, Any]:
    dataset, minutes, share = in_memory(problem).dataset, config.minutes, config.search_share
    network, verification = stages.train.network, plan_verification(stages.search, problem)
    within = ", within them" if minutes and verification.steps else ""
    return {
        "images": f"{len(dataset.labels)} to learn from, {len(dataset.test_labels)} for the test, "
        f"{dataset.images.shape[1:]} each",
        "classes": class_sizes(dataset),
        "1 search": f"a cell of {stages.search.space}{f', at most {share * minutes:.0f} minutes' if minutes else ''}",
        "2 verification": f"{verification.words}{within}",
        "3 training": f"the found cell, {network.cells} cells, {network.channels} channels; export",
        "4 training": "a plain residual network of as many parameters, alike",
        "time": f"{minutes:g} minutes; what the search leaves is for both trainings" if minutes else "no limit",
        "run directory": path,
    }


def _describe(
    config: PipelineConfig,
    searched: Mapping[str, Any],
    found: Mapping[str, Any],
    plain: Mapping[str, Any],
    problem: Problem,
) -> dict[str, Any]:
    images = len(in_memory(problem).dataset.test_labels)
    figures = ("test_accuracy", "valid_accuracy", "tested", "params", "flops", "steps", "epochs", "shape")
    rates = [each["test_accuracy"] / 100 for each in (found, plain)]
    return {
        "space": found["space"],
        "genotype": found["genotype"],
        "dataset": config.dataset,
        "num_classes": found["num_classes"],
        "image": found["image"],
        "seed": config.seed,
        "retrained": searched["retrained"],
        "found": {name: found[name] for name in figures},
        "residual": {name: plain[name] for name in figures},
        "test_images": images,
        "largest_class": 100 * float(np.bincount(in_memory(problem).dataset.test_labels).max() / images),
        "difference": found["test_accuracy"] - plain["test_accuracy"],
        # As if both had been tested on images of their own, which makes it wider.
        "difference_interval": 100 * _Z95 * math.sqrt(sum(rate * (1 - rate) / images for rate in rates)),
        "config": affecting_results(config),
    }


def _described(figures: Mapping[str, Any], path: Path) -> str:
    return (
        f"{figures['test_accuracy']:.2f} %; {figures['params']:,} parameters, {figures['flops']:,} multiply-adds, "
        f"{figures['epochs']:.4g} epochs in {_timing(path).get('seconds', 0.0):.0f} s"
    )


def _timing(path: Path) -> dict[str, float]:
    """Returns the numbers that a run directory's timing.json tells of; none where it is not there yet."""
    timing = read_json(path / TIMING) if (path / TIMING).exists() else {}
    items = timing.items() if isinstance(timing, dict) else ()
    return {name: float(value) for name, value in items if isinstance(value, int | float)}


def _since(began: float) -> float:
    return time.monotonic() - began


def _near(path: Path) -> str:
    """Returns a path as short as it can be typed from the current directory."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
