"""A cell for images of your own: a folder with one subfolder for each class.

Command: python main.py --config=images_search --config.data_dir=FOLDER
Result: a cell of the DARTS space under runs/images_search, trained from scratch beside random cells at the end; in
about a quarter of an hour on two slow cores, whatever the number of images: more of them are worth more
`--config.strategy.steps`.
"""

from parsec.errors import unknown
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    OptimizerSettings,
    SearchConfig,
    StrategySettings,
    VerifySettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the search; there is no variant."""
    if variant:
        raise unknown("variant of images_search", variant, ["(none)"])
    return SearchConfig(
        dataset="images",
        space="darts",
        data=DataSettings(batch_size=64, valid_fraction=0.25, image_size=32, augmentation="crop_flip"),
        network=NetworkSettings(channels=8, cells=6, stem_stride=2),
        optimizer=OptimizerSettings(
            learning_rate=0.1, final_learning_rate=0.0, nesterov=True, weight_decay=5e-4, clip=0.0
        ),
        strategy=StrategySettings(
            name="additive", evaluator="train", evaluations=64, steps=100, inherit=False, objective="log_likelihood"
        ),
        derive=DeriveSettings(valid_images=2048, finalists=6, final_steps=200),
        verify=VerifySettings(random=19, steps=100),
    )
