"""A cell for handwritten digits: embedded data, no download, a few minutes on two cores.

Command: python main.py --config=digits_search
Result: a cell of the DARTS space, its drawing and a report under runs/digits_search.
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
    VerifySettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the search; `quick` is a smoke test of the NAS-Bench-201 cell in well under a minute."""
    if variant == "":
        return SearchConfig(
            dataset="digits",
            space="darts",
            steps=600,
            metrics_every=5,
            data=DataSettings(batch_size=64, valid_batch_size=64, augmentation="shift"),
            network=NetworkSettings(channels=8, cells=3),
            optimizer=OptimizerSettings(learning_rate=0.05),
            sampler=SamplerSettings(num_children=4),
            likelihood=LikelihoodSettings(reduction="tempered", temperature=2.0, child_weights="uniform"),
            prior=PriorSettings(learning_rate=0.03, warmup=0.3),
            derive=DeriveSettings(valid_images=704),
            # Nearly every cell learns the digits, so a proof by training would prove nothing here.
            verify=VerifySettings(random=0),
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
