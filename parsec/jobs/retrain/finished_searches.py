"""The finished searches that a comparison is of: their cells, and that they can be compared."""

from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from parsec.cells import get_space
from parsec.cells.genotypes import from_text
from parsec.config import from_config_dict
from parsec.data import Dataset
from parsec.errors import UserError, shown
from parsec.jobs.train.cell_source import cell_of_run
from parsec.run.workdir import CONFIG, read_json, same_job
from parsec.settings.retrain import RetrainNetworkSettings
from parsec.settings.search import SearchConfig


class FinishedSearch(NamedTuple):
    """A finished search.

    Attributes:
      run: its run directory, as it was given.
      architecture: the found one, int32 [L].
      config: of the search.
      images: the digest of its dataset; empty where the run does not say.
    """

    run: str
    architecture: np.ndarray
    config: SearchConfig
    images: str


def read_searches(runs: tuple[str, ...]) -> list[FinishedSearch]:
    """Returns the finished searches in run directories, which must agree in space, data and size.

    Raises:
      UserError: none is given, one is unfinished or no search, or two do not agree; it names the run and what differs.
    """
    if not runs:
        raise UserError("no search is given; name run directories with --config.from_runs=RUN,RUN")
    searches = [_read_search(run) for run in runs]
    first = searches[0]
    for other in searches[1:]:
        for name, mine, theirs in (
            ("space", first.config.space, other.config.space),
            ("dataset", first.config.dataset, other.config.dataset),
            ("data.image_size", first.config.data.image_size, other.config.data.image_size),
        ):
            if mine != theirs:
                raise UserError(
                    f"config.from_runs: {first.run} has {name}={mine} and {other.run} {name}={theirs}; cells are "
                    "compared on the same images in the same space"
                )
    return searches


def check_sizes(network: RetrainNetworkSettings, searches: list[FinishedSearch]) -> None:
    """Raises `UserError` where networks are to be as large as the searched ones, and those differ."""
    first = searches[0]
    for name, given in asdict(network).items():
        for other in searches[1:]:
            mine, theirs = (getattr(each.config.network, name) for each in (first, other))
            if given in (0, "searched") and mine != theirs:
                raise UserError(
                    f"config.from_runs: {first.run} has network.{name}={mine} and {other.run} {theirs}; say which with "
                    f"--config.network.{name}"
                )


def check_images(searches: list[FinishedSearch], dataset: Dataset) -> None:
    """Raises `UserError` where a search learnt from other images, among which those of this test part may be."""
    for each in searches:
        if each.images and each.images != dataset.digest:
            raise UserError(
                f"config.from_runs: {shown(each.run)} searched on other images than {dataset.name} has now: their "
                f"sha256 was {each.images[:12]}, now {dataset.digest[:12]}; give its --config.data_dir"
            )


def _read_search(run: str) -> FinishedSearch:
    cell, where = cell_of_run(run, "config.from_runs"), f"config.from_runs={shown(run)}"
    stored = read_json(Path(run).expanduser() / CONFIG)
    job = stored.get("job") if isinstance(stored, dict) else None
    if not same_job(job, SearchConfig.JOB):
        raise UserError(f"{where} is the run of another job, {shown(job)}; give run directories of searches")
    try:
        config = from_config_dict(SearchConfig, stored["config"])
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not the run of a search: {error}") from None
    space = get_space(cell.space)
    digests = stored.get("digests") or {}
    return FinishedSearch(run, from_text(space, cell.genotype), config, str(digests.get("images", "")))
