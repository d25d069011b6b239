"""Measures what workers gain: in simulated time on NAS-Bench-201, or by the clock with trainings on this machine.

    python -m benchmarks.workers simulated --data_dir=DIR [--strategies=alphax,lanas,regularized_evolution]
        [--workers=1,4,16,64] [--seeds=100] [--budget=200] [--deviation=0.5] [--out=FILE.json]
    python -m benchmarks.workers trainings [--workers=0,1,2] [--children=16] [--steps=200] [--cluster=]
        [--out=FILE.json]

`simulated` plays the loop of every search (`parsec.run.play`) with a pool whose clock is simulated: nothing sleeps. How
long an evaluation takes is drawn once for each seed and cell, log-normally with median 1 and the given deviation of its
logarithm, whatever the cell is. A strategy that waits asks for as many at once as there are workers (`batch`); one that
does not is asked again whenever a worker is free (`asynchronous`). DIR holds nasbench201.npz; searched is validation
accuracy on CIFAR-10, and told is the test accuracy of the best by that. FILE.json keeps every run; what it already
holds is not measured again.

`trainings` trains the same random DARTS cells on the digits in worker processes, each with its share of the cores and
one cell at a time, once all have begun; 0 workers are this process by itself, which trains as many cells side by side
as it has devices.
"""

import argparse
import heapq
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from configs.digits_search import get_config
from parsec.cells import get_space
from parsec.command.launch import prepare_process
from parsec.evaluate.contract import Evaluator, no_pause, nothing_evaluated
from parsec.evaluate.registry import EVALUATORS
from parsec.evaluate.table import table_evaluator
from parsec.run.cluster import cluster_workers
from parsec.run.ledger import Ledger, Rule
from parsec.run.play import play
from parsec.run.worker import Make
from parsec.run.workers import local_workers, open_workers
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table, table_domain

OBJECTIVE, REPORT = "valid_200", "test_200"
MODES = ("waits", "asynchronous")


