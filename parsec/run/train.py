"""Training one network from scratch: from a cell to weights in a run directory, tested once.

The images are parted into those to learn from, those to choose the best weights by, if any, and the test part. The step
is `parsec.train.training`'s; each epoch ends with a validation. The last thing is the test: of the best weights by
validation, or of the last where nothing was held out. Files: model.json with model.safetensors and last.safetensors,
which `parsec.train.model_file` describes, the exports of `parsec.run.export`, and result.json. Images that are too many
for memory are streamed (`parsec.data.stream`); nothing else differs then.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from parsec.cells.scan import stack, unstack
from parsec.config import to_config_dict
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.examples import Examples, StreamedDataset, is_streamed, open_stream, split_rows
from parsec.data.memory import Batches, held_out_batches, steps_per_epoch, training_batches
from parsec.data.stream import MEAN, STD, StreamedPart, feeding
from parsec.errors import UserError
from parsec.footprint import readable
from parsec.keys import fold
from parsec.run.cell_source import CellSource, chosen_cell, make_blueprint
from parsec.run.export import export_model
from parsec.run.loop import run_steps
from parsec.run.progress import announce
from parsec.run.train_settings import TrainConfig
from parsec.run.unreadable import Unreadable
from parsec.run.workdir import RESULT, Claim, claim, finished_result, locate, read_json, reporting, write_json_atomic
from parsec.train.derived import (
    Blueprint,
    Variables,
    dropped_paths,
    init_variables,
    make_network,
    network_costs,
    variable_shapes,
)
from parsec.train.footprint import check_memory, training_needs
from parsec.train.model_file import WEIGHTS, Metadata, load_model, save_model
from parsec.train.recipe import Recipe
from parsec.train.training import Evaluate, TrainState, evaluated, init_state, judge, make_evaluate, make_step

# One part of the images, in memory or streamed.
Part = Batches | StreamedPart


class Task(NamedTuple):
    """A training: the images' parts, the network and the recipe.

    Attributes:
      train: images to learn from.
      valid: images to choose the best weights by, or None.
      test: images of the test, or None.
      blueprint: of the network.
      recipe: of training.
      metadata: what the files will say.
      digests: of the images, by which a resumed run knows them.
      notes: what the dataset's user should know.
    """

    train: Part
    valid: Part | None
    test: Part | None
    blueprint: Blueprint
    recipe: Recipe
    metadata: Metadata
    digests: dict[str, str]
    notes: tuple[str, ...]


def run_train(config: TrainConfig, workdir: Path) -> dict[str, Any]:
    """Trains a network, goes on with a training that was cut short, or reports a finished one.

    Args:
      config: see `TrainConfig`.
      workdir: the run directory.

    Returns:
      What result.json holds.

    Raises:
      UserError: for an unusable cell, unusable data, a network that is too large, or a directory of another run.
      StoppedError: when SIGTERM or Ctrl-C asked for a stop; the state is saved.
    """
    finished = finished_result(workdir, config)
    if finished is not None:
        with reporting(workdir):
            show_result(finished, workdir)
        return finished
    task = load_task(config, *chosen_cell(config.from_run, config.genotype, locate(workdir)))
    height, width, channels = task.metadata.image
    image, validates = (height, width, channels), task.valid is not None
    needs = training_needs(task.recipe, task.blueprint, image, validates=validates)
    check_memory(needs)
    with claim(workdir, config, task.digests) as run:
        announce(f"training on {config.dataset}", _plan(config, task, sum(needs.values()), run.path))
        for note in (*run.notes, *task.notes):
            print(note)
        unreadable = None
        if isinstance(task.train, StreamedPart):
            unreadable = Unreadable(run.path, config.data.unreadable_limit)
            task = _reporting(task, unreadable)
        print("compiling the network, a minute or so on a CPU", flush=True)
        evaluate = make_evaluate(task.blueprint, config.data.eval_batch_size)
        state = train(config, task, evaluate, run)
        result = _conclude(config, task, evaluate, state, run.path, unreadable)
        show_result(result, run.path)
        return result


def load_task(config: TrainConfig, cell: CellSource, like: CellSource) -> Task:
    """Returns the task of a config, whose dataset is read, or opened to be streamed; see `make_task`."""
    if is_streamed(config.dataset):
        streamed = open_stream(config.dataset, config.data_dir, config.data.image_size)
        return make_streamed_task(config, streamed, cell, like)
    return make_task(config, load(config.dataset, config.data_dir, config.data.image_size), cell, like)


def make_task(config: TrainConfig, dataset: Dataset, cell: CellSource, like: CellSource) -> Task:
    """Returns the images in the device's memory, the network and the recipe; raises `UserError`.

    Args:
      config: of the training.
      dataset: the images, those that the config names.
      cell: what is trained.
      like: whose size the plain network is to have.
    """
    if config.data.crop_area != 1:
        raise UserError(
            f"config.data.crop_area={config.data.crop_area} is for streamed datasets, which {dataset.name!r} is not; "
            "leave it out"
        )
    train, valid = part_rows(config, dataset)
    mean, std = channel_statistics(dataset.images[train])
    height, width, channels = dataset.images.shape[1:]
    metadata, recipe = _network_and_recipe(
        config, cell, like, (height, width, channels), dataset.class_names, len(train), mean, std
    )
    return Task(
        training_batches(dataset, train, mean, std),
        training_batches(dataset, valid, mean, std) if len(valid) else None,
        held_out_batches(dataset, mean, std) if len(dataset.test_labels) else None,
        metadata.blueprint,
        recipe,
        metadata,
        {"images": dataset.digest},
        dataset.notes,
    )


def make_streamed_task(config: TrainConfig, dataset: StreamedDataset, cell: CellSource, like: CellSource) -> Task:
    """Returns how the images are streamed, the network and the recipe; see `make_task`."""
    data = config.data
    train, valid = split_rows(dataset, data.valid_fraction, config.seed)

    def part(examples: Examples, rows: np.ndarray) -> StreamedPart:
        return StreamedPart(
            examples,
            rows,
            data.image_size,
            data.crop_area,
            data.workers,
            config.seed,
            most_unreadable=data.unreadable_limit,
        )

    image = (data.image_size, data.image_size, 3)
    metadata, recipe = _network_and_recipe(config, cell, like, image, dataset.class_names, len(train), MEAN, STD)
    return Task(
        part(dataset.examples, train),
        part(dataset.examples, valid) if len(valid) else None,
        part(dataset.test_examples, dataset.test_rows) if len(dataset.test_rows) else None,
        metadata.blueprint,
        recipe,
        metadata,
        {"images": dataset.digest},
        (),
    )


def part_rows(config: TrainConfig, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of a dataset's training images to learn from and to validate on, int32."""
    if config.data.valid_fraction == 0:
        return np.arange(len(dataset.labels), dtype=np.int32), np.zeros(0, np.int32)
    return split(dataset, config.data.valid_fraction, config.seed)


