"""What searches by short trainings had found after fewer of them: their journals, judged by the NAS-Bench-201 table.

    python -m benchmarks.leaders --runs=RUN_DIR,RUN_DIR --table=FILE.npz [--dataset=cifar10] [--at=8,16,24,48]
        [--levels=93,93.5]

The runs are of one kind, such as several seeds, and need not have finished. After each number of trainings the leader
is the cell with the best score up to there, which is what the search would have found with `derive.finalists=0`. Told
are its test accuracy after 200 epochs, and the mean over all cells trained up to there: for each run, and their mean
and deviation. Of levels of that accuracy, after how many trainings the leader has each and keeps it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parsec.run.journal import Journal, Scored
from parsec.tables.nasbench201 import load_nasbench201
from parsec.tables.table import Table

REPORT = "test_200"


def follow(run: Path, table: Table, at: Sequence[int]) -> np.ndarray:
    """Returns the test accuracy of a run's leader, and the mean of what it trained, after each of N, float64 [2, N].

    It is NaN after more trainings than the run has.
    """
    scored = [entry for entry in Journal(run).entries if isinstance(entry, Scored)]
    told = np.array([entry.scores[0] for entry in scored])
    tests = table.columns[REPORT][table.find(np.stack([entry.architecture for entry in scored]))]
    found = np.full((2, len(at)), np.nan)
    for column, count in enumerate(at):
        if count <= len(scored) and np.isfinite(told[:count]).any():
            found[:, column] = tests[int(np.nanargmax(told[:count]))], tests[:count].mean()
    return found


def arrives(run: Path, table: Table, level: float) -> int | None:
    """Returns after how many trainings a run's leader has a test accuracy of `level` to the end; None for never."""
    count = sum(isinstance(entry, Scored) for entry in Journal(run).entries)
    below = np.flatnonzero(~(follow(run, table, range(1, count + 1))[0] >= level))
    arrival = int(below[-1]) + 2 if len(below) else 1
    return arrival if arrival <= count else None


def text(names: Sequence[str], found: np.ndarray, at: Sequence[int]) -> str:
    """Returns what several runs came to, float64 [R, 2, N], as a Markdown table."""
    lines = [f"| run | what | {' | '.join(map(str, at))} |", "|---|---|" + "---|" * len(at)]
    for what, figures in (("leader", found[:, 0]), ("mean", found[:, 1])):
        for name, row in zip(names, figures, strict=True):
            lines.append(f"| {name} | {what} | {' | '.join(f'{value:.2f}' for value in row)} |")
        if len(figures) > 1:
            both = zip(figures.mean(0), figures.std(0, ddof=1), strict=True)
            lines.append(f"| all | {what} | {' | '.join(f'{mean:.2f} ± {spread:.2f}' for mean, spread in both)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=lambda value: [Path(each) for each in value.split(",")], required=True)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--at", type=lambda value: [int(each) for each in value.split(",")], default=[8, 16, 24, 48])
    parser.add_argument("--levels", type=lambda value: [float(each) for each in value.split(",")], default=[])
    options = parser.parse_args()
    table = load_nasbench201(options.table, options.dataset)
    found = np.stack([follow(run, table, options.at) for run in options.runs])
    print(text([run.name for run in options.runs], found, options.at))
    for level in options.levels:
        print(f"{level}: after", *(arrives(run, table, level) or "never" for run in options.runs))


if __name__ == "__main__":
    main()
