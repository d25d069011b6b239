"""The options of measuring latencies; `configs/latency.py` sets them."""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.settings.search import NetworkSettings


@dataclass(frozen=True)
class LatencyConfig:
    """Latencies of a space's networks on this device."""

    JOB: ClassVar[str] = "parsec.jobs.latency:run_latency"
    WRITES: ClassVar[tuple[str, ...]] = ("latency.npz", "latency.json")

    space: str = option("darts", "search space: darts, nasbench201, or one that you registered")
    cells: int = option(48, "random cells that are compiled and measured, drawn by the seed", minimum=10)
    from_runs: tuple[str, ...] = option(
        (), "run directories of finished searches, whose cells, or fronts, are measured besides"
    )
    seed: int = option(0, "of the random cells", minimum=0, maximum=2**32 - 1)
    batch_size: int = option(1, "images at a time", minimum=1)
    image_size: int = option(32, "side of the images in pixels", minimum=1)
    num_classes: int = option(10, "of the images", minimum=2)
    rounds: int = option(9, "times that every network has its turn; the median counts", minimum=1)
    network: NetworkSettings = option(NetworkSettings(), "")
