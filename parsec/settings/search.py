"""The options of a search on a supernet, each one line of documentation and a default.

`configs/*.py` set them for a dataset; `--config.group.option=value` sets one for a run. Defaults are PARSEC's published
constants where they are known (Casale, Gordon, Fusi 2019, arXiv 1902.05116) and DARTS's otherwise (arXiv 1806.09055).
"""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.evaluate.registry import EVALUATORS
from parsec.joint.registry import JOINTS
from parsec.joint.registry import Entry as JointEntry
from parsec.joint.settings import LikelihoodSettings, PriorSettings, SamplerSettings
from parsec.search.registry import STRATEGIES, in_charge

__all__ = [
    "DataSettings",
    "DeriveSettings",
    "LikelihoodSettings",
    "NetworkSettings",
    "OptimizerSettings",
    "PriorSettings",
    "SamplerSettings",
    "SearchConfig",
    "StrategySettings",
    "SupernetSettings",
    "VerifySettings",
]

# The keys of `parsec.data.augment.AUGMENTATIONS`, written out: reading options must not wait for JAX.
AUGMENTATION_NAMES = ("none", "flip", "shift", "crop_flip")
# Of the settings of data, a search's and a training's, those that mean something for a streamed dataset alone.
STREAMED = ("crop_area", "workers", "unreadable_limit")
# Those of `parsec.report.verdict`, written out as well.
LEAST_CELLS, LEAST_SEEDS = 5, 3


