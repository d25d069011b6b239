"""Every strategy on a table of your own.

Command: python main.py --config=table_compare --config.table=FILE.npz --config.objective=COLUMN

FILE.npz holds `sizes` [L], `architectures` [N, L] and any number of columns [N]; docs/strategies.md makes one. COLUMN
is maximised, -COLUMN minimised, and a score that is not finite is a failed evaluation. `--config.report=OTHER` judges
by another column. Result: table.md, regret.png, curves.npz and result.json in the run directory; a table of a few
thousand architectures takes about two minutes on 2 cores, most of it compilation, and less the next time.
"""

from parsec.errors import unknown
from parsec.settings.compare import CompareConfig


def get_config(variant: str = "") -> CompareConfig:
    """Returns the comparison of all strategies on the file named by `config.table`."""
    if variant:
        raise unknown("variant of table_compare", variant, ("",))
    return CompareConfig(benchmark="table", objective="score", budget=100)
