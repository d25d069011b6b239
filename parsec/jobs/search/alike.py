"""Found cells, random cells and a plain residual network trained alike: the same images, steps, batches and optimiser.

All cells share one compiled program, the plain network has another. What a network reached goes to retrained.jsonl as
soon as it is known, so that a run that was stopped or killed goes on there and ends in the same bytes.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from parsec.cells import Space
from parsec.cells.costs import CostTable, network_cost, table_costs
from parsec.cells.domain import Domain
from parsec.cells.genotypes import to_text
from parsec.cells.isomorphism import representatives
from parsec.cells.limits import draw_within
from parsec.cells.network import Shape
from parsec.cells.operations import BatchStatistics
from parsec.data import Dataset, channel_statistics
from parsec.data.memory import Batches, held_out_batches, steps_per_epoch, training_batches
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.jobs.search.shared_out import Opened, OpenedEvaluator, evaluate_afresh
from parsec.keys import fold
from parsec.run.lines import numbers, plain, read_lines
from parsec.run.loop import timed
from parsec.run.progress import Progress
from parsec.run.signals import graceful_stop
from parsec.run.workdir import Claim, append
from parsec.settings.retrain import RetrainTrainingSettings
from parsec.settings.table import TrainingSettings
from parsec.train.each import Parts, train_each
from parsec.train.many import Trainer, make_trainer_of
from parsec.train.recipe import Recipe
from parsec.train.residual import RESIDUAL, ResidualNetwork, Size, choose_size, count_params

RETRAINED = "retrained.jsonl"
# Draws of a random cell that may meet one that is there already, in a row.
_PATIENCE = 1000
# Uniform cells that those of about equal parameters are taken of, the most draws of a tenth as many, and what is equal.
_POOL, _TURNS, _BAND = 100_000, 100, 0.1


class Entrants(NamedTuple):
    """The networks that are trained alike.

    Attributes:
      space: of the cells.
      shape: of their networks.
      found: int32 [M, L].
      random: int32 [N, L].
      residual: shape of the plain network; its `cells` are the blocks of a stage.
    """

    space: Space
    shape: Shape
    found: np.ndarray
    random: np.ndarray
    residual: Shape


class Accuracies(NamedTuple):
    """Test accuracies in percent, NaN where a run diverged.

    Attributes:
      found: float [M, S] for S seeds.
      random: float [N, S].
      residual: float [S].
    """

    found: np.ndarray
    random: np.ndarray
    residual: np.ndarray


def plain_network(space: Space, shape: Shape, found: np.ndarray, image: tuple[int, int, int]) -> Shape:
    """Returns the shape of the plain network nearest in parameters to the geometric mean of cells int32 [M, L].

    Args:
      space: of the cells.
      shape: of their networks.
      found: the cells.
      image: height, width and channels.
    """
    params = [network_cost(space, cell, shape, image).params for cell in found]
    size = choose_size(round(math.exp(np.log(params).mean())), shape.num_classes, image[2])
    return replace(shape, channels=size.channels, cells=size.blocks)


def draw_random(space: Space, found: np.ndarray, count: int, seed: int, domain: Domain | None = None) -> np.ndarray:
    """Returns random cells, int32 [count, L].

    Args:
      space: of the cells.
      found: the found cells, int32 [M, L]; the random ones are different networks from these and from each other, where
        the space can tell.
      count: of the random cells.
      seed: of the draw.
      domain: what they are of; the whole space by default.

    Raises:
      UserError: the space has too few cells.
    """
    # A list, so that this stream is no other's of that seed.
    rng = np.random.default_rng([seed, 1])

    def draw() -> np.ndarray:
        if domain is not None:
            return draw_within(rng, domain)
        return rng.integers(0, space.sizes, len(space.sizes), dtype=np.int32)

    drawn = _different(space, found, (draw() for _ in itertools.count()), count, _PATIENCE)
    if len(drawn) < count:
        raise UserError(
            f"{space.name} has no {count} cells beside the found ones; it has {space.cardinality} architectures, "
            "some of them the same network"
        )
    return drawn


def draw_matched(table: CostTable, found: np.ndarray, count: int, seed: int, domain: Domain) -> np.ndarray:
    """Returns for each cell int32 [F, L] `count` random ones of about its parameters, int32 [F, count, L].

    Of many uniform cells of the domain they are the first with a tenth more or less parameters than the cell, and
    where these are too few, the nearest: the smallest networks there are, for one, are seldom drawn. All are different
    networks from each other and from the found ones, where the space can tell.

    Raises:
      UserError: the domain has too few cells.
    """
    rng, sizes = np.random.default_rng([seed, 2]), np.array(domain.sizes)
    pool = np.zeros((0, len(sizes)), np.int32)
    for _ in range(_TURNS):
        if len(pool) < _POOL:
            drawn = rng.integers(0, sizes, (_POOL // 10, len(sizes)), dtype=np.int32)
            pool = np.concatenate([pool, drawn[np.asarray(domain.valid(drawn))]])
    log_params = np.log(table_costs(table, pool)[:, 0])
    kept = np.asarray(found, np.int32)
    for own in np.log(table_costs(table, found)[:, 0]):
        order = np.argsort(np.maximum(np.abs(log_params - own), math.log(1 + _BAND)), kind="stable")
        drawn = _different(table.space, kept, pool[order], count, len(pool))
        if len(drawn) < count:
            raise UserError(f"{table.space.name} has too few cells for {count} random ones beside each of {len(found)}")
        kept = np.concatenate([kept, drawn])
    return kept[len(found) :].reshape(len(found), count, -1)


def whole_parts(dataset: Dataset) -> Parts:
    """Returns all training images and the test images in the devices' memory; raises `UserError` without a test."""
    if not len(dataset.test_labels):
        raise UserError(f"dataset {dataset.name!r} has no test part, by which networks could be compared")
    every = np.arange(len(dataset.labels), dtype=np.int32)
    mean, std = channel_statistics(dataset.images)
    return Parts(training_batches(dataset, every, mean, std), None, held_out_batches(dataset, mean, std))


