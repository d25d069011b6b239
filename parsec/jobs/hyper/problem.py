"""What a search of the joint space works on: the grid, the images in their parts, and what is wanted of networks."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parsec.cells.domain import Domain
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.memory import held_out_batches, training_batches
from parsec.errors import UserError, unknown
from parsec.evaluate.goals import Goals, check_goals
from parsec.files import expanded
from parsec.hyper.evaluator import PARAMS, hyper_goals
from parsec.hyper.network import Task
from parsec.hyper.space import MOST_LAYERS, HyperSpace, hyper_domain, integer_levels, real_levels
from parsec.settings.hyper import HyperConfig, LevelSettings


class Problem(NamedTuple):
    """What is searched.

    Attributes:
      space: the grid of strategies.
      domain: of its vectors, with the trainings that some choose among.
      task: the images.
      goals: the objectives.
      total: epochs of each run.
      digest: of the images, in hexadecimal.
      notes: what is to be known of how they were read.
    """

    space: HyperSpace
    domain: Domain
    task: Task
    goals: Goals
    total: int
    digest: str
    notes: tuple[str, ...]

    @property
    def longest(self) -> int:
        """Epochs of a full training."""
        return self.domain.fidelities[-1]


def load_problem(config: HyperConfig) -> Problem:
    """Returns what a config searches.

    Raises:
      UserError: for images that are missing, damaged or smaller than three halvings allow, a part without any, levels
        that are none, a batch larger than the training images, an unknown objective, or a reference point that does
        not fit.
    """
    _check_objectives(config)
    if list(config.epochs) != sorted(set(config.epochs)) or not config.epochs:
        raise UserError(f"config.epochs={','.join(map(str, config.epochs))}; epochs rise, and there is at least one")
    space = make_space(config.levels)
    dataset = load(config.dataset, str(expanded(config.data_dir)) if config.data_dir else "", config.image_size)
    train, valid = split(dataset, config.valid_fraction, config.seed)
    if config.train_images:
        drawn = np.random.default_rng(config.seed).permutation(len(train))[: config.train_images]
        train = train[np.sort(drawn)]
    least = 2**MOST_LAYERS
    if min(dataset.images.shape[1:3]) < least:
        raise UserError(
            f"the images are {dataset.images.shape[1]} x {dataset.images.shape[2]} pixels; {MOST_LAYERS} halvings need "
            f"{least} at least: give --config.image_size"
        )
    if not len(dataset.test_labels):
        raise UserError(f"dataset {config.dataset!r} has no test part, on which the front is reported")
    if space.batches[-1] > len(train):
        raise UserError(f"config.levels.batch allows {space.batches[-1]} images; there are {len(train)} to train on")
    task = _task(dataset, train, valid)
    goals = hyper_goals(config.objectives, config.reference, space, task)
    for name in np.array(config.objectives)[goals.ideal <= goals.reference]:
        raise UserError(f"no network is better than the reference point in {name}; give another --config.reference")
    domain = replace(hyper_domain(space), fidelities=config.epochs)
    total = config.budget * config.epochs[-1]
    return Problem(space, domain, task, goals, total, dataset.digest, dataset.notes)


def make_space(levels: LevelSettings) -> HyperSpace:
    """Returns the grid of some levels; raises `UserError` where they are none."""
    return HyperSpace(
        integer_levels(levels.conv, levels.conv_levels, "levels.conv"),
        integer_levels(levels.fc, levels.fc_levels, "levels.fc"),
        real_levels(levels.rate, levels.rate_levels, "levels.rate"),
        integer_levels(levels.batch, levels.batch_levels, "levels.batch"),
    )


def _check_objectives(config: HyperConfig) -> None:
    check_goals(config.objectives, (PARAMS,))
    if config.objectives[0] != "accuracy":
        raise unknown("first objective in config.objectives", config.objectives[0], ("accuracy",))
    if config.reference and len(config.reference) != len(config.objectives):
        raise UserError(f"config.reference has {len(config.reference)} numbers for {len(config.objectives)} objectives")


def _task(dataset: Dataset, train: np.ndarray, valid: np.ndarray) -> Task:
    mean, std = channel_statistics(dataset.images[train])
    learnt, judged = (training_batches(dataset, part, mean, std) for part in (train, valid))
    return Task(learnt, judged, held_out_batches(dataset, mean, std), len(dataset.class_names))