def make_recipe(config: TrainConfig, steps: int) -> Recipe:
    """Returns the recipe of a training of so many steps."""
    data, optimizer, regularisation = config.data, config.optimizer, config.regularisation
    return Recipe(
        steps=steps,
        batch_size=data.batch_size,
        learning_rate=optimizer.learning_rate,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        augmentation=data.augmentation,
        eval_batch_size=data.eval_batch_size,
        nesterov=optimizer.nesterov,
        final_learning_rate=optimizer.final_learning_rate,
        clip=optimizer.clip,
        cutout=data.cutout,
        label_smoothing=regularisation.label_smoothing,
        drop_path=regularisation.drop_path,
        auxiliary_weight=regularisation.auxiliary_weight,
        average=regularisation.average,
    )


def train(config: TrainConfig, task: Task, evaluate: Evaluate, run: Claim) -> TrainState:
    """Returns the state after the last step, going on from the run directory's last checkpoint."""
    recipe, valid = task.recipe, task.valid
    per_epoch = steps_per_epoch(task.train.num_examples, recipe.batch_size)
    key = jax.random.key(config.seed)
    variables = start_variables(task.blueprint, recipe, task.metadata, fold(key, "weights"), config.weights)
    advance = make_step(recipe, task.blueprint, key)
    waited = 0.0
    with feeding(task.train, recipe.batch_size) as feed:

        def step(state: TrainState, index: int) -> tuple[TrainState, dict[str, Any]]:
            nonlocal waited
            began = time.monotonic()
            fed = feed(index)
            waited += time.monotonic() - began
            state, metrics = advance(state, index, fed)
            done = index + 1
            if valid is None:
                return state, metrics
            if done % per_epoch == 0 or done == recipe.steps:
                state = judge(state, evaluate, valid)
            if done >= min(per_epoch, recipe.steps):
                # Copies: the next step takes the state's own arrays.
                metrics["valid_accuracy"] = jnp.copy(state.valid_accuracy)
                metrics["best_accuracy"] = jnp.copy(state.best_accuracy)
            return state, metrics

        return run_steps(
            run,
            init_state(recipe, variables, validates=valid is not None),
            step,
            recipe.steps,
            label="training",
            show=("loss", "accuracy") if valid is None else (),
            metrics_every=config.metrics_every,
            save_minutes=config.save_minutes,
            fatal=_diverged,
            waited=(lambda: waited) if isinstance(task.train, StreamedPart) else None,
        )


