"""Every strategy on NAS-Bench-101 cells, on a surrogate of the whole space of at most six vertices.

Command: python main.py --config=nb101_compare --config.data_dir=DIR

DIR holds nasbench101_sample30k.npz, 30,001 really trained cells, to which a SURROGATE of all 64,542 is fitted the
first time (about two minutes, then kept in the user's cache folder). What strategies find here are predictions, not
trainings; the surrogate's rank correlation with cells it was not fitted to is in docs/results/nb101_compare.md.
Variants, all on the same encoding:
  seven        the surrogate of all 423,624 cells of at most seven vertices
  five         all 2,532 cells of at most five vertices, really trained for 4 epochs (ecnas_5v_4epochs.npz)
  sample       only the 30,001 trained cells, validation accuracy after 108 epochs
  official     the benchmark's nasbench_only108.tfrecord, searched on validation and reported on test accuracy
Time: some minutes on 2 cores for the default, most of it for the strategies that fit models on the host.
"""

from parsec.errors import unknown
from parsec.settings.compare import CompareConfig

VARIANTS = ("", "seven", "five", "sample", "official")


def get_config(variant: str = "") -> CompareConfig:
    """Returns the comparison on the surrogate of six vertices, or one of `VARIANTS`."""
    if variant == "":
        return _config("surrogate", 6, "surrogate_valid_108")
    if variant == "seven":
        return _config("surrogate", 7, "surrogate_valid_108")
    if variant == "five":
        return _config("five_vertices", 5, "valid_4", "test_4")
    if variant == "sample":
        return _config("sample", 7, "valid_108")
    if variant == "official":
        return _config("official", 7, "valid_108", "test_108")
    raise unknown("variant of nb101_compare", variant, VARIANTS)


def _config(dataset: str, max_vertices: int, objective: str, report: str = "") -> CompareConfig:
    return CompareConfig(
        benchmark="nasbench101", dataset=dataset, max_vertices=max_vertices, objective=objective, report=report
    )
