"""Fronts of accuracy and size on the table that comes with the package: NAS-Bench-201's cells, trained on the digits.

Command: python main.py --config=digits201_pareto

No download. Strategies are told the test accuracy, a mean over three training runs, and the decimal logarithm of the
parameters; the reference point is (0 %, 10^8 parameters). On this table one cell is best in both, so that the front is
a single point; `--config.objectives=test,-seconds --config.reference=0,1` has a front of three.
`--config.constraints=params<40000` leaves out what is too large. Result: table.md, hypervolume.png, attained.png,
front.md with the genotypes found, and result.json in the run directory. Time: some five minutes on 2 cores, most of it
for MS-EHVI, TSEMO and LaNAS.
"""

from parsec.errors import unknown
from parsec.settings.pareto import ParetoConfig


def get_config(variant: str = "") -> ParetoConfig:
    """Returns the search for fronts on the digits' table."""
    if variant:
        raise unknown("variant of digits201_pareto", variant, ("",))
    return ParetoConfig(benchmark="digits201", dataset="digits", objectives=("test", "-log10_params"))
