"""What a set of runs found of a Pareto front: hypervolume after every query, distance to the exact front, the front.

Hypervolume is the volume between a set and the reference point that the set dominates (Zitzler and Thiele 1999, IEEE
Transactions on Evolutionary Computation 3, 257-271); inverted generational distance is the mean distance from the
points of the exact front to the nearest point found (Coello Coello and Reyes Sierra, MICAI 2004), here in units in
which the reference point is 0 and the ideal one 1. Both are computed by moocore.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import moocore
import numpy as np

from parsec.report.comparison import half_width, spread

# Queries after which a table tells the hypervolume, where the budget reaches them.
CHECKPOINTS = (25, 50, 100, 200, 500, 1000, 2000, 5000)


def front_rows(gains: np.ndarray) -> np.ndarray:
    """Returns the rows that no other dominates, int [F], in order of the first column; the first of equal ones.

    Args:
      gains: higher is better, float64 [N, M].
    """
    rows = np.flatnonzero(moocore.is_nondominated(gains, maximise=True))
    return rows[np.lexsort(gains[rows].T[::-1])]


def hypervolume(gains: np.ndarray) -> float:
    """Returns the volume that gains float64 [N, M] dominate above the origin; rows not above it count nothing."""
    inside = gains[(gains > 0).all(1)]
    return float(moocore.hypervolume(inside, ref=np.zeros(gains.shape[1]), maximise=True)) if len(inside) else 0.0


def hypervolume_curves(rows: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Returns the hypervolume after every query of every run, float64 [n, budget]; a run that ended keeps its last.

    Args:
      rows: the row charged by each query, int [n, budget]; -1 after a run's end.
      gains: over the reference point, float64 [N, M].
    """
    curves = np.zeros(rows.shape, np.float64)
    for run, charged in enumerate(rows):
        front = np.zeros((0, gains.shape[1]))
        volume = 0.0
        for query, row in enumerate(charged):
            new = gains[row]
            # Most queries are dominated by what is known, and change nothing.
            if row >= 0 and (new > 0).all() and not (front >= new).all(1).any():
                front = np.concatenate([front[~(new >= front).all(1)], new[None]])
                volume = hypervolume(front)
            curves[run, query] = volume
    return curves


