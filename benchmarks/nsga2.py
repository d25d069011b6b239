"""NSGA-II of pymoo on the tables of the Pareto configs: an independent check of what a front costs to find.

    python -m benchmarks.nsga2 [--config=nb201_pareto] [--data_dir=DIR] [--seeds=20] [--budget=500] [--population=20]

Deb, Pratap, Agarwal and Meyarivan 2002, IEEE Transactions on Evolutionary Computation 6, 182-197, as pymoo has it
(Blank and Deb 2020), for integers: simulated binary crossover and polynomial mutation, rounded, duplicates left out. A
query is the first evaluation of an architecture, as in the comparisons; it needs the extra `bench`.
"""

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from parsec.command.config_files import load_config
from parsec.errors import UserError
from parsec.jobs.tables.pareto import load_problem
from parsec.report.comparison import spread
from parsec.report.pareto import CHECKPOINTS, hypervolume, hypervolume_curves
from parsec.tables.table import Table


def one_run(table: Table, scaled: np.ndarray, budget: int, population: int, seed: int) -> np.ndarray:
    """Returns the rows of the first `budget` architectures that NSGA-II evaluated, int32 [budget].

    A run that only repeats itself ends after ten proposals for each query of its budget; -1 stands after its end.

    Args:
      table: complete; of the architectures.
      scaled: the objectives, higher is better, float64 [N, M].
      budget: queries.
      population: members, and as many children of each generation.
      seed: of pymoo's generator.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2  # pyright: ignore[reportMissingImports]
    from pymoo.core.problem import Problem  # pyright: ignore[reportMissingImports]
    from pymoo.operators.crossover.sbx import SBX  # pyright: ignore[reportMissingImports]
    from pymoo.operators.mutation.pm import PM  # pyright: ignore[reportMissingImports]
    from pymoo.operators.repair.rounding import RoundingRepair  # pyright: ignore[reportMissingImports]
    from pymoo.operators.sampling.rnd import IntegerRandomSampling  # pyright: ignore[reportMissingImports]

    charged: dict[int, None] = {}
    sizes = np.array(table.sizes)

    class Lookup(Problem):
        def __init__(self) -> None:
            super().__init__(n_var=len(sizes), n_obj=scaled.shape[1], xl=np.zeros(len(sizes)), xu=sizes - 1, vtype=int)

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            rows = table.find(np.asarray(x, np.int32))
            charged.update(dict.fromkeys(rows.tolist()))
            out["F"] = -scaled[rows]

    algorithm = NSGA2(
        pop_size=population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0, eta=3, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    algorithm.setup(Lookup(), seed=seed, verbose=False)
    for _ in range(10 * budget // population):
        if len(charged) >= budget or not algorithm.has_next():
            break
        algorithm.next()
    rows = np.full(budget, -1, np.int32)
    rows[: len(charged)] = list(charged)[:budget]
    return rows


def main() -> None:
    """Prints the fraction of the exact hypervolume after some numbers of queries."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="nb201_pareto")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--population", type=int, default=20)
    arguments = parser.parse_args()
    problem = load_problem(replace(load_config(arguments.config).config, data_dir=arguments.data_dir))
    table, objectives = problem.table, problem.objectives
    if not table.complete:
        raise UserError(f"table {table.name} does not hold every combination of options, which NSGA-II proposes")
    runs = [
        one_run(table, objectives.scaled, arguments.budget, arguments.population, seed)
        for seed in range(arguments.seeds)
    ]
    curves = hypervolume_curves(np.stack(runs), objectives.gains) / hypervolume(objectives.gains)
    for queries in [each for each in CHECKPOINTS if each < arguments.budget] + [arguments.budget]:
        found = spread(100 * curves[:, queries - 1])
        print(f"after {queries} queries {found['mean']:.2f} ± {found['deviation'] or 0:.2f} % of the exact hypervolume")


if __name__ == "__main__":
    main()
