"""PARSEC on CIFAR-10 in the DARTS space, as published; `quick` ends in about fifteen minutes on two cores.

Command: python main.py --config=cifar_search
         python main.py --config=cifar_search:quick --config.data_dir=DIR
Result: a normal and a reduction cell under runs/cifar_search; the published search took 0.6 GPU-days.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.run.settings import (
    DataSettings,
    DeriveSettings,
    LikelihoodSettings,
    NetworkSettings,
    OptimizerSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the published search, or `quick`."""
    published = SearchConfig(
        dataset="cifar10",
        space="darts",
        epochs=100.0,
        data=DataSettings(batch_size=64, valid_batch_size=64, valid_fraction=0.5, augmentation="crop_flip"),
        network=NetworkSettings(channels=16, cells=8),
        sampler=SamplerSettings(num_children=16),
    )
    if variant == "":
        return published
    if variant == "quick":
        return replace(
            published,
            steps=5500,
            data=DataSettings(valid_fraction=0.3, image_size=16, augmentation="flip"),
            network=NetworkSettings(channels=16, cells=3, stem_stride=2),
            optimizer=OptimizerSettings(learning_rate=0.02),
            sampler=SamplerSettings(num_children=2),
            likelihood=LikelihoodSettings(child_weights="uniform"),
            prior=PriorSettings(learning_rate=0.02, warmup=0.5),
            derive=DeriveSettings(valid_images=2048),
        )
    raise unknown("variant of cifar_search", variant, ["quick"])
