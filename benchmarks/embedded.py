"""Says how well a dataset tells architectures apart, from tables of trained ones.

    python -m benchmarks.embedded TABLE.npz [TABLE.npz ...]

A table is made by `python main.py --config=digits201_table` with two seeds or more; docs/results/embedded.md has the
commands. Of each table: mean test accuracy, the deviation between architectures' means (less what the noise of seeds
adds to it), the deviation between seeds of one architecture and the ratio of the two, over all architectures and over
the better half of them; Spearman's correlations of test accuracy with the validation accuracy, with parameters, with
the share of skips and pools and between seeds. Tables that hold the same architectures are then compared by Spearman's
correlation: how well a short training, or another setting, tells the ranking of the first table.
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from parsec.cells import get_space
from parsec.cells.space import Space
from parsec.errors import UserError
from parsec.tables.table import Table, load_table


class Spread(NamedTuple):
    """Where accuracies differ; all in points of accuracy but `ratio`.

    Attributes:
      mean: over all trainings.
      architectures: deviation of the architectures' means, corrected for the noise of seeds.
      seeds: deviation between trainings of one architecture.
      ratio: of the two.
    """

    mean: float
    architectures: float
    seeds: float
    ratio: float


def spread(accuracies: np.ndarray) -> Spread:
    """Returns the components of variance of accuracies [N, S], N and S at least 2, by one-way analysis of variance.

    The variance of means of S seeds holds a share 1 / S of the seeds' variance, which is taken off; what is left is 0
    at least (S. R. Searle, G. Casella and C. E. McCulloch, Variance Components, 1992, chapter 3).
    """
    within = accuracies.var(1, ddof=1).mean()
    between = max(accuracies.mean(1).var(ddof=1) - within / accuracies.shape[1], 0.0)
    return Spread(float(accuracies.mean()), float(between**0.5), float(within**0.5), float((between / within) ** 0.5))


def better_half(accuracies: np.ndarray) -> Spread:
    """Returns the spread of the better half of the architectures, of accuracies [N, S], S at least 3.

    Chosen by the first seed and measured by the others, as a choice by the seeds that are measured narrows them.
    """
    return spread(accuracies[np.argsort(-accuracies[:, 0])[: len(accuracies) // 2], 1:])


def free_share(space: Space, architectures: np.ndarray) -> np.ndarray:
    """Returns the share of skips, pools and zeros among the operations of architectures int32 [N, L], float64 [N]."""
    slots = [
        np.array([name == "none" or "skip" in name or "pool" in name for name in choice.options])[row]
        for choice, row in zip(space.choices, architectures.T, strict=True)
        if set(choice.options) <= set(space.operations)
    ]
    return np.mean(slots, 0)


def distinct(table: Table) -> Table:
    """Returns the table with one row of each network that was trained, as others repeat its figures."""
    if "representative" not in table.columns:
        return table
    kept = np.flatnonzero(table.columns["representative"] == np.arange(len(table)))
    columns = {name: values[kept] for name, values in table.columns.items()}
    return replace(table, architectures=table.architectures[kept], columns=columns)


def seeds_of(table: Table, name: str) -> np.ndarray:
    """Returns a column's values by seed, float64 [N, S]; raises `UserError` where there are none."""
    columns = [table.columns[key] for seed in range(len(table.columns)) if (key := f"{name}_{seed}") in table.columns]
    if not columns:
        raise UserError(f"table {table.name} has no column {name}_0; make it with --config=digits201_table")
    return np.stack(columns, 1)


def describe(space: Space, table: Table) -> list[tuple[str, str]]:
    """Returns what one table says, as pairs of a name and figures; raises `UserError` for a table of one seed."""
    test = seeds_of(table, "test")
    if test.shape[1] < 2:
        raise UserError(f"table {table.name} has one seed; deviations need --config.seeds=2 or more")
    kept = np.flatnonzero(np.isfinite(test).all(1))
    failed, test = len(test) - len(kept), test[kept]
    mean = test.mean(1)
    pairs = [spearman(test[:, a], test[:, b]) for a, b in itertools.combinations(range(test.shape[1]), 2)]
    rows = [
        ("architectures x seeds", f"{test.shape[0]} x {test.shape[1]}, {failed} failed"),
        ("test accuracy, mean", f"{mean.mean():.2f} %, from {mean.min():.2f} to {mean.max():.2f}"),
        ("all", _spread_text(spread(test))),
    ]
    if test.shape[1] > 2:
        rows.append(("better half", _spread_text(better_half(test))))
    free = free_share(space, table.architectures[kept])
    rows += [
        ("rank correlation of two seeds", f"{np.mean(pairs):.2f}"),
        ("with validation accuracy", f"{spearman(mean, table.columns['valid'][kept]):.2f}"),
        ("with parameters", f"{spearman(mean, table.columns['params'][kept]):.2f}"),
        ("with the share of skips and pools", f"{spearman(mean, free):.2f}"),
        ("processor seconds of one training", f"{table.columns['seconds'][kept].mean() / test.shape[1]:.1f}"),
    ]
    return rows


def agreement(first: Table, other: Table) -> tuple[int, float, float]:
    """Returns how two tables rank the architectures that both hold, by test accuracy.

    Returns:
      Their number, Spearman's correlation over all of them, and over the better half by the first table.

    Raises:
      UserError: they share fewer than four.
    """
    places = {tuple(row): at for at, row in enumerate(first.architectures.tolist())}
    both = [(places[row], at) for at, row in enumerate(map(tuple, other.architectures.tolist())) if row in places]
    if len(both) < 4:
        raise UserError(f"tables {first.name} and {other.name} share {len(both)} architectures; give the same seed")
    here, there = np.array(both).T
    truth, told = first.columns["test"][here], other.columns["test"][there]
    finite = np.isfinite(truth) & np.isfinite(told)
    truth, told = truth[finite], told[finite]
    half = np.argsort(-truth)[: len(truth) // 2]
    return len(truth), spearman(truth, told), spearman(truth[half], told[half])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's correlation of a and b [N]; NaN where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(stats.spearmanr(a, b)[0])  # pyright: ignore[reportArgumentType]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--space", default="darts")
    arguments = parser.parse_args()
    space = get_space(arguments.space)
    tables = [distinct(load_table(path)) for path in arguments.tables]
    for path, table in zip(arguments.tables, tables, strict=True):
        print(path)
        if len(seeds_of(table, "test")[0]) > 1:
            for name, figures in describe(space, table):
                print(f"  {name:36}{figures}")
    for path, table in zip(arguments.tables[1:], tables[1:], strict=True):
        number, whole, half = agreement(tables[0], table)
        print(f"{path} ranks {number} architectures as the first table: {whole:.2f}, its better half {half:.2f}")


def _spread_text(found: Spread) -> str:
    return f"deviation {found.architectures:.2f}, of one's seeds {found.seeds:.2f}, ratio {found.ratio:.2f}"


if __name__ == "__main__":
    main()
