"""A cell for CIFAR-10 in the NAS-Bench-201 space, judged by the published table.

Command: python main.py --config=nb201_search:quick --config.data_dir=DIR --config.table=DIR/nasbench201.npz
Result: a cell under runs/nb201_search, its published accuracies, and how the learnt prior ranks the table's cells.

Without a variant it is meant for an accelerator, where `:smoke` says in five short trainings what it will take; `quick`
takes about a quarter of an hour on two idle cores. `paper` is PARSEC as published (Casale, Gordon, Fusi 2019, arXiv
1902.05116) on this space: shared weights and prior learn together; `joint` is the same in minutes on two cores.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.search import (
    DataSettings,
    DeriveSettings,
    LikelihoodSettings,
    NetworkSettings,
    OptimizerSettings,
    PriorSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
    SupernetSettings,
    VerifySettings,
)


def get_config(variant: str = "") -> SearchConfig:
    """Returns the search for an accelerator, or `smoke`, `quick`, `joint` or `paper`."""
    # The table judges the found cell; each random one that it is shown beside costs a training of `final_steps`.
    full = SearchConfig(
        dataset="cifar10",
        space="nasbench201",
        data=DataSettings(batch_size=64, valid_fraction=0.3, augmentation="crop_flip"),
        network=NetworkSettings(channels=16, cells=5),
        optimizer=OptimizerSettings(
            learning_rate=0.1, final_learning_rate=0.0, nesterov=True, weight_decay=5e-4, clip=0.0
        ),
        strategy=StrategySettings(
            name="additive",
            evaluator="train",
            evaluations=128,
            steps=1500,
            inherit=False,
            objective="log_likelihood",
            capacity=0.2,
        ),
        derive=DeriveSettings(finalists=16, final_steps=5000, random_children=2),
        verify=VerifySettings(random=0),
    )
    if variant == "":
        return full
    if variant == "smoke":
        return replace(full, strategy=replace(full.strategy, evaluations=5, steps=100), derive=DeriveSettings())
    small = NetworkSettings(channels=16, cells=1, stem_stride=2)
    if variant == "quick":
        return replace(
            full,
            data=replace(full.data, image_size=16, augmentation="flip"),
            network=small,
            strategy=replace(full.strategy, evaluations=96, steps=300),
            # In one cell a stage, skip connections side by side look better than they are where five cells follow.
            derive=DeriveSettings(valid_images=4096, finalists=12, final_steps=500, final_cells=3, random_children=2),
        )
    paper = SearchConfig(
        dataset="cifar10",
        space="nasbench201",
        epochs=100.0,
        data=DataSettings(augmentation="crop_flip"),
        network=NetworkSettings(channels=16, cells=5),
        supernet=SupernetSettings(auxiliary_skip=1.0),
        prior=PriorSettings(warmup=0.57, learning_rate=0.01),
        likelihood=LikelihoodSettings(reduction="sum", child_weights="uniform"),
    )
    if variant == "paper":
        return paper
    if variant == "joint":
        return replace(
            paper,
            steps=7000,
            data=DataSettings(valid_fraction=0.3, image_size=16, augmentation="flip"),
            network=small,
            sampler=SamplerSettings(num_children=2),
            optimizer=OptimizerSettings(learning_rate=0.1),
        )
    raise unknown("variant of nb201_search", variant, ["smoke", "quick", "joint", "paper"])