def make_recipe(
    training: RetrainTrainingSettings | TrainingSettings, num_train: int, augmentation: str | None = None
) -> Recipe:
    """Returns the recipe of all trainings for a number of training images, augmented as said or as its own settings.

    Raises:
      UserError: a batch is larger than the number of images.
    """
    steps = training.steps or max(round(training.epochs * steps_per_epoch(num_train, training.batch_size)), 1)
    return Recipe(
        steps,
        training.batch_size,
        training.learning_rate,
        training.momentum,
        training.weight_decay,
        augmentation or training.augmentation,
        training.eval_batch_size,
    )


def alike_evaluator(trainer: Trainer, test: Batches | None, steps: int, seed: int, seeds: int) -> Evaluator:
    """Returns the evaluator that trains a network once for each seed: its scores are S losses, then S test accuracies.

    A seed's weights and batches are drawn from the same key for every network, so that they differ by themselves alone.

    Args:
      trainer: of the networks.
      test: images.
      steps: of each training.
      seed: of the training runs.
      seeds: S.
    """
    keys = jax.random.split(fold(jax.random.key(seed), "trained alike"), seeds)

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        del evaluated
        found = train_each(trainer, architectures, keys, steps, None, test, pause=pause)
        return np.concatenate([found.loss, found.test], 1)

    names = tuple(f"{name} {number}" for name in ("loss", "test") for number in range(seeds))
    return Evaluator(names, evaluate, together=trainer.together)


def plain_evaluator(entrants: Entrants, recipe: Recipe, parts: Parts, seed: int, seeds: int) -> Evaluator:
    """Returns the `alike_evaluator` of the plain network; its architectures are not read."""
    network = ResidualNetwork(entrants.residual, BatchStatistics)
    trainer = make_trainer_of(network, entrants.shape.dtype, recipe, parts.train)
    return alike_evaluator(trainer, parts.test, recipe.steps, seed, seeds)


