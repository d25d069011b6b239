"""The options of making a table; `configs/digits201_table.py` sets them for the one that comes with the package."""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.settings.search import AUGMENTATION_NAMES, NetworkSettings


@dataclass(frozen=True)
class TrainingSettings:
    """How every architecture is trained and evaluated."""

    epochs: float = option(3.0, "passes over the training share of the images", minimum=0)
    steps: int = option(0, "training steps; above 0 this replaces epochs", minimum=0)
    batch_size: int = option(32, "images in a training batch", minimum=2)
    learning_rate: float = option(0.1, "at the first step; falls to zero as a cosine", minimum=0)
    momentum: float = option(0.9, "of the gradient, Nesterov's", minimum=0, maximum=1)
    weight_decay: float = option(5e-4, "of all weights", minimum=0)
    augmentation: str = option("none", "of training images", choices=AUGMENTATION_NAMES)
    valid_fraction: float = option(0.5, "share of the training images kept for validation", minimum=0.01, maximum=0.99)
    image_size: int = option(0, "side in pixels that images are resized to; 0 leaves them", minimum=0)
    eval_batch_size: int = option(1000, "most images that an evaluation normalises by common statistics", minimum=2)


@dataclass(frozen=True)
class TableConfig:
    """A table of trained architectures: a benchmark of one's own."""

    JOB: ClassVar[str] = "parsec.jobs.tables.build:run_build_table"
    WRITES: ClassVar[tuple[str, ...]] = ("table.npz",)

    dataset: str = option("digits", "digits, digits_on_photos, cifar10, cifar100, fashion_mnist, images or tfds:NAME")
    data_dir: str = option("", "folder of the dataset's files, where it needs them", affects_results=False)
    space: str = option("nasbench201", "search space, a key of parsec.cells.SPACES")
    architectures: int = option(0, "distinct architectures to train, drawn by the seed; 0 trains all", minimum=0)
    seed: int = option(
        0, "of the split, of the draw of architectures and of the training runs", minimum=0, maximum=2**32 - 1
    )
    seeds: int = option(3, "training runs of each architecture", minimum=1, maximum=1000)
    chunk: int = option(32, "architectures trained between two looks at the clock", minimum=1)
    save_minutes: float = option(0.5, "between checkpoints", minimum=0, affects_results=False)
    network: NetworkSettings = option(NetworkSettings(), "")
    training: TrainingSettings = option(TrainingSettings(), "")