class SimulatedPool(Executor):
    """Workers whose evaluations take a given time, by a clock that `advance` moves to the next end of one.

    Attributes:
      now: simulated time.
      ends: when each evaluation ended, in the order of their ends.
    """

    def __init__(self, workers: int, duration: Callable[[np.ndarray], float]) -> None:
        """Takes the number of workers and how long an architecture int32 [L] takes."""
        self.now = 0.0
        self.ends: list[float] = []
        self._duration = duration
        self._free = [0.0] * workers
        self._busy: list[tuple[float, int, Future[Any], Callable[[], Any]]] = []
        self._begun = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begins an evaluation now, or as soon as a worker is free."""
        future: Future[Any] = Future()
        end = max(heapq.heappop(self._free), self.now) + self._duration(args[0][0])
        heapq.heappush(self._free, end)
        heapq.heappush(self._busy, (end, self._begun, future, lambda: fn(*args, **kwargs)))
        self._begun += 1
        return future

    def advance(self) -> None:
        """Moves the clock to the next end of an evaluation."""
        self.now, _, future, call = heapq.heappop(self._busy)
        self.ends.append(self.now)
        future.set_result(call())

    def finish(self) -> None:
        """Moves the clock to the end of all that was begun."""
        while self._busy:
            self.advance()


class Run(NamedTuple):
    """One run.

    Attributes:
      time: simulated, of all evaluations.
      test: test accuracy of the cell with the best validation accuracy.
      queries: how many had been asked for with the best cell of the table, -1 where it was not found.
      found: simulated time when the best cell's evaluation ended, -1 likewise.
    """

    time: float
    test: float
    queries: int
    found: float


def one_run(
    strategy: Strategy, table: Table, workers: int, under_way: int, budget: int, seed: int, deviation: float
) -> Run:
    """Returns a run of a strategy with simulated workers; `under_way` is that of `play`."""
    durations = np.exp(deviation * np.random.default_rng(seed).normal(size=len(table)))
    evaluator, objective = table_evaluator(table, (OBJECTIVE,)), table.objective(OBJECTIVE)
    ended: dict[int, float] = {}

    def evaluate(architectures: np.ndarray, *others: Any) -> np.ndarray:
        ended[int(table.find(architectures)[0])] = pool.now
        return evaluator.evaluate(architectures, *others)

    pool = SimulatedPool(workers, lambda architecture: float(durations[table.find(architecture[None])[0]]))
    ledger = Ledger(Rule(budget), table_domain(table), evaluator.rows, 1, "simulated")
    timed = evaluator._replace(evaluate=evaluate)
    # All of a batch ends before more is asked for.
    pause = pool.finish if under_way == 1 else pool.advance
    play(strategy, timed, ledger, jax.random.key(seed), pause=pause, pool=pool, under_way=under_way)
    rows = np.array(ledger.charged)
    best = rows[int(objective[rows].argmax())]
    optimum = int(objective.argmax())
    queries = int(np.flatnonzero(rows == optimum)[0]) + 1 if optimum in rows else -1
    test = float(table.columns[REPORT][best])
    return Run(round(pool.now, 6), test, queries, round(ended.get(optimum, -1.0), 6))


def simulate(arguments: argparse.Namespace) -> None:
    """Prints a row for each strategy, mode and number of workers, and keeps every run."""
    table = load_nasbench201(arguments.data_dir / "nasbench201.npz", "cifar10")
    domain = table_domain(table)
    kept: dict[str, dict[str, list[float]]] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    numbers = [int(text) for text in arguments.workers.split(",")]
    print(
        "| strategy | workers | | seeds | speed-up | test accuracy | optimum found | median queries to it | its time |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.strategies.split(","):
        alone: dict[str, list[float]] = {}
        for workers in numbers:
            for mode in MODES if workers > 1 else MODES[:1]:
                batch, under_way = (workers, 1) if mode == "waits" else (1, workers)
                made = make_strategy(name, domain, {"batch": batch})
                runs = kept.setdefault(f"{name}/{workers}/{mode}/{arguments.budget}/{arguments.deviation}", {})
                wanted = [str(seed) for seed in range(arguments.seeds)]
                began = time.perf_counter()
                missing = [seed for seed in wanted if seed not in runs]
                for seed in missing:
                    run = one_run(made, table, workers, under_way, arguments.budget, int(seed), arguments.deviation)
                    runs[seed] = list(run)
                arguments.out.write_text(json.dumps(kept) + "\n")
                alone = alone or runs
                spent = (time.perf_counter() - began) / max(len(missing), 1)
                print(f"{row(name, workers, mode, wanted, runs, alone)} {spent:.2f} s a seed", flush=True)


def row(
    name: str,
    workers: int,
    mode: str,
    seeds: list[str],
    runs: dict[str, list[float]],
    alone: dict[str, list[float]],
) -> str:
    """Returns a row of a Markdown table: means and deviations over seeds, beside the runs of a single worker.

    A median or a time that less than half of the runs have is left out.
    """
    found = [Run(*runs[seed]) for seed in seeds]  # pyright: ignore[reportArgumentType]
    speedup = np.array([alone[seed][0] / runs[seed][0] for seed in seeds])
    test = np.array([run.test for run in found])
    queries, times = (
        np.array([run_value if run.queries > 0 else np.inf for run, run_value in zip(found, values, strict=True)])
        for values in ([run.queries for run in found], [run.found for run in found])
    )
    median, clock = (f"{value:.4g}" if np.isfinite(value) else "-" for value in (np.median(queries), np.median(times)))
    shown = mode if workers > 1 else ""
    return (
        f"| {name} | {workers} | {shown} | {len(seeds)} | {speedup.mean():.2f} ± {speedup.std():.2f} | "
        f"{test.mean():.3f} ± {test.std():.3f} | {np.isfinite(queries).sum()} | {median} | {clock} |"
    )


def train(arguments: argparse.Namespace) -> None:
    """Prints how long the trainings take in so many processes, and keeps the seconds."""
    config = get_config("")
    config = replace(config, strategy=replace(config.strategy, steps=arguments.steps))
    space = get_space(config.space)
    rng = np.random.default_rng(0)
    children = rng.integers(0, space.sizes, (arguments.children, len(space.sizes))).astype(np.int32)
    figures: dict[str, float] = {}
    scores: list[np.ndarray] = []
    for count in map(int, arguments.workers.split(",")):
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            make = EVALUATORS["train"].factory(config, Path(folder))
            evaluate = shared_out(make, count, arguments.cluster, stack) if count else in_turn(make())
            # Each begins, and trains once, before the clock does.
            evaluate(children[: count or 1])
            began = time.perf_counter()
            scores.append(evaluate(children))
            figures[str(count)] = time.perf_counter() - began
        alike = all(np.array_equal(each, scores[0], equal_nan=True) for each in scores)
        who = f"{count} workers" if count else "this process"
        print(f"{who}: {figures[str(count)]:.1f} s for {len(children)} trainings; same scores: {alike}")
    arguments.out.write_text(json.dumps({"steps": arguments.steps, "seconds": figures}) + "\n")


def in_turn(evaluator: Evaluator) -> Callable[[np.ndarray], np.ndarray]:
    """Returns `evaluate(architectures) -> scores` by this process, as many at a time as the evaluator does together."""
    nothing = nothing_evaluated(evaluator)

    def evaluate(architectures: np.ndarray) -> np.ndarray:
        each = range(0, len(architectures), evaluator.together)
        parts = [architectures[at : at + evaluator.together] for at in each]
        return np.concatenate([evaluator.evaluate(part, nothing, no_pause) for part in parts])

    return evaluate


def shared_out(make: Make, count: int, cluster: str, stack: ExitStack) -> Callable[[np.ndarray], np.ndarray]:
    """Returns `evaluate(architectures) -> scores` by so many workers, one at a time each; they end with the stack."""
    hire = stack.enter_context(cluster_workers(cluster, make, count)) if cluster else local_workers(make, count)
    workers = stack.enter_context(open_workers(hire, count))
    nothing = nothing_evaluated(workers.evaluator)

    def evaluate(architectures: np.ndarray) -> np.ndarray:
        run = workers.evaluator.evaluate
        begun = [workers.pool.submit(run, each[None], nothing, no_pause) for each in architectures]
        return np.concatenate([each.result() for each in begun])

    return evaluate


def main() -> None:
    """Measures one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("simulated", "trainings"))
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--strategies", default="alphax,lanas,regularized_evolution")
    parser.add_argument("--workers", default="")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--deviation", type=float, default=0.5)
    parser.add_argument("--children", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cluster", default="")
    parser.add_argument("--out", type=Path, default=Path("workers.json"))
    arguments = parser.parse_args()
    # Workers inherit its cache of compiled programs: without one each would compile the same for itself.
    prepare_process()
    if arguments.what == "simulated":
        arguments.workers = arguments.workers or "1,4,16,64"
        simulate(arguments)
    else:
        arguments.workers = arguments.workers or "0,1,2"
        train(arguments)


if __name__ == "__main__":
    main()
