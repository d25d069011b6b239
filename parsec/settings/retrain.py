"""The options of training found cells again beside random ones and a plain network, all alike and from scratch."""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.settings.search import AUGMENTATION_NAMES, LEAST_CELLS, LEAST_SEEDS


@dataclass(frozen=True)
class RetrainNetworkSettings:
    """The networks' size."""

    channels: int = option(0, "channels of the first cells; 0 for those of the search", minimum=0)
    cells: int = option(
        0,
        "cells in the network (darts) or in each of its three stages (nasbench201); 0 for those of the search",
        minimum=0,
    )
    stem_stride: int = option(
        0, "2 halves the resolution before the first cell; 0 for that of the search", minimum=0, maximum=2
    )
    dtype: str = option("searched", "of activations; weights stay float32", choices=("searched", "float32", "bfloat16"))


@dataclass(frozen=True)
class RetrainTrainingSettings:
    """How every network is trained and evaluated."""

    epochs: float = option(20.0, "passes over all training images", minimum=0)
    steps: int = option(0, "training steps; above 0 this replaces epochs", minimum=0)
    batch_size: int = option(64, "images in a training batch", minimum=2)
    learning_rate: float = option(0.1, "at the first step; falls to zero as a cosine", minimum=0)
    momentum: float = option(0.9, "of the gradient, Nesterov's", minimum=0, maximum=1)
    weight_decay: float = option(5e-4, "of all weights", minimum=0)
    augmentation: str = option("searched", "of training images", choices=("searched", *AUGMENTATION_NAMES))
    eval_batch_size: int = option(1000, "most images that an evaluation normalises by common statistics", minimum=2)


@dataclass(frozen=True)
class RetrainConfig:
    """Found cells against random cells and a plain residual network."""

    JOB: ClassVar[str] = "parsec.jobs.retrain.job:run_retrain"
    WRITES: ClassVar[tuple[str, ...]] = ("retrained.jsonl", "table.md", "accuracies.png")

    from_runs: tuple[str, ...] = option((), "run directories of finished searches, whose cells are trained")
    data_dir: str = option("", "folder of the dataset's files; empty for that of the search", affects_results=False)
    random: int = option(
        19, "random cells of the same space, drawn by the seed; 19 are what a test of ranks needs", minimum=LEAST_CELLS
    )
    constraints: tuple[str, ...] = option(
        (),
        "what the network of every cell costs at most at this size, params<NUMBER, flops<NUMBER or latency_ms<NUMBER "
        "(or <=)",
    )
    latency: str = option(
        "",
        "run directory of --config=latency in the same space, whose model predicts latency_ms for constraints",
        affects_results=False,
    )
    seed: int = option(0, "of the random cells and of the training runs", minimum=0, maximum=2**32 - 1)
    seeds: int = option(3, "training runs of each network", minimum=LEAST_SEEDS)
    network: RetrainNetworkSettings = option(RetrainNetworkSettings(), "")
    training: RetrainTrainingSettings = option(RetrainTrainingSettings(), "")
