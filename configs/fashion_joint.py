"""Networks and their training together, on Fashion-MNIST: 13 hyper-parameters, five strategies, really trained.

Command: python main.py --config=fashion_joint:quick
         python main.py --config=fashion_joint --config.data_dir=FOLDER

The space is that of the bag of baselines (arXiv 2105.01015): one to three convolutions and one to three fully connected
layers, their widths, kernel size, batch normalisation, pooling, learning rate and batch size. Strategies are told the
validation accuracy and the decimal logarithm of the parameters, and judged by the hypervolume above (0 %, 10^8
parameters) at equal trained epochs. FOLDER holds the four IDX files of Fashion-MNIST, packed or not; without it
TensorFlow Datasets fetches them. Result: table.md, hypervolume.png, attained.png, front.md with test accuracies, and
result.json in the run directory. The full job trains for days on one device; `--config.budget` and `--config.seeds`
shorten it. `quick` searches a narrower space on 256 of the handwritten digits that come with scikit-learn, with no
download, for 16 full trainings a run.
"""

from parsec.errors import unknown
from parsec.settings.hyper import HyperConfig, LevelSettings

VARIANTS = ("", "quick")


def get_config(variant: str = "") -> HyperConfig:
    """Returns the search on Fashion-MNIST, or one of `VARIANTS`."""
    if variant == "":
        return HyperConfig(options=("sh_emoa.preset=fashion",), budget=60)
    if variant == "quick":
        return HyperConfig(
            dataset="digits",
            valid_fraction=0.5,
            train_images=256,
            levels=LevelSettings(conv=(4, 16), conv_levels=5, fc=(8, 64), fc_levels=7, batch=(32, 128), batch_levels=3),
            # In so small a budget populations and first samples are smaller than in the paper.
            options=("sh_emoa.population=4", "sh_emoa.stage=3", "mo_bohb.initial=4", "sh_mo_bananas.initial=4"),
            budget=16,
        )
    raise unknown("variant of fashion_joint", variant, VARIANTS)
