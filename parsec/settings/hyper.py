"""The options of a search for networks and their training together; `configs/*_joint.py` set them for a dataset."""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.search.registry import explain_options, names

# It begins networks with others' weights, and is no strategy of the registry.
BULK_AND_CUT = "bulk_and_cut"


@dataclass(frozen=True)
class LevelSettings:
    """The ranges of the joint space, each on a logarithmic scale, and how many levels strategies choose among."""

    conv: tuple[int, ...] = option((16, 1024), "fewest and most channels of a convolution", minimum=1)
    conv_levels: int = option(13, "of them, rounded", minimum=2, maximum=1000)
    fc: tuple[int, ...] = option((2, 512), "fewest and most units of a fully connected layer", minimum=1)
    fc_levels: int = option(9, "of them, rounded", minimum=2, maximum=1000)
    rate: tuple[float, ...] = option((1e-5, 1.0), "least and largest learning rate", minimum=1e-9, maximum=1e3)
    rate_levels: int = option(11, "of them", minimum=2, maximum=1000)
    batch: tuple[int, ...] = option((1, 512), "fewest and most images in a batch", minimum=1)
    batch_levels: int = option(10, "of them, rounded", minimum=2, maximum=1000)


@dataclass(frozen=True)
class HyperConfig:
    """Strategies that search the joint space of networks and their training, really trained, at equal epochs."""

    JOB: ClassVar[str] = "parsec.jobs.hyper.job:run_hyper"
    WRITES: ClassVar[tuple[str, ...]] = (
        *("searches", "curves.npz", "hypervolume.png", "attained.png", "table.md"),
        *("front.md", "front.json"),
    )

    dataset: str = option("fashion_mnist", "fashion_mnist, digits_on_photos, images, tfds:NAME or another in memory")
    data_dir: str = option("", "folder of the dataset's files, where it needs them", affects_results=False)
    image_size: int = option(0, "side in pixels that images are resized to; 0 leaves them", minimum=0)
    valid_fraction: float = option(0.2, "share of the training images that a search judges by", minimum=0, maximum=0.9)
    train_images: int = option(0, "of the others, so many train, drawn by the seed; 0 for all", minimum=0)
    levels: LevelSettings = option(LevelSettings(), "")
    epochs: tuple[int, ...] = option(
        (7, 13, 25),
        "of the trainings that strategies of several fidelities choose among, rising; the last is full",
        minimum=1,
    )
    objectives: tuple[str, ...] = option(
        ("accuracy", "-log10_params"), "accuracy, to maximise, then -log10_params or -params, to minimise"
    )
    reference: tuple[float, ...] = option(
        (), "reference point of the hypervolume, a number for each objective; empty is the paper's, 0 and 10^8"
    )
    strategies: tuple[str, ...] = option(
        ("random", "sh_emoa", "mo_bohb", "sh_mo_bananas", BULK_AND_CUT),
        "keys of parsec.search.registry.STRATEGIES, and bulk_and_cut, in this order",
    )
    options: tuple[str, ...] = option((), "options of strategies, as NAME.OPTION=VALUE")
    seeds: int = option(3, "runs of each strategy", minimum=1)
    seed: int = option(
        0, "of the parts of the images and of the first run; each run's is one more", minimum=0, maximum=2**31 - 1
    )
    budget: int = option(60, "full trainings of each run; a shorter one counts as its share in epochs", minimum=1)

    def explain(self) -> list[str]:
        """Returns the paragraphs that `--help` adds: the options of the strategies of several objectives."""
        return explain_options(("random", *names(many=True), *names(many=True, multi_fidelity=True)))
