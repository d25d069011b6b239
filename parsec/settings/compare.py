"""The options of a comparison; `configs/*_compare.py` set them for a table."""

from dataclasses import dataclass
from typing import ClassVar

from parsec.config import option
from parsec.search.registry import STRATEGIES, explain_options, names


@dataclass(frozen=True)
class CompareConfig:
    """Strategies compared on a table, at one budget and over many seeds."""

    JOB: ClassVar[str] = "parsec.jobs.tables.compare:run_compare"
    WRITES: ClassVar[tuple[str, ...]] = ("strategies", "curves.npz", "regret.png", "table.md")

    benchmark: str = option(
        "nasbench201", "where the table comes from, a key of parsec.jobs.tables.benchmarks.BENCHMARKS"
    )
    data_dir: str = option("", "folder that holds the benchmark's file, such as nasbench201.npz", affects_results=False)
    table: str = option("", "the .npz file of benchmark=table", affects_results=False)
    dataset: str = option(
        "cifar10", "which numbers, for benchmarks that have several (nasbench101: sample, surrogate, ...)"
    )
    max_vertices: int = option(6, "most vertices of a cell, for benchmark=nasbench101", minimum=3, maximum=7)
    objective: str = option("valid_200", "the column told to strategies, maximised; -COLUMN minimises")
    report: str = option("", "the column reported at the incumbent, -COLUMN if lower is better; empty is the objective")
    strategies: tuple[str, ...] = option(
        names(many=False), "keys of parsec.search.registry.STRATEGIES, in this order", choices=STRATEGIES
    )
    options: tuple[str, ...] = option((), "options of strategies, as NAME.OPTION=VALUE")
    seeds: int = option(20, "runs of each strategy", minimum=1)
    seed: int = option(0, "of the first run's random key", minimum=0, maximum=2**32 - 1)
    budget: int = option(500, "queries of each run", minimum=1)
    count: str = option(
        "unique", "what is charged: each architecture once, or all proposals", choices=("unique", "all")
    )
    workers: int = option(
        2, "processes for strategies that run on the host", minimum=1, maximum=1024, affects_results=False
    )

    def explain(self) -> list[str]:
        """Returns the paragraphs that `--help` adds: the options of every strategy of one objective."""
        return explain_options(names(many=False))
