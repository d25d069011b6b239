"""Train a cell on the handwritten digits: embedded data, no download, a few minutes on two cores.

Command: python main.py --config=digits_train --config.from_run=runs/digits_search
         python main.py --config=digits_train --config.genotype=DARTS_V2
Result: weights, model.json and the test accuracy under runs/digits_train. `:quick` is a smoke test of half a minute.
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
        dataset="digits",
        epochs=40.0,
        metrics_every=10,
        data=TrainDataSettings(batch_size=64, valid_fraction=0.15, augmentation="shift", cutout=0),
        network=TrainNetworkSettings(channels=8, cells=6),
        optimizer=TrainOptimizerSettings(learning_rate=0.05),
        regularisation=RegularisationSettings(drop_path=0.1),
    )
    if variant == "":
        return full
    if variant == "quick":
        network = TrainNetworkSettings(channels=4, cells=3)
        regularisation = RegularisationSettings(drop_path=0.0, auxiliary_weight=0.0)
        return replace(full, epochs=5.0, network=network, regularisation=regularisation)
    raise unknown("variant of digits_train", variant, ["quick"])
