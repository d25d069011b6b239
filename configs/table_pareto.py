"""Fronts of several columns of a table of your own.

Command: python main.py --config=table_pareto --config.table=FILE.npz --config.objectives=COLUMN,-OTHER

FILE.npz holds `sizes` [L], `architectures` [N, L] and any number of columns [N]; docs/strategies.md makes one. COLUMN
is maximised, -OTHER minimised, log10_COLUMN is a logarithm; two objectives or more. The reference point of the
hypervolume is the worst number of each column unless `--config.reference=R,S` gives one, in the order of the
objectives. `--config.constraints=OTHER<NUMBER` leaves out what is too large. `--config.space=nasbench201` names the
architectures by genotypes, if they are of that space. Result: table.md, hypervolume.png, attained.png, front.md and
result.json in the run directory; some minutes on 2 cores.
"""

from parsec.errors import unknown
from parsec.settings.pareto import ParetoConfig


def get_config(variant: str = "") -> ParetoConfig:
    """Returns the search for fronts on the file named by `config.table`."""
    if variant:
        raise unknown("variant of table_pareto", variant, ("",))
    return ParetoConfig(benchmark="table", objectives=("score", "-params"), budget=100)