def train_alike(
    run: Claim, entrants: Entrants, opened: Opened, residual: Callable[[], Evaluator], seeds: int
) -> Accuracies:
    """Returns the test accuracies of all networks, going on where retrained.jsonl ends.

    Args:
      run: the claimed run directory.
      entrants: the networks.
      opened: an `alike_evaluator` of the cells, and whose it is; opened where there are cells left to train.
      residual: returns the `plain_evaluator`.
      seeds: S, of both.

    Raises:
      UserError: the journal is damaged or another run's, or a batch does not fit the images.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; what was trained is in the journal.
    """
    space, path = entrants.space, run.path / RETRAINED
    cells = np.concatenate([entrants.found, entrants.random])
    names = [to_text(space, cell) for cell in cells]
    known = dict(read_lines(path, partial(_parse, seeds), f"{seeds} accuracies of a network"))
    pending = [at for at, name in enumerate(names) if name not in known]
    total = len(names) + 1

    with (
        graceful_stop(at_stake=False) as stop,
        timed(run, "retraining_seconds"),
        Progress(total, start=len(known), label="networks trained from scratch") as progress,
    ):

        def pause() -> None:
            stop.heed(len(known))

        def train_some(opened: OpenedEvaluator, trained: list[str], architectures: np.ndarray) -> None:
            stop.at_stake = True
            scores = evaluate_afresh(*opened, architectures, pause, progress.note)
            lines, losses, tests = "", scores[:, :seeds], scores[:, seeds:]
            for name, loss, test in zip(trained, losses, tests, strict=True):
                entry = {"network": name, "loss": plain(loss), "test": plain(test)}
                lines += json.dumps(entry) + "\n"
                # As a run that goes on reads it.
                known[name] = numbers(entry["test"])
            append(path, lines)
            finite = tests[np.isfinite(tests)]
            progress.update(len(known), {"accuracy": float(finite.mean()) if finite.size else math.nan})
            stop.at_stake = False
            pause()

        if pending:
            progress.note("one compiled program trains every cell; where there is none yet it takes a minute or so")
            with opened() as (evaluator, workers):
                for first in range(0, len(pending), evaluator.together):
                    places = pending[first : first + evaluator.together]
                    train_some((evaluator, workers), [names[at] for at in places], cells[places])
        if RESIDUAL not in known:
            progress.note("compiling the plain residual network")
            train_some((residual(), None), [RESIDUAL], np.zeros((1, 1), np.int32))
    count = len(entrants.found)
    found, random = (np.stack([known[name] for name in some]) for some in (names[:count], names[count:]))
    return Accuracies(found, random, known[RESIDUAL])


def residual_params(entrants: Entrants, image: tuple[int, int, int]) -> int:
    """Returns the parameters of the plain network on images of that height, width and channels."""
    shape = entrants.residual
    return count_params(Size(shape.cells, shape.channels), shape.num_classes, image[2])


def plan_of(entrants: Entrants, recipe: Recipe, seeds: int) -> str:
    """Returns in words what is trained, and for how long."""
    cells = f"{len(entrants.found)} found and {len(entrants.random)} random cells and a plain residual network"
    return f"{cells}, {seeds} seeds, {recipe.steps} steps each, batch {recipe.batch_size}"


def _different(space: Space, known: np.ndarray, cells: Iterable[np.ndarray], count: int, patience: int) -> np.ndarray:
    """Returns the first `count` cells that are networks of their own, beside each other and the known ones [M, L].

    They are fewer where the cells end, or more than `patience` in a row are none.
    """
    kept, texts, misses = np.asarray(known, np.int32), {to_text(space, cell) for cell in known}, 0
    wanted = len(kept) + count
    for cell in cells:
        if len(kept) == wanted or misses > patience:
            break
        with_it, text = np.concatenate([kept, np.asarray(cell, np.int32)[None]]), to_text(space, cell)
        new = text not in texts and representatives(space, with_it)[-1] == len(kept)
        texts.add(text)
        kept, misses = (with_it, 0) if new else (kept, misses + 1)
    return kept[len(known) :]


def _parse(seeds: int, line: Any) -> tuple[str, np.ndarray]:
    name, test = line["network"], numbers(line["test"])
    if not isinstance(name, str) or len(test) != seeds:
        raise ValueError
    return name, test
