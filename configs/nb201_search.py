"""PARSEC on the NAS-Bench-201 cell and CIFAR-10, judged by the published table.

Command: python main.py --config=nb201_search:quick --config.data_dir=DIR --config.table=DIR/nasbench201.npz
Result: a cell under runs/nb201_search, its published accuracies, and the rank correlation of supernet and table.
Expected of `:quick`: 93.45 % on the published test, deviation 0.60 over ten runs, in 7 to 13 minutes of one core.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.run.settings import (
    DataSettings,
    LikelihoodSettings,
    NetworkSettings,
    OptimizerSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    SupernetSettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the full search, or `quick`, which ends in minutes on a CPU."""
    full = SearchConfig(
        dataset="cifar10",
        space="nasbench201",
        epochs=100.0,
        data=DataSettings(augmentation="crop_flip"),
        network=NetworkSettings(channels=16, cells=5),
        supernet=SupernetSettings(auxiliary_skip=1.0),
        prior=PriorSettings(warmup=0.57, learning_rate=0.01),
        likelihood=LikelihoodSettings(reduction="sum", child_weights="uniform"),
    )
    if variant == "":
        return full
    if variant == "quick":
        return replace(
            full,
            steps=7000,
            data=DataSettings(valid_fraction=0.3, image_size=16, augmentation="flip"),
            network=NetworkSettings(channels=16, cells=1, stem_stride=2),
            sampler=SamplerSettings(num_children=2),
            optimizer=OptimizerSettings(learning_rate=0.1),
        )
    raise unknown("variant of nb201_search", variant, ["quick"])