@dataclass(frozen=True)
class DataSettings:
    """Which images, and how they are split and drawn."""

    batch_size: int = option(64, "images in a training batch", minimum=2)
    valid_batch_size: int = option(64, "images in a validation batch, which the prior learns from", minimum=2)
    valid_fraction: float = option(0.5, "share of the training images kept for the prior", minimum=0.01, maximum=0.99)
    image_size: int = option(0, "side in pixels that images are resized to; 0 leaves them", minimum=0)
    augmentation: str = option("none", "of training images", choices=AUGMENTATION_NAMES)
    crop_area: float = option(
        1.0,
        "of a streamed dataset, least share of an image's area that a random crop keeps in a training batch; 1 cuts "
        "out the centre, as in validation batches",
        minimum=0.01,
        maximum=1,
    )
    workers: int = option(
        0,
        "of a streamed dataset, processes that decode training batches, and as many for validation batches; 0 decodes "
        "in threads of the one that searches",
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
class NetworkSettings:
    """The supernet's size."""

    channels: int = option(16, "channels of the first cells; doubled at each reduction", minimum=1)
    cells: int = option(
        8, "cells in the network (darts) or in each of its three stages (nasbench201)", minimum=1, maximum=1000
    )
    stem_stride: int = option(1, "2 halves the resolution before the first cell", minimum=1, maximum=2)
    dtype: str = option("float32", "of activations; weights stay float32", choices=("float32", "bfloat16"))
    stem: str = option(
        "cifar", "one convolution, or the three of stride 2 that ImageNet has", choices=("cifar", "imagenet")
    )


@dataclass(frozen=True)
class SupernetSettings:
    """How children share weights."""

    auxiliary_skip: float = option(
        0.0,
        "factor of its input that is added to each operation's result but that of none; the found cell is without",
        minimum=0,
    )


@dataclass(frozen=True)
class OptimizerSettings:
    """Stochastic gradient descent on the shared weights."""

    learning_rate: float = option(0.025, "at the first step; falls as a cosine", minimum=0)
    final_learning_rate: float = option(0.001, "at the last step", minimum=0)
    momentum: float = option(0.9, "of the gradient", minimum=0, maximum=1)
    nesterov: bool = option(False, "whether momentum looks ahead")
    weight_decay: float = option(3e-4, "of all shared weights", minimum=0)
    clip: float = option(5.0, "largest norm of the gradient; 0 for none", minimum=0)


@dataclass(frozen=True)
class DeriveSettings:
    """How the found architecture is taken from the prior."""

    rule: str = option("mode", "the prior's mode, or the best of samples", choices=("mode", "best_of_samples"))
    samples: int = option(32, "that best_of_samples compares on validation", minimum=1)
    random_children: int = option(16, "random children the result is compared with", minimum=1)
    valid_images: int = option(
        5000, "validation images that children are scored on; the last comparison is on all of them", minimum=2
    )
    finalists: int = option(
        0,
        "of a search by training, candidates trained again at the end, all alike, the best of which is found: the "
        "mode of the strategy's prior where it has one, and the best of the search. 0 takes the best of the search",
        minimum=0,
    )
    final_steps: int = option(0, "training steps of these; 0 for those of the search", minimum=0)
    final_cells: int = option(
        0,
        "config.network.cells of the networks in which these are trained: what a cell does repeatedly shows in a deep "
        "network alone. 0 for those of the search",
        minimum=0,
        maximum=1000,
    )
    ranked_cells: int = option(
        200,
        "cells ranked by the search's scores and by the table, where one is given: random ones, or the table's own "
        "where it holds a sample; 0 for none",
        minimum=0,
    )


@dataclass(frozen=True)
class StrategySettings:
    """What proposes architectures, and what scores them."""

    name: str = option(
        "parsec",
        "what proposes; parsec on the supernet learns weights and prior together, anything else proposes from scores",
        choices=STRATEGIES,
    )
    options: tuple[str, ...] = option(
        (),
        "options of the strategy, as OPTION=VALUE, listed by --config=nb201_compare --help, those for several "
        "objectives by --config=nb201_pareto --help; parsec on the supernet has none: the other groups are its own",
    )
    evaluator: str = option(
        "supernet",
        "shared weights, every child trained from scratch, or the scores of config.table",
        choices=EVALUATORS,
    )
    evaluations: int = option(200, "different architectures that may be evaluated", minimum=1)
    epochs: float = option(3.0, "of train, passes of one child over the weights' share of the images", minimum=0)
    steps: int = option(0, "of train, steps of one child; above 0 this replaces epochs", minimum=0)
    objective: str = option(
        "accuracy", "of train, what is told of a child's validation images", choices=("accuracy", "log_likelihood")
    )
    capacity: float = option(
        0.0,
        "of train by log-likelihood, nats added for each e-fold of a child's parameters: what a training that is too "
        "short for large networks withholds from them",
        minimum=0,
    )
    inherit: bool = option(True, "of train, whether a child starts with the tensors it shares with its nearest")


@dataclass(frozen=True)
class VerifySettings:
    """How the found cell is proved at the end: trained from scratch beside random cells and a plain network."""

    random: int = option(8, "random cells that are trained alike; 0 for no verification", minimum=0)
    seeds: int = option(3, "training runs of each network", minimum=LEAST_SEEDS)
    epochs: float = option(0.0, "passes over all training images; 0 for as many as share allows", minimum=0)
    steps: int = option(0, "training steps; above 0 this replaces epochs", minimum=0)
    share: float = option(
        0.5,
        "of the search's cost that verification may have, where neither epochs nor steps is given; with less than 50 "
        "steps for each network there is none",
        minimum=0,
    )
    learning_rate: float = option(0.1, "at the first step; falls to zero as a cosine", minimum=0)


@dataclass(frozen=True)
class SearchConfig:
    """A search on a supernet."""

    JOB: ClassVar[str] = "parsec.jobs.search.job:run_search"
    WRITES: ClassVar[tuple[str, ...]] = (
        "prior.json",
        "cell.svg",
        "cell.png",
        "report.html",
        "journal.jsonl",
        "compared.jsonl",
        "retrained.jsonl",
        "children",
        "front.md",
        "front.png",
        "unreadable.json",
    )

    dataset: str = option(
        "digits",
        "digits, digits_on_photos, cifar10, cifar100, fashion_mnist, images or tfds:NAME; or, of a search on shared "
        "weights, streamed "
        "and never held in memory: imagenet, stream:images or stream:tfds:NAME",
    )
    data_dir: str = option("", "folder of the dataset's files, where it needs them", affects_results=False)
    space: str = option("darts", "search space: darts, nasbench201, or one that you registered")
    seed: int = option(0, "of everything random", minimum=0, maximum=2**32 - 1)
    epochs: float = option(100.0, "passes over the weights' share of the training images", minimum=0, maximum=100_000)
    steps: int = option(0, "training steps; above 0 this replaces epochs", minimum=0)
    table: str = option(
        "",
        "file of published figures that the found cell is judged by: nasbench201.npz, or in space darts "
        "darts_nb301_naslib.npz, a surrogate's values",
        affects_results=False,
    )
    constraints: tuple[str, ...] = option(
        (),
        "what the network of every evaluated cell and of the found one may cost at most, params<NUMBER, flops<NUMBER "
        "or latency_ms<NUMBER (or <=); of strategies that are told scores",
    )
    objectives: tuple[str, ...] = option(
        (),
        "of a search by short trainings for a front: accuracy or log_likelihood of the validation images, which stands "
        "for strategy.objective and strategy.capacity, then -params, -flops, -latency_ms or these as -log10_params and "
        "the like; a strategy of several objectives searches. Without any, the best cell is searched",
    )
    latency: str = option(
        "",
        "run directory of --config=latency in the same space, whose model predicts latency_ms of the network and on "
        "the device that were measured there, for constraints and objectives",
        affects_results=False,
    )
    save_minutes: float = option(5.0, "between checkpoints", minimum=0, affects_results=False)
    metrics_every: int = option(10, "steps between lines of metrics.jsonl", minimum=1, affects_results=False)
    devices: int = option(
        1,
        "that the images of each batch are divided among where weights are shared; 0 for as many as there are",
        minimum=0,
        affects_results=False,
    )
    workers: int = option(
        1,
        "of short trainings, processes that train children at once, each with its share of this machine's cores; 1 "
        "trains in the process that searches",
        minimum=1,
        maximum=10_000,
        affects_results=False,
    )
    cluster: str = option(
        "",
        "of short trainings, the Ray cluster that the workers are on: local starts one on this machine, auto is the "
        "one that it belongs to, else HOST:PORT or ray://HOST:PORT; empty for none",
        affects_results=False,
    )
    asynchronous: bool = option(
        False,
        "whether the strategy is asked again as soon as a worker is free, and not once all that it asked for is known; "
        "what it proposes then depends on which worker ends first, so that no run repeats another",
    )
    data: DataSettings = option(DataSettings(), "")
    network: NetworkSettings = option(NetworkSettings(), "")
    supernet: SupernetSettings = option(SupernetSettings(), "")
    optimizer: OptimizerSettings = option(OptimizerSettings(), "")
    sampler: SamplerSettings = option(SamplerSettings(), "")
    likelihood: LikelihoodSettings = option(LikelihoodSettings(), "")
    prior: PriorSettings = option(PriorSettings(), "")
    strategy: StrategySettings = option(StrategySettings(), "")
    derive: DeriveSettings = option(DeriveSettings(), "")
    verify: VerifySettings = option(VerifySettings(), "")


def joint_entry(config: SearchConfig) -> JointEntry | None:
    """Returns the joint search that a config asks for, or None where its strategy is told scores instead."""
    return JOINTS.get(config.strategy.name) if EVALUATORS[config.strategy.evaluator].shared else None


def proposer(config: SearchConfig) -> str:
    """Returns who proposes: with several objectives it may be another than the named one."""
    return in_charge(config.strategy.name, len(config.objectives))