def distances(rows: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """Returns each run's inverted generational distance to the exact front at the budget, float64 [n].

    Args:
      rows: int [n, budget], as of `hypervolume_curves`.
      scaled: 0 at the reference point and 1 at the ideal one, float64 [N, M].
    """
    exact = scaled[front_rows(scaled)]
    found = [scaled[charged[charged >= 0]] for charged in rows]
    return np.array([moocore.igd(points, ref=exact, maximise=True) if len(points) else np.nan for points in found])


def summarise_fronts(
    rows: np.ndarray, proposals: np.ndarray, curves: np.ndarray, scaled: np.ndarray, exact: float
) -> dict[str, Any]:
    """Returns the figures of one strategy; JSON-able, None where a figure does not exist.

    `hypervolume` holds mean, deviation (n - 1) and half-width of the 95 % interval of the fraction of the exact
    hypervolume, by the queries of `CHECKPOINTS` within the budget and at the budget; `distance` the same of the
    inverted generational distance at the budget; `front_share` of the share of the exact front's points that were met.

    Args:
      rows: int [n, budget], as of `hypervolume_curves`.
      proposals: architectures proposed by each run, int [n].
      curves: of `hypervolume_curves`.
      scaled: as of `distances`.
      exact: the hypervolume of all architectures.
    """
    budget = rows.shape[1]
    front = scaled[front_rows(scaled)]
    # By value: cells that are the same network have the same numbers.
    shares = [(front[:, None] == scaled[charged[charged >= 0]][None]).all(2).any(1).mean() for charged in rows]
    checkpoints = [query for query in CHECKPOINTS if query < budget] + [budget]
    return {
        "seeds": len(rows),
        "hypervolume": {str(query): spread(curves[:, query - 1] / exact) for query in checkpoints},
        "distance": spread(distances(rows, scaled)),
        "front_share": spread(np.array(shares)),
        "queries": float((rows >= 0).sum(1).mean()),
        "proposals": float(proposals.mean()),
    }


def band(curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean of curves float64 [n, budget] and the half-width of its 95 % interval, float64 [budget] each."""
    count = len(curves)
    half = half_width(curves.std(0, ddof=1), count) if count > 1 else np.zeros(curves.shape[1])
    return curves.mean(0), half


def median_attainment(rows: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Returns the corners of what half of the runs attain, float64 [F, 2], of two objectives.

    The empirical attainment function of Grunert da Fonseca, Fonseca and Hall (EMO 2001) at one half.

    Args:
      rows: int [n, budget], as of `hypervolume_curves`.
      gains: float64 [N, 2].
    """
    points, sets = [], []
    for run, charged in enumerate(rows):
        found = gains[charged[charged >= 0]]
        found = found[front_rows(found)]
        points.append(found)
        sets.append(np.full(len(found), run + 1))
    # moocore minimises here.
    corners = moocore.eaf(-np.concatenate(points), np.concatenate(sets), percentiles=[50])
    return -corners[np.argsort(-corners[:, 0])][:, :2]


def found_front(trials: Mapping[str, np.ndarray], gains: np.ndarray) -> list[tuple[int, dict[str, int]]]:
    """Returns the best of everything that any run evaluated: its rows, each with how many runs of each strategy met it.

    Args:
      trials: rows int [n, budget] by strategy.
      gains: float64 [N, M].
    """
    known = np.unique(np.concatenate([rows[rows >= 0] for rows in trials.values()]))
    front = known[front_rows(gains[known])]
    return [
        (int(row), {name: int((rows == row).any(1).sum()) for name, rows in trials.items()}) for row in front.tolist()
    ]


def fronts_text(strategies: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the strategies' figures as a Markdown table, the largest hypervolume at the budget first."""
    checkpoints = list(next(iter(strategies.values()))["hypervolume"])
    header = ["strategy", *(f"after {query}" for query in checkpoints), "distance", "front met", "seeds"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]

    def order(name: str) -> float:
        return -(strategies[name]["hypervolume"][checkpoints[-1]]["mean"] or 0.0)

    for name in sorted(strategies, key=order):
        found = strategies[name]
        cells = [_percent(found["hypervolume"][query]) for query in checkpoints]
        cells += [_number(found["distance"]), _percent(found["front_share"], 0), str(found["seeds"])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def point_text(point: Iterable[float]) -> str:
    """Returns a point of objectives, such as the reference, as text."""
    return "(" + ", ".join(f"{value:g}" for value in point) + ")"


def front_text(front: Sequence[Mapping[str, Any]]) -> str:
    """Returns the architectures of a front as a Markdown table: genotype, objectives and costs, and who met them."""
    values = list(front[0]["values"]) if front else []
    met = list(front[0]["met_by"]) if front else []
    header = ["architecture", *values, *(f"runs of {name}" for name in met)]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for entry in front:
        # A bar would end the cell of a Markdown table.
        cells = [
            "`" + entry["genotype"].replace("|", "\\|") + "`",
            *(f"{entry['values'][name]:.8g}" for name in values),
        ]
        lines.append("| " + " | ".join([*cells, *(str(entry["met_by"][name]) for name in met)]) + " |")
    return "\n".join(lines)


def _percent(found: Mapping[str, float | None], digits: int = 2) -> str:
    mean, deviation = found["mean"], found["deviation"]
    if mean is None:
        return "none"
    return f"{100 * mean:.{digits}f}" + ("" if deviation is None else f" ± {100 * deviation:.{digits}f}") + " %"


def _number(found: Mapping[str, float | None]) -> str:
    mean, deviation = found["mean"], found["deviation"]
    return "none" if mean is None else f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
