"""Networks and their training together, on a folder of small images such as the 17 Oxford flowers.

Command: python main.py --config=flowers_joint --config.data_dir=FOLDER

FOLDER has one subfolder for each class; images are resized to 16 x 16. A fifth of them tests the front (or the folder's
own part `test`), a third of the others judges networks. Space, objectives, strategies and results are those of
`fashion_joint` (arXiv 2105.01015); batches hold at most 256 images, since a small folder has not many more.
"""

from parsec.errors import unknown
from parsec.settings.hyper import HyperConfig, LevelSettings


def get_config(variant: str = "") -> HyperConfig:
    """Returns the search on a folder; there is no variant."""
    if variant:
        raise unknown("variant of flowers_joint", variant, ("",))
    return HyperConfig(
        dataset="images",
        image_size=16,
        valid_fraction=1 / 3,
        levels=LevelSettings(batch=(1, 256), batch_levels=9),
        options=("sh_emoa.population=20", "sh_emoa.stage=20"),
        budget=100,
    )
