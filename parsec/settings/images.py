"""The options of the whole line from images to a trained network: those of its stages, and what the stages share."""

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from parsec.config import option
from parsec.settings.search import SearchConfig
from parsec.settings.train import TrainConfig

Stage = TypeVar("Stage", SearchConfig, TrainConfig)

# The stages' folders in the run directory: the search, the training of its cell, that of the plain residual network.
SEARCH, TRAIN, RESIDUAL = "search", "train", "residual"


def leave_shared(stage: Stage) -> Stage:
    """Returns a stage's settings with those empty that are given once for all stages, in `PipelineConfig`."""
    data = replace(stage.data, image_size=0)
    return replace(stage, dataset="", data_dir="", seed=0, data=data)


@dataclass(frozen=True)
class PipelineConfig:
    """A search, the training of its cell, and that of a plain residual network alike, within a time."""

    JOB: ClassVar[str] = "parsec.jobs.images.job:run_pipeline"
    WRITES: ClassVar[tuple[str, ...]] = (SEARCH, TRAIN, RESIDUAL, "budget.json")

    dataset: str = option(
        "images", "images, digits, digits_on_photos, cifar10, cifar100, fashion_mnist or tfds:NAME; of all stages"
    )
    data_dir: str = option("", "folder of the dataset's files, where it needs them", affects_results=False)
    seed: int = option(0, "of everything random, in all stages", minimum=0, maximum=2**32 - 1)
    image_size: int = option(32, "side in pixels that images are resized to, in all stages; 0 leaves them", minimum=0)
    minutes: float = option(
        30.0,
        "within which all is done; what was given for search and train is shortened to fit, never lengthened, by "
        "speeds measured beforehand: on a machine that becomes busy the trainings take at least half of their part, "
        "and the whole is longer; 0 for no limit",
        minimum=0,
        maximum=1_000_000,
    )
    search_share: float = option(
        0.6, "of the minutes that the search and its verification may take at most", minimum=0.05, maximum=0.95
    )
    search: SearchConfig = option(leave_shared(SearchConfig()), "")
    train: TrainConfig = option(leave_shared(TrainConfig()), "")
