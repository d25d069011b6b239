"""Measures how long LaNAS takes for a thousand evaluations of NAS-Bench-201.

    python -m benchmarks.lanas --data_dir=DIR [--seeds=100] [--evaluations=1000] [--workers=2] [--out=FILE.json]

DIR holds nasbench201.npz. How many queries it needs, with and without its parts, is `benchmarks.ablations`.
"""

import argparse
import functools
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np

from parsec.search.registry import make_strategy
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import table_domain


@functools.lru_cache(maxsize=1)
def _prepared(folder: Path):
    table = load_nasbench201(folder / "nasbench201.npz", "cifar10")
    return make_strategy("lanas", table_domain(table)), table, table.objective("valid_200").astype(np.float32)


def one_run(folder: Path, evaluations: int, seed: int) -> float:
    """Returns the processor seconds of one run of so many evaluations."""
    strategy, table, scores = _prepared(folder)
    started = time.process_time()
    keys = jax.random.split(jax.random.key(seed), evaluations + 1)
    state = strategy.init(keys[evaluations])
    for at in range(evaluations):
        asked, state = strategy.ask(keys[at], state)
        state, _ = strategy.tell(state, asked, scores[table.find(np.asarray(asked))][:, None])
    return time.process_time() - started


def main() -> None:
    """Prints the seconds and writes them as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("lanas.json"))
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as workers:
        # Two short runs first, so that every worker has compiled and loaded what it needs.
        list(workers.map(functools.partial(one_run, arguments.data_dir, 30), range(2 * arguments.workers)))
        started = time.perf_counter()
        run = functools.partial(one_run, arguments.data_dir, arguments.evaluations)
        seconds = list(workers.map(run, range(arguments.seeds)))
        wall = time.perf_counter() - started
    figures = {"seeds": arguments.seeds, "evaluations": arguments.evaluations, "workers": arguments.workers}
    arguments.out.write_text(json.dumps({**figures, "processor_seconds": seconds, "wall_seconds": wall}) + "\n")
    print(
        f"{arguments.evaluations} evaluations by lanas: {np.mean(seconds):.1f} processor seconds a seed; "
        f"{arguments.seeds} seeds on {arguments.workers} workers in {wall:.1f} s"
    )


if __name__ == "__main__":
    main()
