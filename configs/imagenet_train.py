"""Train a cell on ImageNet, or any folder of images too large for memory, by the field's protocol: streamed.

Command: python main.py --config=imagenet_train --config.data_dir=FOLDER --config.genotype=DARTS_V2
         python main.py --config=imagenet_train --config.from_run=runs/cifar_search
         python main.py --config=imagenet_train:quick --config.data_dir=FOLDER --config.genotype=DARTS_V2
Result: weights, model.json and the test accuracy under runs/imagenet_train. FOLDER holds train/CLASS/*.jpg and
val/CLASS/*.jpg; without it, or where it holds TensorFlow Datasets' prepared imagenet2012, that is read. Images are read
and decoded while the network trains, by `--config.data.workers` processes; timing.json says what share of the time was
waited for them. The protocol is DARTS's, 14 cells and 48 channels at 224 pixels for 250 epochs, but that the learning
rate falls as a cosine; DARTS reports a top-1 error of 26.7 %. An accelerator's work of days. Variant:
  quick        the same code at 64 pixels, 5 cells, 16 channels, 20 epochs; four minutes on two cores for 3,000 images
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
    """Returns the published training, or `quick`."""
    published = TrainConfig(
        dataset="imagenet",
        epochs=250.0,
        data=TrainDataSettings(
            batch_size=128,
            eval_batch_size=250,
            image_size=224,
            augmentation="flip",
            cutout=0,
            crop_area=0.08,
            workers=8,
        ),
        network=TrainNetworkSettings(channels=48, cells=14, stem="imagenet"),
        optimizer=TrainOptimizerSettings(learning_rate=0.1, weight_decay=3e-5),
        regularisation=RegularisationSettings(drop_path=0.0, label_smoothing=0.1),
    )
    if variant == "":
        return published
    if variant == "quick":
        data = replace(published.data, batch_size=32, image_size=64, crop_area=0.25, workers=0)
        network = replace(published.network, channels=16, cells=5)
        return replace(published, epochs=20.0, metrics_every=10, data=data, network=network)
    raise unknown("variant of imagenet_train", variant, ["quick"])
