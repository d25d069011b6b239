"""What NAS-Bench-201's cells cost on real devices, as others measured or modelled it: columns beside the table's own.

HW-NAS-Bench (Li et al. 2021, ICLR, arXiv 2103.10584): latency and energy of six devices on each dataset. HELP (Lee et
al. 2021, NeurIPS, arXiv 2106.08630): latency in milliseconds of GPUs at batches of 1, 32 and 256 images, CPUs and
phones. A third set has a Raspberry Pi 5 and a Pixel under several runtimes, of the networks for CIFAR-100.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from parsec.errors import UserError, unknown
from parsec.files import read_npz

DEVICES = "nasbench201_hw.npz"
# The last part of a name in the third set, and what it is called here.
_MEASURES = {"lat_ms_median": "latency", "energy_mj": "energy"}


def load_device_costs(path: Path, dataset: str, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns columns of device costs, float64 [15625] each, in NAS-Bench-201's order.

    Args:
      path: the .npz, with `hwnasbench` [datasets, N, columns], `help_latency_ms` [N, columns] and `edge2025_cifar100`
        [N, columns], and the names of these in `hwnasbench_datasets`, `hwnasbench_cols`, `help_cols` and
        `edge2025_cols`.
      dataset: which numbers of HW-NAS-Bench; the others do not depend on it.
      wanted: names such as `edgegpu_latency`, `edgegpu_energy`, `gold_6226_latency` or `pi5_onnx_energy`.

    Returns:
      The columns by name; NaN where the file says -1: the device does not run that architecture.

    Raises:
      UserError: the file cannot be read or is no such table, or has no such cost (naming the nearest).
    """
    arrays = read_npz(path)
    try:
        columns = _named(arrays, dataset)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no table of device costs: {type(error).__name__} {error}") from None
    for name in wanted:
        if name not in columns:
            raise unknown("device cost", name, columns)
    found = {name: columns[name].astype(np.float64) for name in wanted}
    return {name: np.where(column == -1, np.nan, column) for name, column in found.items()}


def _named(arrays: Mapping[str, np.ndarray], dataset: str) -> dict[str, np.ndarray]:
    def labels(name: str) -> list[str]:
        return arrays[name].astype(str).tolist()

    first = arrays["hwnasbench"][labels("hwnasbench_datasets").index(dataset)]
    columns = dict(zip(labels("hwnasbench_cols"), first.T, strict=True))
    for label, column in zip(labels("help_cols"), arrays["help_latency_ms"].T, strict=True):
        columns[f"{label}_latency"] = column
    for label, column in zip(labels("edge2025_cols"), arrays["edge2025_cifar100"].T, strict=True):
        *device, measure = label.split(":")
        columns["_".join((*device, _MEASURES.get(measure, measure)))] = column
    return columns
