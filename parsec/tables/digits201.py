"""The table that comes with the package: NAS-Bench-201's cells, trained on scikit-learn's digits.

`configs/digits201_table.py` made it and says how; docs/results/digits201_table.md says what it holds.
"""

from dataclasses import replace
from pathlib import Path

from parsec.tables.table import Table, load_table

FILE = Path(__file__).with_name("digits201.npz")


def load_digits201() -> Table:
    """Returns the table of all 15,625 cells, 6 choices of 5 operations.

    Returns:
      Its columns: `valid` and `test`, accuracies in percent, means over three seeds, with `valid_0` .. `valid_2` and
      `test_0` .. `test_2`; `loss` and `loss_0` .. `loss_2`, the cross-entropy of the last epoch in nats; `params` and
      `flops` of the network; `seconds` that a cell's runs took on one processor; and `representative`, the row of the
      cell that was trained (6,466 were; cells that are the same network share a row's figures).

    Raises:
      UserError: the file inside the package is damaged.
    """
    return replace(load_table(FILE), name="digits201")
