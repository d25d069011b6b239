"""What cells take on this device: some are compiled and measured in turns, and a model predicts all others.

Command: python main.py --config=latency
         python main.py --config=latency --config.from_runs=RUN,RUN --config.network.channels=8 --config.network.cells=6

Result: under runs/latency, latency.npz, a table of the measured cells with their latency in milliseconds, parameters
and FLOPs, and latency.json, the model: what each option of each choice adds, and how far predictions of cells that it
was not fitted to are off. Networks compile one by one, some seconds each on a CPU. Measure on a machine that does
nothing else. With --config.latency=runs/latency a search keeps to `latency_ms<NUMBER`, or has -latency_ms as an
objective. `:quick` measures 12 cells, too few for a model to be of use.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.latency import LatencyConfig


def get_config(variant: str = "") -> LatencyConfig:
    """Returns the measurement of 48 random cells, or `quick`, of 12."""
    full = LatencyConfig()
    if variant == "":
        return full
    if variant == "quick":
        return replace(full, cells=12)
    raise unknown("variant of latency", variant, ["quick"])
