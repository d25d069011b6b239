"""Every strategy on the table that comes with the package: NAS-Bench-201's cells, really trained on the digits.

Command: python main.py --config=digits201_compare

No download. Strategies are told the validation accuracy and judged by the test accuracy, both means over three training
runs. Result: table.md, regret.png, curves.npz and result.json in the run directory. `--config.objective=valid_0` tells
them one run's accuracy instead, noise included. Time: about five minutes on 2 cores.
"""

from parsec.errors import unknown
from parsec.settings.compare import CompareConfig


def get_config(variant: str = "") -> CompareConfig:
    """Returns the comparison of all strategies on the digits' table."""
    if variant:
        raise unknown("variant of digits201_compare", variant, ("",))
    return CompareConfig(benchmark="digits201", dataset="digits", objective="valid", report="test")
