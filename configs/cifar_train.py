"""Train a cell on CIFAR-10 by the field's protocol (DARTS): 20 cells, 36 channels, 600 epochs; an accelerator's work.

Command: python main.py --config=cifar_train --config.from_run=runs/cifar_search
         python main.py --config=cifar_train --config.genotype=DARTS_V2
         python main.py --config=cifar_train:quick --config.data_dir=DIR --config.genotype=DARTS_V2
Result: weights, model.json and the test accuracy under runs/cifar_train. The protocol trains on all 50,000 images and
tests the last weights; DARTS reports 97.24 % for DARTS_V2. `--config.genotype=resnet` trains a plain residual network
of as many parameters. Variants:
  quick        images of 16 x 16 pixels, 8 cells, 8 channels; ends within ten minutes on two cores
  nasbench201  that benchmark's own protocol for its cells: 200 epochs, 5 cells a stage, 16 channels
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.train import (
    RegularisationSettings,
    TrainConfig,
    TrainDataSettings,
    TrainNetworkSettings,
    TrainOptimizerSettings,
)


def get_config(variant: str = "") -> TrainConfig:
    """Returns the published training, or a variant."""
    published = TrainConfig(dataset="cifar10")
    if variant == "":
        return published
    if variant == "quick":
        return replace(
            published,
            epochs=5.0,
            data=TrainDataSettings(
                batch_size=96, valid_fraction=0.1, image_size=16, augmentation="crop_flip", cutout=4
            ),
            network=TrainNetworkSettings(channels=8, cells=8),
            optimizer=TrainOptimizerSettings(learning_rate=0.1),
            regularisation=RegularisationSettings(drop_path=0.0),
        )
    if variant == "nasbench201":
        return replace(
            published,
            epochs=200.0,
            data=TrainDataSettings(batch_size=256, cutout=0),
            network=TrainNetworkSettings(channels=16, cells=5),
            optimizer=TrainOptimizerSettings(learning_rate=0.1, nesterov=True, weight_decay=5e-4, clip=0.0),
            regularisation=RegularisationSettings(auxiliary_weight=0.0, drop_path=0.0),
        )
    raise unknown("variant of cifar_train", variant, ["quick", "nasbench201"])
