"""Was a search worth its time? Its cell, random cells and a plain residual network, trained alike from scratch.

Command: python main.py --config=retrain_compare --config.from_runs=RUN,RUN --config.random=19
Result: under runs/retrain_compare one sentence of verdict, table.md with the test accuracies of every network, their
plot accuracies.png, and result.json.

The runs are run directories of finished searches in one space and on one dataset. Networks have the searched size
unless --config.network says otherwise, and are trained for --config.training.epochs on all training images; `:quick`
trains 8 random cells for 5 epochs. What was trained stays when a run is stopped; the same command goes on.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.retrain import RetrainConfig, RetrainTrainingSettings


def get_config(variant: str = "") -> RetrainConfig:
    """Returns the comparison with 19 random cells, or `quick`, with 8 and shorter trainings."""
    full = RetrainConfig()
    if variant == "":
        return full
    if variant == "quick":
        return replace(full, random=8, training=RetrainTrainingSettings(epochs=5.0))
    raise unknown("variant of retrain_compare", variant, ["quick"])
