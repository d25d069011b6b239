"""The options of a search for several objectives on a table; `configs/*_pareto.py` set them for a benchmark."""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.search.registry import STRATEGIES, explain_options, names


@dataclass(frozen=True)
class ParetoConfig:
    """Strategies that search a table for a Pareto front, at one budget and over many seeds."""

    JOB: ClassVar[str] = "parsec.jobs.tables.pareto:run_pareto"
    WRITES: ClassVar[tuple[str, ...]] = (
        *("strategies", "curves.npz", "hypervolume.png", "attained.png", "table.md"),
        *("front.md", "front.json"),
    )

    benchmark: str = option(
        "nasbench201", "where the table comes from", choices=("nasbench201", "nasbench101", "digits201", "table")
    )
    data_dir: str = option("", "folder that holds the benchmark's file, such as nasbench201.npz", affects_results=False)
    table: str = option("", "the .npz file of benchmark=table", affects_results=False)
    dataset: str = option(
        "cifar10", "which numbers, for benchmarks that have several (nasbench101: five_vertices, sample, ...)"
    )
    max_vertices: int = option(6, "most vertices of a cell, for benchmark=nasbench101", minimum=3, maximum=7)
    costs: tuple[str, ...] = option(
        (),
        "of nasbench201, latencies and energies of devices that stand beside the table's columns, such as "
        "edgegpu_latency or gold_6226_latency; from nasbench201_hw.npz in data_dir",
    )
    space: str = option(
        "", "space that the architectures of benchmark=table are of, to name them by genotypes; empty writes options"
    )
    objectives: tuple[str, ...] = option(
        ("test_200", "-log10_params"), "columns to maximise, -COLUMN to minimise; log10_COLUMN is its logarithm"
    )
    constraints: tuple[str, ...] = option(
        (), "what every proposed architecture satisfies, COLUMN<NUMBER or with <=, > or >=; of known costs"
    )
    reference: tuple[float, ...] = option(
        (), "reference point of the hypervolume, a number for each objective; empty is the benchmark's documented one"
    )
    epochs: tuple[int, ...] = option(
        (),
        "of the trainings that strategies of several fidelities choose among, such as 12,200; empty is all that the "
        "table has of the objectives",
    )
    strategies: tuple[str, ...] = option(
        ("random", *names(many=True)),
        "keys of parsec.search.registry.STRATEGIES, in this order; one that searches for a single objective is told "
        "them all and reads the first",
        choices=STRATEGIES,
    )
    options: tuple[str, ...] = option((), "options of strategies, as NAME.OPTION=VALUE")
    seeds: int = option(20, "runs of each strategy", minimum=1)
    seed: int = option(0, "of the first run's random key", minimum=0, maximum=2**32 - 1)
    budget: int = option(500, "queries of each run; a shorter training counts as its share of one", minimum=1)
    count: str = option(
        "unique", "what is charged: each architecture once, or all proposals", choices=("unique", "all")
    )
    workers: int = option(
        2, "processes for strategies that run on the host", minimum=1, maximum=1024, affects_results=False
    )

    def explain(self) -> list[str]:
        """Returns the paragraphs that `--help` adds: the options of the strategies of several objectives."""
        return explain_options(("random", *names(many=True), *names(many=True, multi_fidelity=True)))
