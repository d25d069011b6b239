"""Fronts of accuracy and size on the NAS-Bench-201 table: every strategy of several objectives, many seeds.

Command: python main.py --config=nb201_pareto --config.data_dir=DIR

DIR holds nasbench201.npz (docs/strategies.md describes it). Strategies are told the test accuracy after 200 epochs and
the decimal logarithm of the parameters of every cell that they ask for, and judged by the hypervolume above the
reference point (0 %, 10^8 parameters). The exact one is 292.851 for cifar10, and 224.520 and 140.870 for
`--config.dataset=cifar100` and ImageNet16-120. `--config.objectives=valid_200,-params_m` takes other columns,
`--config.constraints=params<500000` leaves out what is too large; `--config.costs=edgegpu_latency
--config.objectives=test_200,-edgegpu_latency` takes a device's cost from nasbench201_hw.npz beside the table. Result:
table.md, hypervolume.png, attained.png, front.md with the genotypes found, and result.json in the run directory. Time:
some five minutes on 2 cores, most of it for MS-EHVI, TSEMO and LaNAS. The variant `epochs` compares strategies that
choose between trainings of 12 and 200 epochs (mo_bohb, sh_emoa, sh_mo_bananas) with those that train every cell for
200, at equal epochs: 200 queries are 40,000 of them, however they are spent.
"""

from parsec.errors import unknown
from parsec.search.registry import names
from parsec.settings.pareto import ParetoConfig

VARIANTS = ("", "epochs")


def get_config(variant: str = "") -> ParetoConfig:
    """Returns the search for fronts on NAS-Bench-201, or one of `VARIANTS`."""
    if variant == "":
        return ParetoConfig(benchmark="nasbench201")
    if variant == "epochs":
        choosing = names(many=True, multi_fidelity=True)
        return ParetoConfig(benchmark="nasbench201", strategies=("random", "emoa", "mo_bananas", *choosing), budget=200)
    raise unknown("variant of nb201_pareto", variant, VARIANTS)
