"""Fronts of accuracy and training energy on NAS-Bench-101 cells, measured by EC-NAS: many seeds of every strategy.

Command: python main.py --config=nb101_pareto --config.data_dir=DIR

DIR holds ecnas_5v_4epochs.npz: all 2,532 cells of at most five vertices, really trained for 4 epochs on CIFAR-10, and
the energy that each training took, in kWh. Strategies are told the validation accuracy and the energy of every cell
that they ask for, and judged by the hypervolume above the reference point (0 %, 0.1 kWh), of which the table, being
complete, has the exact one: 7.207873, a front of 13 cells. `--config.objectives=test_4,-energy_kwh_4,-params` takes
other columns, `--config.constraints=params<5000000` leaves out what is too large; energy is only known once a cell has
been trained, so that it is no constraint. Variants, all on the same encoding:
  sample       30,001 cells trained once for 108 epochs: validation accuracy and parameters (nasbench101_sample30k.npz)
  official     the benchmark's nasbench_only108.tfrecord: test accuracy and parameters
Result: table.md, hypervolume.png, attained.png, front.md with the cells found, and result.json in the run directory.
"""

from parsec.errors import unknown
from parsec.search.registry import names
from parsec.settings.pareto import ParetoConfig

VARIANTS = ("", "sample", "official")


def get_config(variant: str = "") -> ParetoConfig:
    """Returns the search for fronts on the cells of five vertices, or one of `VARIANTS`."""
    if variant == "":
        return _config("five_vertices", 5, ("valid_4", "-energy_kwh_4"))
    if variant == "sample":
        return _config("sample", 7, ("valid_108", "-log10_params"))
    if variant == "official":
        return _config("official", 7, ("test_108", "-log10_params"))
    raise unknown("variant of nb101_pareto", variant, VARIANTS)


def _config(dataset: str, max_vertices: int, objectives: tuple[str, ...]) -> ParetoConfig:
    choosing = names(many=True, multi_fidelity=True) if dataset != "official" else ()
    return ParetoConfig(
        benchmark="nasbench101",
        dataset=dataset,
        max_vertices=max_vertices,
        objectives=objectives,
        strategies=("random", *names(many=True), *choosing),
    )
