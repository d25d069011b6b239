"""Make a benchmark of your own: every NAS-Bench-201 cell trained on the digits.

Command: python main.py --config=digits201_table

It trains the 6,466 different cells with three seeds each, from scratch and to the same recipe, in one compiled program:
2 epochs on 719 digits, one cell of 8 channels in each stage, half the resolution. Result: table.npz, all 15,625 cells
with validation and test accuracy and loss by seed, parameters, FLOPs and seconds; result.json says what it looks like.
The table that comes with the package (`--config=digits201_compare`) was made so. Time: half an hour on one core; stop
it at any moment, and the same command goes on. `:quick` trains 40 cells in a minute, most of it compilation.

Any dataset and any space will do: --config.dataset, --config.space, --config.network.channels, --config.training.epochs
and so on; of a space too large to list, --config.architectures=N draws some. Compare strategies on the result with
--config=table_compare.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.search import NetworkSettings
from parsec.settings.table import TableConfig, TrainingSettings


def get_config(variant: str = "") -> TableConfig:
    """Returns the table of all cells, or `quick`: 40 of them."""
    full = TableConfig(
        dataset="digits",
        space="nasbench201",
        network=NetworkSettings(channels=8, cells=1, stem_stride=2),
        training=TrainingSettings(epochs=2.0, batch_size=32, learning_rate=0.2),
    )
    if variant == "":
        return full
    if variant == "quick":
        return replace(full, architectures=40, chunk=8)
    raise unknown("variant of digits201_table", variant, ("", "quick"))
