"""A cell for ImageNet, or any folder of images too large for memory, on the full-size network: streamed shared weights.

Command: python main.py --config=cifar_search --transfer_to=imagenet --target.data_dir=FOLDER --train
         python main.py --config=imagenet_search --config.data_dir=FOLDER
         python main.py --config=imagenet_search:quick --config.data_dir=FOLDER
Result: a normal and a reduction cell under runs/imagenet_search. FOLDER holds train/CLASS/*.jpg and val/CLASS/*.jpg, or
CLASS/*.jpg alone; without it, or where it holds TensorFlow Datasets' prepared imagenet2012, that is read. Half of the
training images teach the shared weights and half the prior; both are read and decoded while they learn, and none of
them is held in memory. The first command starts from the prior that `cifar_search` learnt, and `--train` trains the
cell that is found by `imagenet_train`; the second starts from a uniform prior.

The network is the one that the cell is meant for: ImageNet's stem, 14 cells, 48 channels, 224 pixels. An accelerator's
work of days, and not run yet; how long PARSEC was fine-tuned on ImageNet is not published. In the first half of the
steps the prior rests, since the weights that it is judged by are fresh. Variant:
  quick        the same code at 64 pixels, 5 cells, 8 channels, 200 steps; minutes on two cores
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    LikelihoodSettings,
    NetworkSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    SupernetSettings,
    VerifySettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the search on the full-size network, or `quick`."""
    full = SearchConfig(
        dataset="imagenet",
        space="darts",
        epochs=2.0,
        data=DataSettings(
            batch_size=128,
            valid_batch_size=128,
            valid_fraction=0.5,
            image_size=224,
            augmentation="flip",
            crop_area=0.08,
            workers=8,
        ),
        network=NetworkSettings(channels=48, cells=14, stem="imagenet"),
        supernet=SupernetSettings(auxiliary_skip=1.0),
        sampler=SamplerSettings(num_children=16),
        likelihood=LikelihoodSettings(child_weights="uniform"),
        # At 0.01 likelihoods that are noise would take 7 nats from the prior in so many steps, and here 1.2.
        prior=PriorSettings(warmup=0.5, learning_rate=0.004),
        verify=VerifySettings(random=0),
    )
    if variant == "":
        return full
    if variant == "quick":
        data = replace(
            full.data, batch_size=32, valid_batch_size=32, valid_fraction=0.3, image_size=64, crop_area=0.25, workers=0
        )
        return replace(
            full,
            steps=200,
            data=data,
            network=replace(full.network, channels=8, cells=5),
            sampler=SamplerSettings(num_children=4),
            derive=DeriveSettings(random_children=4, valid_images=256),
        )
    raise unknown("variant of imagenet_search", variant, ["quick"])
