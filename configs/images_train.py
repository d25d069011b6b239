"""Train a cell on images of your own: a folder with one subfolder for each class.

Command: python main.py --config=images_train --config.data_dir=FOLDER --config.from_run=runs/images_search
Result: weights, model.json and the test accuracy under runs/images_train; minutes to hours, by the number and size of
the images. `:quick` is smaller and ends within ten minutes on two cores for a few thousand images.
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
    """Returns the training, or `quick`."""
    full = TrainConfig(
        dataset="images",
        epochs=100.0,
        metrics_every=10,
        data=TrainDataSettings(batch_size=32, valid_fraction=0.15, image_size=32, cutout=8),
        network=TrainNetworkSettings(channels=16, cells=8),
        optimizer=TrainOptimizerSettings(learning_rate=0.025),
    )
    if variant == "":
        return full
    if variant == "quick":
        data = replace(full.data, cutout=0)
        network = TrainNetworkSettings(channels=8, cells=5, stem_stride=2)
        regularisation = RegularisationSettings(drop_path=0.0)
        return replace(full, epochs=40.0, data=data, network=network, regularisation=regularisation)
    raise unknown("variant of images_train", variant, ["quick"])
