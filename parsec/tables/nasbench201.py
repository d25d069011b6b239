"""NAS-Bench-201's table, read from an .npz of its numbers (Dong and Yang, ICLR 2020, arXiv 2001.00326)."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from parsec.errors import UserError, unknown
from parsec.files import read_npz
from parsec.tables.table import Table, make_table

NASBENCH201_DATASETS = ("cifar10", "cifar100", "ImageNet16-120")


def load_nasbench201(path: Path, dataset: str) -> Table:
    """Returns NAS-Bench-201's table for one dataset, 15,625 architectures of 6 choices of 5 operations.

    Args:
      path: the .npz, with `ops`, `valid_acc_200`, `test_acc_200`, `acc_12`, `flops_m`, `params_m` and the `_cols`
        arrays that name their columns.
      dataset: one of `NASBENCH201_DATASETS`.

    Returns:
      The table with accuracies in percent, `valid_12` and `valid_200` (after 12 and 200 epochs; for cifar10 on its
      validation half, trained on the other), `test_200`, by which it ranks, and `test_12` where the file has it; the
      costs `flops_m` and `params_m` in millions; and `params`, the parameters with a classifier of ten classes whatever
      the dataset, so that they depend on the cell alone.

    Raises:
      UserError: if the file cannot be read or is no such table, or for an unknown dataset.
    """
    if dataset not in NASBENCH201_DATASETS:
        raise unknown("dataset", dataset, NASBENCH201_DATASETS)
    arrays = read_npz(path)
    valid = "cifar10-valid" if dataset == "cifar10" else dataset
    wanted = {
        "valid_12": ("acc_12", "acc_12_cols", f"{valid}:valid"),
        "test_12": ("acc_12", "acc_12_cols", f"{dataset}:test"),
        "valid_200": ("valid_acc_200", "valid_acc_200_cols", valid),
        "test_200": ("test_acc_200", "test_acc_200_cols", dataset),
        "flops_m": ("flops_m", "cost_cols", dataset),
        "params_m": ("params_m", "cost_cols", dataset),
        "params": ("params_m", "cost_cols", "cifar10"),
    }
    columns = {}
    for column, (values, names, name) in wanted.items():
        if values not in arrays or names not in arrays or "ops" not in arrays:
            raise UserError(f"{path} is not a NAS-Bench-201 table; it has no array {values!r}, {names!r} or 'ops'")
        labels = arrays[names].astype(str).tolist()
        if column == "test_12" and name not in labels:
            continue
        if name not in labels or arrays[values].ndim != 2:
            raise UserError(f"{values} of {path} has no column {name!r}; its columns are {', '.join(labels)}")
        columns[column] = arrays[values][:, labels.index(name)].astype(np.float64)
    columns["params"] = np.round(1e6 * columns["params"])
    table = make_table(f"nasbench201-{dataset}", np.full(6, 5), arrays["ops"], columns)
    if not table.complete:
        raise UserError(f"{path} holds {len(table)} architectures; NAS-Bench-201 has 15625")
    return replace(table, ranked_by="test_200")
