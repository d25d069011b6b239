"""A cell for handwritten digits on photographs: embedded data, no download, minutes on two cores, verdict included.

Command: python main.py --config=digits_search
Result: a cell of the DARTS space under runs/digits_search, trained from scratch beside random cells at the end.
"""

from parsec.errors import unknown
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    OptimizerSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
    VerifySettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the search; `quick` is a smoke test of the NAS-Bench-201 cell in well under a minute."""
    if variant == "":
        return SearchConfig(
            dataset="digits_on_photos",
            space="darts",
            data=DataSettings(batch_size=64, valid_fraction=0.25),
            network=NetworkSettings(channels=8, cells=6, stem_stride=2),
            optimizer=OptimizerSettings(
                learning_rate=0.1, final_learning_rate=0.0, nesterov=True, weight_decay=5e-4, clip=0.0
            ),
            strategy=StrategySettings(name="additive", evaluator="train", evaluations=96, steps=38, inherit=False),
            derive=DeriveSettings(finalists=8, final_steps=75),
            # As many random cells as an exact test needs, and each short.
            verify=VerifySettings(random=19, steps=75),
        )
    if variant == "quick":
        return SearchConfig(
            dataset="digits",
            space="nasbench201",
            steps=40,
            metrics_every=1,
            data=DataSettings(batch_size=32, valid_batch_size=32),
            network=NetworkSettings(channels=4, cells=1, stem_stride=2),
            sampler=SamplerSettings(num_children=2),
            prior=PriorSettings(warmup=0.5),
            derive=DeriveSettings(valid_images=128, random_children=4),
        )
    raise unknown("variant of digits_search", variant, ["quick"])