def start_variables(
    blueprint: Blueprint, recipe: Recipe, metadata: Metadata, key: jax.Array, weights: str
) -> Variables:
    """Returns the variables that a training starts from, of the scanned form: fresh, or those of another training.

    Raises:
      UserError: the other training is unfinished, or of another network.
    """
    network = make_network(blueprint, train=True, auxiliary=recipe.auxiliary_weight > 0, scan=True)
    fresh = init_variables(network, key, metadata.image)
    if not weights:
        return fresh
    model = load_model(Path(weights).expanduser())
    theirs = model.metadata.blueprint
    where = f"config.weights={weights}"
    if theirs.shape.num_classes != blueprint.shape.num_classes:
        raise UserError(
            f"{where}: its weights are of {theirs.shape.num_classes} classes, these images of "
            f"{blueprint.shape.num_classes}; train its cell anew with --config.from_run={weights}"
        )
    if model.metadata.image[2] != metadata.image[2]:
        raise UserError(f"{where}: its images have {model.metadata.image[2]} channels, these {metadata.image[2]}")
    # What activations are stored in is no matter of the weights.
    if theirs._replace(shape=blueprint.shape) != blueprint or _sizes(theirs) != _sizes(blueprint):
        raise UserError(f"{where}: its network is another: {_described(theirs)}; this one is {_described(blueprint)}")
    plain = unstack(fresh)
    given = {group: {**plain[group], **model.variables[group]} for group in plain}
    return jax.tree.map(jnp.asarray, stack(given, variable_shapes(network, metadata.image)))


def show_result(result: dict[str, Any], path: Path) -> None:
    """Prints a finished training: the network, its accuracies, and where its weights lie."""
    rows: dict[str, Any] = {
        "network": result["genotype"],
        "parameters": f"{result['params']:,}",
        "multiply-adds": f"{result['flops']:,}",
    }
    if result["valid_accuracy"] is not None:
        rows["validation accuracy"] = (
            f"{result['valid_accuracy']:.2f} % at best, {result['last_valid_accuracy']:.2f} % after the last epoch"
        )
    if result["test_accuracy"] is not None:
        rows["test accuracy"] = f"{result['test_accuracy']:.2f} %, of the {result['tested']} weights"
    if result.get("unreadable", {}).get("count"):
        rows["unreadable files"] = f"{result['unreadable']['count']} skipped: {result['unreadable']['files']}"
    rows["weights"] = path / WEIGHTS
    announce(f"trained on {result['dataset']}", rows)


def _network_and_recipe(
    config: TrainConfig,
    cell: CellSource,
    like: CellSource,
    image: tuple[int, int, int],
    class_names: tuple[str, ...],
    num_examples: int,
    mean: np.ndarray,
    std: np.ndarray,
) -> tuple[Metadata, Recipe]:
    """Returns what is trained and how, for images [H, W, C], so many to learn from; raises `UserError`."""
    per_epoch = steps_per_epoch(num_examples, config.data.batch_size)
    blueprint = make_blueprint(cell, like, config.network, len(class_names), image)
    recipe = make_recipe(config, config.steps or max(round(config.epochs * per_epoch), 1))
    _check_together(config, blueprint, image[:2])
    means, stds = (tuple(map(float, values)) for values in (mean, std))
    return Metadata(blueprint, class_names, image, means, stds), recipe


def _reporting(task: Task, unreadable: Unreadable) -> Task:
    """Returns a streamed task whose parts tell what they cannot read."""
    parts = (task.train, task.valid, task.test)
    told = [part._replace(report=unreadable.add) if isinstance(part, StreamedPart) else part for part in parts]
    return task._replace(train=told[0], valid=told[1], test=told[2])


