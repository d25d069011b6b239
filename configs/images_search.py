"""A cell for images of your own: a folder with one subfolder for each class.

Command: python main.py --config=images_search --config.data_dir=FOLDER
Result: a cell of the DARTS space under runs/images_search; minutes to hours, by the number and size of the images.
"""

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
    """Returns the search; there is no variant."""
    if variant:
        raise unknown("variant of images_search", variant, ["(none)"])
    return SearchConfig(
        dataset="images",
        space="darts",
        epochs=30.0,
        data=DataSettings(batch_size=32, valid_batch_size=32, image_size=32, augmentation="crop_flip"),
        network=NetworkSettings(channels=8, cells=5),
        optimizer=OptimizerSettings(learning_rate=0.03),
        sampler=SamplerSettings(num_children=4),
        likelihood=LikelihoodSettings(reduction="tempered", temperature=2.0, child_weights="uniform"),
        prior=PriorSettings(learning_rate=0.02, warmup=0.4),
        derive=DeriveSettings(valid_images=1024),
    )
