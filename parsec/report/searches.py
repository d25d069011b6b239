"""What searches of really trained networks reached: hypervolume against trained epochs, and by the test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parsec.report.comparison import spread
from parsec.report.pareto import front_rows, hypervolume


def checkpoints(total: int) -> list[int]:
    """Returns the epochs after which a table tells the hypervolume: quarters of the budget."""
    return sorted({max(1, total * quarter // 4) for quarter in (1, 2, 3, 4)})


def summarise_searches(
    rows: np.ndarray, curves: np.ndarray, gains: np.ndarray, tested: np.ndarray, trained: np.ndarray, failed: np.ndarray
) -> dict[str, Any]:
    """Returns the figures of one strategy; JSON-able, None where a figure does not exist.

    `hypervolume` holds mean, deviation (n - 1) and half-width of the 95 % interval after the epochs of `checkpoints`,
    `runs` the hypervolume of each run at the end, and `test_hypervolume` what the front that each run chose by
    validation has with the test accuracies of its networks.

    Args:
      rows: the network that was finished with each epoch and counts, int [n, total]; -1 for none.
      curves: the hypervolume after each epoch, float64 [n, total].
      gains: over the reference point, float64 [N, M].
      tested: likewise with the accuracies on the test images, float64 [N, M].
      trained: networks trained by each run, int [n].
      failed: those that diverged, int [n].
    """
    fronts = [charged[charged >= 0] for charged in rows]
    fronts = [each[front_rows(gains[each])] if len(each) else each for each in fronts]
    return {
        "seeds": len(rows),
        "hypervolume": {str(epoch): spread(curves[:, epoch - 1]) for epoch in checkpoints(rows.shape[1])},
        "runs": curves[:, -1].tolist(),
        "test_hypervolume": spread(np.array([hypervolume(tested[each]) for each in fronts])),
        "front": spread(np.array([len(each) for each in fronts], float)),
        "trained": float(trained.mean()),
        "counted": float((rows >= 0).sum(1).mean()),
        "failed": int(failed.sum()),
    }


def searches_text(strategies: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the strategies' figures as a Markdown table, the largest hypervolume at the end first."""
    epochs = list(next(iter(strategies.values()))["hypervolume"])
    header = ["strategy", *(f"after {epoch} epochs" for epoch in epochs), "by test accuracy", "front"]
    header += ["networks", "fully trained", "diverged", "seeds"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name in sorted(strategies, key=lambda name: -(strategies[name]["hypervolume"][epochs[-1]]["mean"] or 0.0)):
        found = strategies[name]
        cells = [_figure(found["hypervolume"][epoch]) for epoch in epochs]
        cells += [_figure(found["test_hypervolume"]), _figure(found["front"])]
        cells += [f"{found['trained']:.1f}", f"{found['counted']:.1f}", str(found["failed"]), str(found["seeds"])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def _figure(found: Mapping[str, float | None]) -> str:
    mean, deviation = found["mean"], found["deviation"]
    return "none" if mean is None else f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")