def _conclude(
    config: TrainConfig, task: Task, evaluate: Evaluate, state: TrainState, path: Path, unreadable: Unreadable | None
) -> dict[str, Any]:
    """Tests, writes weights and result.json, and returns what it holds; accuracies in percent, no clock times."""
    last = evaluated(state)
    best = last if state.best is None else state.best
    cost = network_costs(task.blueprint, task.metadata.image)
    save_model(path, task.metadata, best, last)
    export_model(path)
    shape = task.blueprint.shape
    settings = to_config_dict(config).to_dict()
    result: dict[str, Any] = {
        "space": task.blueprint.space,
        "genotype": task.blueprint.genotype,
        "dataset": config.dataset,
        "num_classes": shape.num_classes,
        "image": list(task.metadata.image),
        "seed": config.seed,
        "shape": {"channels": shape.channels, "cells": shape.cells, "stem": shape.stem, "dtype": shape.dtype},
        "params": cost.params,
        "flops": cost.flops,
        "steps": task.recipe.steps,
        "epochs": task.recipe.steps / steps_per_epoch(task.train.num_examples, task.recipe.batch_size),
        "valid_accuracy": None if task.valid is None else float(state.best_accuracy),
        "last_valid_accuracy": None if task.valid is None else float(state.valid_accuracy),
        "test_accuracy": None if task.test is None else float(evaluate(best, task.test)),
        "tested": "last" if task.valid is None else "best",
        "config": settings,
    }
    if unreadable is not None:
        # After the test, which may have met some more.
        result["unreadable"] = unreadable.told()
    write_json_atomic(path / RESULT, result)
    return read_json(path / RESULT)


def _check_together(config: TrainConfig, blueprint: Blueprint, size: tuple[int, int]) -> None:
    """Raises `UserError` for settings that are allowed one by one and mean nothing together."""
    if config.network.stem == "imagenet" and config.network.stem_stride != 1:
        raise UserError("config.network.stem_stride means nothing to the stem of imagenet; leave one of them out")
    if config.optimizer.final_learning_rate > config.optimizer.learning_rate:
        raise UserError(
            f"config.optimizer.final_learning_rate={config.optimizer.final_learning_rate} is above the first, "
            f"{config.optimizer.learning_rate}"
        )
    if config.regularisation.drop_path and not dropped_paths(blueprint)[0]:
        raise UserError(f"the network of {blueprint.space} drops no paths; set --config.regularisation.drop_path=0")
    factor = (8 if config.network.stem == "imagenet" else config.network.stem_stride) * 4
    if config.regularisation.auxiliary_weight and min(size) <= factor:
        raise UserError(
            f"images of {size[0]} x {size[1]} pixels leave the auxiliary head fewer than 2 x 2; set "
            f"--config.regularisation.auxiliary_weight=0, or --config.data.image_size above {factor}"
        )


def _plan(config: TrainConfig, task: Task, needed: int, path: Path) -> dict[str, Any]:
    train, valid, test = (0 if part is None else part.num_examples for part in (task.train, task.valid, task.test))
    recipe = task.recipe
    per_epoch = steps_per_epoch(train, recipe.batch_size)
    return {
        "network": task.blueprint.genotype,
        "size": _described(task.blueprint),
        "images": f"{train} to learn from, {valid} for validation, {test} for the test, {task.metadata.image} each",
        "steps": f"{recipe.steps}, {recipe.steps / per_epoch:.4g} epochs; batch {recipe.batch_size}",
        "memory": f"at least {readable(needed)}",
        "device": f"{jax.devices()[0].device_kind}, jax {jax.__version__}",
        "seed": config.seed,
        "run directory": path,
    }


def _sizes(blueprint: Blueprint) -> tuple[Any, ...]:
    shape = blueprint.shape
    return shape.channels, shape.cells, shape.stem, shape.stem_stride


def _described(blueprint: Blueprint) -> str:
    shape = blueprint.shape
    cells = "blocks in each stage" if blueprint.space == "resnet" else "cells"
    return f"{blueprint.space}, {shape.cells} {cells}, {shape.channels} channels, {shape.stem} stem, {shape.dtype}"


def _diverged(metrics: Any) -> str | None:
    if np.isfinite(np.asarray(metrics["loss"])):
        return None
    return "the loss is not finite; try a lower --config.optimizer.learning_rate"
