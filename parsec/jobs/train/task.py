"""What a training is: the parts of its images, in memory or streamed, the network and the recipe, from a config."""

from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from parsec.cells.network import STEM_STRIDES
from parsec.data import Dataset, channel_statistics, load, split
from parsec.data.examples import Examples, StreamedDataset, is_streamed, open_stream, split_rows
from parsec.data.images import CENTRE
from parsec.data.memory import Batches, held_out_batches, steps_per_epoch, training_batches
from parsec.data.stream import MEAN, STD, Part, StreamedPart
from parsec.devices import batch_mesh, place, whole
from parsec.errors import UserError
from parsec.jobs.train.cell_source import CellSource, make_blueprint
from parsec.settings.search import STREAMED
from parsec.settings.train import TrainConfig, TrainDataSettings
from parsec.train.derived import Blueprint, dropped_paths
from parsec.train.footprint import check_memory, training_needs
from parsec.train.model_file import Metadata
from parsec.train.recipe import Recipe


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
      mesh: the devices that a batch is divided among.
    """

    train: Part
    valid: Part | None
    test: Part | None
    blueprint: Blueprint
    recipe: Recipe
    metadata: Metadata
    digests: dict[str, str]
    notes: tuple[str, ...]
    mesh: Mesh


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
    for name in STREAMED:
        given = getattr(config.data, name)
        if given != getattr(TrainDataSettings(), name):
            raise UserError(
                f"config.data.{name}={given} is for streamed datasets, which {dataset.name!r} is not; leave it out"
            )
    mesh = make_mesh(config)
    train, valid = part_rows(config, dataset)
    mean, std = channel_statistics(dataset.images[train])
    height, width, channels = dataset.images.shape[1:]
    metadata, recipe = _network_and_recipe(
        config, cell, like, (height, width, channels), dataset.class_names, len(train), mean, std
    )
    parts: list[Batches | None] = [
        training_batches(dataset, train, mean, std),
        training_batches(dataset, valid, mean, std) if len(valid) else None,
        held_out_batches(dataset, mean, std) if len(dataset.test_labels) else None,
    ]
    to_learn, to_choose, to_test = place(parts, whole(mesh))
    return Task(
        to_learn,
        to_choose,
        to_test,
        metadata.blueprint,
        recipe,
        metadata,
        {"images": dataset.digest},
        dataset.notes,
        mesh,
    )


def make_streamed_task(config: TrainConfig, dataset: StreamedDataset, cell: CellSource, like: CellSource) -> Task:
    """Returns how the images are streamed, the network and the recipe; see `make_task`."""
    data, mesh = config.data, make_mesh(config)
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
        metadata._replace(centre=CENTRE),
        {"images": dataset.digest},
        (),
        mesh,
    )


def check_task(task: Task) -> int:
    """Returns the least bytes that a training takes; raises `UserError` where there are not so many."""
    height, width, channels = task.metadata.image
    needs = training_needs(
        task.recipe,
        task.blueprint,
        (height, width, channels),
        validates=task.valid is not None,
        devices=task.mesh.size,
    )
    check_memory(needs)
    return sum(needs.values())


def part_rows(config: TrainConfig, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of a dataset's training images to learn from and to validate on, int32."""
    if config.data.valid_fraction == 0:
        return np.arange(len(dataset.labels), dtype=np.int32), np.zeros(0, np.int32)
    return split(dataset, config.data.valid_fraction, config.seed)


def make_mesh(config: TrainConfig) -> Mesh:
    """Returns the devices that a config asks for; raises `UserError`."""
    return batch_mesh(config.devices, {"config.data.batch_size": config.data.batch_size})


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
    per_epoch = steps_per_epoch(num_examples, config.data.batch_size, "config.data.batch_size")
    blueprint = make_blueprint(cell, like, config.network, len(class_names), image)
    recipe = make_recipe(config, config.steps or max(round(config.epochs * per_epoch), 1))
    _check_together(config, blueprint, image[:2])
    means, stds = (tuple(map(float, values)) for values in (mean, std))
    return Metadata(blueprint, class_names, image, means, stds), recipe


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
    factor = STEM_STRIDES.get(config.network.stem, config.network.stem_stride) * 4
    if config.regularisation.auxiliary_weight and min(size) <= factor:
        raise UserError(
            f"images of {size[0]} x {size[1]} pixels leave the auxiliary head fewer than 2 x 2; set "
            f"--config.regularisation.auxiliary_weight=0, or --config.data.image_size above {factor}"
        )
