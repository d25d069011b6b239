"""A cell for CIFAR-10 in the DARTS space: short trainings of single cells, and an additive prior that explains them.

Command: python main.py --config=cifar_search
         python main.py --config=cifar_search:quick --config.data_dir=DIR
Result: a normal and a reduction cell under runs/cifar_search, trained from scratch beside random cells at the end.

Without a variant it is meant for an accelerator, where `:smoke` says in five short trainings what it will take; `quick`
ends in about fifteen minutes on two idle cores, and six more prove it. `paper` is PARSEC as published (Casale, Gordon,
Fusi 2019, arXiv 1902.05116): shared weights and prior learn together, for 0.6 GPU-days.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    NetworkSettings,
    OptimizerSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
    VerifySettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the search for an accelerator, or `smoke`, `quick` or `paper`."""
    full = SearchConfig(
        dataset="cifar10",
        space="darts",
        data=DataSettings(batch_size=64, valid_fraction=0.3, augmentation="crop_flip"),
        network=NetworkSettings(channels=16, cells=8),
        optimizer=OptimizerSettings(
            learning_rate=0.1, final_learning_rate=0.0, nesterov=True, weight_decay=5e-4, clip=0.0
        ),
        strategy=StrategySettings(
            name="additive",
            evaluator="train",
            evaluations=256,
            steps=1500,
            inherit=False,
            objective="log_likelihood",
            capacity=0.05,
        ),
        derive=DeriveSettings(finalists=16, final_steps=5000),
        verify=VerifySettings(random=19, steps=5000),
    )
    if variant == "":
        return full
    if variant == "smoke":
        strategy = replace(full.strategy, evaluations=5, steps=100)
        return replace(full, strategy=strategy, derive=DeriveSettings(), verify=VerifySettings(random=0))
    if variant == "quick":
        # Four of six cells are normal ones, as most are in the large network: with three of them the order is another.
        return replace(
            full,
            data=replace(full.data, image_size=16, augmentation="flip"),
            network=NetworkSettings(channels=8, cells=6, stem_stride=2),
            strategy=replace(full.strategy, evaluations=80, steps=300),
            derive=DeriveSettings(valid_images=2048, finalists=8, final_steps=600),
            verify=VerifySettings(random=19, steps=300),
        )
    if variant == "paper":
        return SearchConfig(
            dataset="cifar10",
            space="darts",
            epochs=100.0,
            data=DataSettings(batch_size=64, valid_batch_size=64, valid_fraction=0.5, augmentation="crop_flip"),
            network=NetworkSettings(channels=16, cells=8),
            sampler=SamplerSettings(num_children=16),
        )
    raise unknown("variant of cifar_search", variant, ["smoke", "quick", "paper"])
