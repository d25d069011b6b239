"""Measures LaNAS and LA-MCTS on published tables: queries to the optimum, and seconds for a thousand evaluations.

    python -m benchmarks.lanas --data_dir=DIR [--tables=nb201_cifar10,...] [--seeds=100] [--budget=4000] [--workers=2]
        [--only=lanas,...] [--timed_seeds=100] [--out=FILE.json]

DIR holds nasbench201.npz, and nasbench101_sample30k.npz for the NAS-Bench-101 table, whose scores are a surrogate's. A
query is the first evaluation of an architecture; a run stops at the table's best one, or counts as `budget` if it never
meets it. Uniform search without repeats needs (N + 1) / 2 queries in the mean, which is what the ratio refers to.
"""

import argparse
import functools
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from parsec.cells.domain import Domain
from parsec.errors import unknown
from parsec.search.registry import make_strategy
from parsec.tables.nasbench101 import load_nasbench101
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, table_domain

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "lanas": ("lanas", {}),
    "lanas_uniform": ("lanas", {"proposal": "uniform"}),
    "lanas_linear": ("lanas", {"features": "linear"}),
    "lanas_score": ("lanas", {"target": "score"}),
    "lanas_released": ("lanas", {"preset": "released"}),
    "lanas_paper": ("lanas", {"preset": "paper"}),
    "la_mcts": ("la_mcts", {}),
    "la_mcts_uniform": ("la_mcts", {"proposal": "uniform"}),
}
# The column that is searched, by table.
TABLES = {
    "nb201_cifar10": "valid_200",
    "nb201_cifar100": "valid_200",
    "nb201_ImageNet16-120": "valid_200",
    "nb101_surrogate6": "surrogate_valid_108",
}


def load(folder: Path, name: str) -> tuple[Table, Domain]:
    """Returns a table of `TABLES` and its domain."""
    if name.startswith("nb101"):
        return load_nasbench101("surrogate", folder, int(name[-1]))
    table = load_nasbench201(folder / "nasbench201.npz", name.removeprefix("nb201_"))
    return table, table_domain(table)


@functools.lru_cache(maxsize=2)
def _prepared(folder: Path, table_name: str, strategy_name: str):
    table, domain = load(folder, table_name)
    name, options = STRATEGIES[strategy_name]
    scores = table.objective(TABLES[table_name]).astype(np.float32)
    row_of = {row.tobytes(): at for at, row in enumerate(np.ascontiguousarray(table.architectures, np.int32))}
    return make_strategy(name, domain, options), scores, row_of


def one_run(folder: Path, table: str, strategy: str, budget: int, stop: bool, seed: int) -> tuple[int, int, float]:
    """Returns queries to the optimum (-1 if it was not met), queries made, and processor seconds, of one run."""
    ours, scores, row_of = _prepared(folder, table, strategy)
    best, seen, found = np.nanmax(scores), set(), -1
    started = time.process_time()
    keys = jax.random.split(jax.random.key(seed), budget + 1)
    state = ours.init(keys[budget])
    for at in range(budget):
        asked, state = ours.ask(keys[at], state)
        rows = [row_of[row.tobytes()] for row in np.asarray(asked, np.int32)]
        seen |= set(rows)
        state, _ = ours.tell(state, asked, scores[rows][:, None])
        if found < 0 and scores[rows].max() >= best:
            found = len(seen)
            if stop:
                break
    return found, len(seen), time.process_time() - started


def measure(arguments: argparse.Namespace, table: str, strategy: str, workers: ProcessPoolExecutor) -> dict[str, Any]:
    """Returns the figures of one strategy on one table."""
    run = functools.partial(one_run, arguments.data_dir, table, strategy, arguments.budget, True)
    runs = list(workers.map(run, range(arguments.first_seed, arguments.first_seed + arguments.seeds)))
    queries = np.array([found if found > 0 else arguments.budget for found, _, _ in runs])
    size = len(load(arguments.data_dir, table)[0])
    return {
        "architectures": size,
        "seeds": len(runs),
        "reached": int(sum(found > 0 for found, _, _ in runs)),
        "mean": float(queries.mean()),
        "standard_error": float(queries.std(ddof=1) / np.sqrt(len(runs))) if len(runs) > 1 else 0.0,
        "quartiles": np.quantile(queries, [0.25, 0.5, 0.75]).tolist(),
        "largest": int(queries.max()),
        "random_mean": (size + 1) / 2,
        "times_fewer_than_random": float((size + 1) / 2 / queries.mean()),
    }


def main() -> None:
    """Prints a table of figures and writes them as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--tables", default="nb201_cifar10")
    parser.add_argument("--only", default=",".join(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--budget", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timed_seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("lanas.json"))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    print(
        f"{'table':22}{'strategy':18}{'reached':>9}{'mean':>9}{'+-':>7}{'median':>8}{'largest':>9}{'random/mean':>13}"
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as workers:
        for table in arguments.tables.split(","):
            if table not in TABLES:
                raise unknown("table", table, TABLES)
            for strategy in arguments.only.split(","):
                if strategy not in STRATEGIES:
                    raise unknown("strategy", strategy, STRATEGIES)
                row = measure(arguments, table, strategy, workers)
                figures[f"{table}/{strategy}"] = row
                print(
                    f"{table:22}{strategy:18}{row['reached']:>5}/{row['seeds']:<3}{row['mean']:>9.1f}"
                    f"{row['standard_error']:>7.1f}{row['quartiles'][1]:>8.0f}{row['largest']:>9}"
                    f"{row['times_fewer_than_random']:>13.1f}",
                    flush=True,
                )
        if arguments.timed_seeds:
            # Two short runs first, so that every worker has compiled and loaded what it needs.
            folder, table = arguments.data_dir, arguments.tables.split(",")[0]
            list(
                workers.map(functools.partial(one_run, folder, table, "lanas", 30, False), range(2 * arguments.workers))
            )
            started = time.perf_counter()
            run = functools.partial(one_run, folder, table, "lanas", 1000, False)
            runs = list(workers.map(run, range(arguments.timed_seeds)))
            seconds = np.array([spent for _, _, spent in runs])
            figures["thousand_evaluations"] = {
                "table": table,
                "seeds": arguments.timed_seeds,
                "workers": arguments.workers,
                "processor_seconds_per_seed": seconds.tolist(),
                "wall_seconds": time.perf_counter() - started,
            }
            print(
                f"1,000 evaluations by lanas on {table}: {seconds.mean():.1f} processor seconds a seed; "
                f"{arguments.timed_seeds} seeds on {arguments.workers} workers in "
                f"{figures['thousand_evaluations']['wall_seconds']:.1f} s"
            )
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
