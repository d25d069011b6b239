"""Every strategy on the NAS-Bench-201 table, at one budget and over many seeds.

Command: python main.py --config=nb201_compare --config.data_dir=DIR

DIR holds nasbench201.npz (docs/strategies.md describes it). Strategies are told the validation accuracy after 200
epochs (`--config.objective=valid_12`: after 12, the protocol of the published rows) and judged by the test accuracy
after 200. Result: table.md, regret.png, curves.npz and result.json in the run directory. Expected on cifar10 with 20
seeds: random search at 94.0, regularized evolution at 94.3, local search and the predictor at 94.37, the optimum.
`:published` is the published protocol: 12-epoch validation, every proposal charged, 300 seeds of the three baselines.
Time: about three minutes on 2 cores; `:published` one.
"""

from dataclasses import replace

from parsec.errors import unknown
from parsec.settings.compare import CompareConfig


def get_config(variant: str = "") -> CompareConfig:
    """Returns the comparison of all strategies, or `published`."""
    full = CompareConfig(benchmark="nasbench201", objective="valid_200", report="test_200")
    if variant == "":
        return full
    if variant == "published":
        baselines = ("random", "regularized_evolution", "reinforce")
        return replace(full, objective="valid_12", count="all", seeds=300, strategies=baselines)
    raise unknown("variant of nb201_compare", variant, ("", "published"))
