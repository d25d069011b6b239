"""The runs of several strategies on a table, those of each saved as soon as they are finished.

`strategies/NAME.npz` holds the rows charged and the proposals. The same command goes on with the strategies that are
missing.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import UserError, unknown
from parsec.files import read_npz, replacing, writing
from parsec.run.signals import graceful_stop
from parsec.run.trials import Load, Task, Trials, run_trials
from parsec.run.workdir import TIMING, read_json, write_json_atomic
from parsec.search.registry import STRATEGIES, make_strategy
from parsec.tables.table import Table

FINISHED = "strategies"


class Compared(Protocol):
    """What the config of a comparison says of its runs."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of the strategies."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """Options of strategies, as NAME.OPTION=VALUE."""
        ...

    @property
    def budget(self) -> int:
        """Queries of each run."""
        ...

    @property
    def count(self) -> str:
        """What is charged."""
        ...

    @property
    def seed(self) -> int:
        """Of the first run's key."""
        ...


def make_tasks(config: Compared, objectives: tuple[str, ...], table: Table, domain: Domain) -> dict[str, Task]:
    """Returns the task of each strategy, every one of them made once so that a bad option is told at once.

    Args:
      config: of the comparison.
      objectives: what strategies are told, columns of the table or `-column`.
      table: that they are played on.
      domain: what they see of it.

    Raises:
      UserError: for a budget above the table's size, no strategy or one named twice, or a bad name or option.
    """
    if config.budget > len(table):
        raise UserError(
            f"config.budget={config.budget} is larger than table {table.name}; it holds {len(table)} architectures"
        )
    if not config.strategies:
        raise UserError(f"config.strategies is empty; choose from {', '.join(STRATEGIES)}")
    repeated = [name for name in dict.fromkeys(config.strategies) if config.strategies.count(name) > 1]
    if repeated:
        raise UserError(f"config.strategies names {repeated[0]} more than once")
    options = parse_options(config.options, config.strategies)
    tasks = {}
    for name in config.strategies:
        make_strategy(name, domain, options.get(name, {}), len(objectives))
        tasks[name] = Task(name, options.get(name, {}), objectives, config.budget, config.count, config.seed)
    return tasks


def parse_options(options: Sequence[str], strategies: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the options of each strategy, as text, of entries `NAME.OPTION=VALUE`.

    Raises:
      UserError: for an entry of another form, or of a strategy that is not compared.
    """
    parsed: dict[str, dict[str, str]] = {}
    for text in options:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not equals or not dot:
            raise UserError(f"config.options has {text!r}; write NAME.OPTION=VALUE, such as parsec.children=16")
        if name not in strategies:
            raise unknown("strategy in config.options", name, strategies)
        parsed.setdefault(name, {})[option] = value
    return parsed


def run_saved(
    load: Load, tasks: Mapping[str, Task], architectures: int, runs: int, workers: int, workdir: Path
) -> dict[str, Trials]:
    """Returns what the runs of each strategy evaluated, read back where they were saved before.

    Args:
      load: returns the table and its domain; picklable.
      tasks: by the strategy's name.
      architectures: rows of the table.
      runs: of each strategy.
      workers: processes for strategies that run on the host.
      workdir: the run directory.

    Raises:
      StoppedError: if a signal asked to stop; the strategies finished so far are saved.
    """
    timing = read_json(workdir / TIMING) if (workdir / TIMING).is_file() else {}
    with writing(workdir):
        (workdir / FINISHED).mkdir(exist_ok=True)
    trials = {}
    with graceful_stop() as stop:
        for at, (name, task) in enumerate(tasks.items()):
            saved = _read_trials(workdir / FINISHED / f"{name}.npz", (runs, task.budget), architectures)
            if saved is None:
                began = time.perf_counter()
                print(f"{name} ...", end="", flush=True)
                saved = run_trials(load, task, runs, workers)
                seconds = time.perf_counter() - began
                print(f" {seconds:.1f} s", flush=True)
                write_npz(workdir / FINISHED / f"{name}.npz", rows=saved.rows, proposals=saved.proposals)
                timing = {**timing, name: round(seconds, 3)}
                write_json_atomic(workdir / TIMING, timing)
            else:
                print(f"{name} was finished before", flush=True)
            trials[name] = saved
            if at + 1 < len(tasks):
                stop.heed(at + 1)
    return trials


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Replaces the file by the arrays; a crash leaves the old file or the new one, whole."""
    with writing(path), replacing(path) as hidden, hidden.open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())


def _read_trials(path: Path, shape: tuple[int, int], architectures: int) -> Trials | None:
    """Returns the saved runs of a strategy, or None where there are none; a damaged file counts as none."""
    if not path.is_file():
        return None
    try:
        saved = read_npz(path)
        found = Trials(saved["rows"], saved["proposals"])
    except (UserError, KeyError):
        print(f"{path} is damaged; its strategy is run again")
        return None
    fits = found.rows.shape == shape and found.rows.max(initial=-1) < architectures
    return found if fits else None
