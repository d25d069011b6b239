"""From a folder of images to a network that tells their classes, in 30 minutes: one subfolder for each class.

Command: python main.py --config=images --config.data_dir=FOLDER
         python main.py --predict=runs/images FILES_OR_FOLDER
Result: under runs/images a search and its verification (search/), the found cell trained from scratch and exported
(train/), and a plain residual network of as many parameters trained alike (residual/); their test accuracies side by
side. Search and trainings are as long as `--config.search.*` and `--config.train.*` say, and are shortened to end
within `--config.minutes`, 30 by default; a small folder takes less. The same command goes on after any stop.
"""

from dataclasses import replace

from configs import images_search, images_train
from parsec.errors import unknown
from parsec.settings.images import PipelineConfig, leave_shared


def get_config(variant: str = "") -> PipelineConfig:
    """Returns the whole line; there is no variant."""
    if variant:
        raise unknown("variant of images", variant, ["(none)"])
    train = images_train.get_config()
    # At half the resolution an epoch takes a fifth of the time, and so few minutes are worth several times the epochs.
    network = replace(train.network, cells=6, stem_stride=2)
    train = replace(train, epochs=300.0, network=network, data=replace(train.data, valid_fraction=0.0))
    return PipelineConfig(search=leave_shared(images_search.get_config()), train=leave_shared(train))
