"""The options of training one network from scratch, each one line of documentation and a default.

Defaults are DARTS's constants for CIFAR-10 (Liu, Simonyan, Yang 2019, arXiv 1806.09055), which the field trains its
found cells by: 20 cells of 36 channels, 600 epochs.
"""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.settings.search import AUGMENTATION_NAMES


@dataclass(frozen=True)
class TrainDataSettings:
    """Which images, and how they are parted and drawn."""

    batch_size: int = option(96, "images in a training batch", minimum=2)
    eval_batch_size: int = option(500, "images looked at together in an evaluation", minimum=1, affects_results=False)
    valid_fraction: float = option(
        0.0,
        "share of the training images held out, by which the best weights are chosen; 0 trains on all and keeps the "
        "last",
        minimum=0,
        maximum=0.99,
    )
    image_size: int = option(0, "side in pixels that images are resized to; 0 leaves them", minimum=0)
    augmentation: str = option("crop_flip", "of training images", choices=AUGMENTATION_NAMES)
    cutout: int = option(16, "side in pixels of a square hidden in each training image; 0 for none", minimum=0)
    crop_area: float = option(
        1.0,
        "of a streamed dataset, least share of an image's area that a random crop keeps in training; 1 cuts out the "
        "centre",
        minimum=0.01,
        maximum=1,
    )
    workers: int = option(
        0,
        "of a streamed dataset, processes that decode images; 0 decodes in threads of the one that trains",
        minimum=0,
        maximum=1000,
        affects_results=False,
    )
    unreadable_limit: int = option(
        100,
        "of a streamed dataset, images that may be unreadable; they are skipped and named, and more end the run",
        minimum=0,
        affects_results=False,
    )


@dataclass(frozen=True)
class TrainNetworkSettings:
    """The network's size."""

    channels: int = option(36, "channels of the first cells; doubled at each reduction", minimum=1, maximum=100_000)
    cells: int = option(
        20, "cells in the network (darts) or in each of its three stages (nasbench201)", minimum=1, maximum=1000
    )
    stem: str = option(
        "cifar", "one convolution, or the three of stride 2 that ImageNet has", choices=("cifar", "imagenet")
    )
    stem_stride: int = option(1, "2 halves the resolution before the first cell", minimum=1, maximum=2)
    dtype: str = option("float32", "of activations; weights stay float32", choices=("float32", "bfloat16"))
    params: int = option(
        0,
        "parameters that the plain network of genotype resnet is to have; 0 for as many as the cell of from_run, or "
        "else DARTS_V2, has at these channels and cells",
        minimum=0,
    )


@dataclass(frozen=True)
class TrainOptimizerSettings:
    """Stochastic gradient descent."""

    learning_rate: float = option(0.025, "at the first step; falls as a cosine", minimum=0)
    final_learning_rate: float = option(0.0, "after the last step", minimum=0)
    momentum: float = option(0.9, "of the gradient", minimum=0, maximum=1)
    nesterov: bool = option(False, "whether momentum looks ahead")
    weight_decay: float = option(3e-4, "of all weights", minimum=0)
    clip: float = option(5.0, "largest norm of the gradient; 0 for none", minimum=0)


@dataclass(frozen=True)
class RegularisationSettings:
    """What keeps a network from learning its images by heart."""

    auxiliary_weight: float = option(
        0.4, "of the loss of a second head two thirds into the network; 0 for none", minimum=0
    )
    drop_path: float = option(0.2, "share of the paths dropped at the end; grows from 0", minimum=0, maximum=0.99)
    label_smoothing: float = option(0.0, "share of a label spread over all classes", minimum=0, maximum=0.99)
    average: float = option(
        0.0, "decay of the moving average of the weights that is used in their place; 0 for none", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class TrainConfig:
    """Training one network from scratch."""

    JOB: ClassVar[str] = "parsec.jobs.train.job:run_train"
    WRITES: ClassVar[tuple[str, ...]] = (
        "model.json",
        "model.safetensors",
        "last.safetensors",
        "export.json",
        "model.stablehlo",
        "load_and_run.py",
        "model.onnx",
        "torch_network.py",
        "model.pt",
        "unreadable.json",
    )

    dataset: str = option(
        "cifar10",
        "digits, digits_on_photos, cifar10, cifar100, fashion_mnist, images or tfds:NAME; streamed and never held in "
        "memory: imagenet, stream:images or stream:tfds:NAME",
    )
    data_dir: str = option("", "folder of the dataset's files, where it needs them", affects_results=False)
    from_run: str = option("", "run directory of a finished search, whose cell is trained")
    genotype: str = option(
        "",
        "the cell instead: a published one by name, such as DARTS_V2, its text as DARTS or NAS-Bench-201 write it, or "
        "JSON; resnet is the plain residual network",
    )
    weights: str = option(
        "", "run directory of a finished training of the same network, whose weights this starts from"
    )
    seed: int = option(0, "of everything random", minimum=0, maximum=2**32 - 1)
    epochs: float = option(600.0, "passes over the training images", minimum=0)
    steps: int = option(0, "training steps; above 0 this replaces epochs", minimum=0)
    save_minutes: float = option(5.0, "between checkpoints", minimum=0, affects_results=False)
    metrics_every: int = option(50, "steps between lines of metrics.jsonl", minimum=1, affects_results=False)
    devices: int = option(
        1,
        "that the images of each batch are divided among; 0 for as many as there are",
        minimum=0,
        affects_results=False,
    )
    data: TrainDataSettings = option(TrainDataSettings(), "")
    network: TrainNetworkSettings = option(TrainNetworkSettings(), "")
    optimizer: TrainOptimizerSettings = option(TrainOptimizerSettings(), "")
    regularisation: RegularisationSettings = option(RegularisationSettings(), "")
