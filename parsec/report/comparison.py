"""What a set of runs found: incumbents, figures at the budget, queries to the optimum, and the table a person reads."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats


def incumbents(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the row of the best architecture so far after every query, int32 [n, budget].

    The first of equal scores stays. A run that ended early keeps its incumbent; -1 stands before the first success.

    Args:
      rows: the row charged by each query, int [n, budget]; -1 after a run's end.
      scores: to maximise, float64 [N]; NaN where the evaluation failed.
    """
    told = _told(rows, scores)
    best = np.maximum.accumulate(told, 1)
    before = np.concatenate([np.full((len(rows), 1), -np.inf), best[:, :-1]], 1)
    place = np.where(told > before, np.arange(rows.shape[1]), -1)
    at = np.maximum.accumulate(place, 1)
    return np.where(at >= 0, np.take_along_axis(rows, np.maximum(at, 0), 1), -1).astype(np.int32)


def queries_to_optimum(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the number of the query that first evaluated a best architecture, int [n]; 0 in a run that never did."""
    hit = _told(rows, scores) >= np.nanmax(scores)
    return np.where(hit.any(1), hit.argmax(1) + 1, 0)


def summarise(rows: np.ndarray, proposals: np.ndarray, scores: np.ndarray, report: np.ndarray) -> dict[str, Any]:
    """Returns the figures of one strategy; JSON-able, None where a figure does not exist.

    `objective` and `reported` hold mean, deviation (n - 1) and the half-width of the 95 % interval of the mean (by
    Student's t), of these columns at each run's best architecture by objective, at the budget. Queries to the optimum
    count runs that never reached it as censored: the median is None when half the runs or more are, and the mean counts
    each of them as the whole budget, so it is then a lower bound; `optimum_hits` says how many reached it.

    Args:
      rows: int [n, budget] (see `incumbents`).
      proposals: architectures proposed by each run, int [n].
      scores: the objective, to maximise, float64 [N].
      report: the reported column, float64 [N].
    """
    final = incumbents(rows, scores)[:, -1]
    queries = queries_to_optimum(rows, scores)
    hits = queries > 0
    censored = np.where(hits, queries, np.inf)
    median = float(np.median(censored))
    failed = (rows >= 0) & np.isnan(scores[np.maximum(rows, 0)])
    return {
        "seeds": len(rows),
        "objective": spread(_picked(scores, final)),
        "reported": spread(_picked(report, final)),
        "optimum_hits": int(hits.sum()),
        "median_queries_to_optimum": median if math.isfinite(median) else None,
        "mean_queries_to_optimum": float(np.where(hits, queries, rows.shape[1]).mean()),
        "mean_queries_is_lower_bound": not bool(hits.all()),
        "queries": float((rows >= 0).sum(1).mean()),
        "proposals": float(proposals.mean()),
        "failed": float(failed.sum(1).mean()),
    }


def regret_curve(rows: np.ndarray, scores: np.ndarray, report: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean regret after every query and the half-width of its 95 % interval, float64 [budget] each.

    The regret is the best of the reported column minus that column at the incumbent by objective; NaN until every run
    has an incumbent.
    """
    best = incumbents(rows, scores)
    regret = np.nanmax(report) - np.where(best >= 0, report[np.maximum(best, 0)], np.nan)
    half = half_width(regret.std(0, ddof=1), len(rows)) if len(rows) > 1 else np.zeros(rows.shape[1])
    return regret.mean(0), half


def spread(values: np.ndarray) -> dict[str, float | None]:
    """Returns mean, deviation (n - 1) and the half-width of the 95 % interval of the mean, over the finite values.

    Args:
      values: float [n].

    Returns:
      `mean`, `deviation` and `interval`; None where too few are finite.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {"mean": None, "deviation": None, "interval": None}
    if finite.size == 1:
        return {"mean": float(finite[0]), "deviation": None, "interval": None}
    deviation = float(finite.std(ddof=1))
    return {"mean": float(finite.mean()), "deviation": deviation, "interval": float(half_width(deviation, finite.size))}


def half_width(deviation: Any, count: int) -> Any:
    """Returns the half-width of the 95 % interval of a mean of `count` values with this deviation (n - 1).

    By Student's t with count - 1 degrees of freedom, without which intervals of few seeds are too narrow.
    """
    return stats.t.ppf(0.975, count - 1) * deviation / math.sqrt(count)


def comparison_text(strategies: Mapping[str, Mapping[str, Any]], budget: int) -> str:
    """Returns the strategies' figures as a Markdown table, the best by the reported column first."""
    header = (
        "| strategy | objective | deviation | reported | deviation | 95 % interval | queries to the optimum, median "
        "| mean | reached | seeds |\n|---|---|---|---|---|---|---|---|---|---|"
    )

    def order(name: str) -> float:
        mean = strategies[name]["reported"]["mean"]
        return -mean if mean is not None else math.inf

    lines = [header]
    for name in sorted(strategies, key=order):
        found = strategies[name]
        told, reported = found["objective"], found["reported"]
        low, high = (
            (reported["mean"] - reported["interval"], reported["mean"] + reported["interval"])
            if reported["mean"] is not None and reported["interval"] is not None
            else (None, None)
        )
        median = found["median_queries_to_optimum"]
        bound = "at least " if found["mean_queries_is_lower_bound"] else ""
        lines.append(
            f"| {name} | {_number(told['mean'])} | {_number(told['deviation'])} | {_number(reported['mean'])} "
            f"| {_number(reported['deviation'])} | {_number(low)} to {_number(high)} "
            f"| {f'over {budget}' if median is None else f'{median:g}'} "
            f"| {bound}{found['mean_queries_to_optimum']:.0f} | {found['optimum_hits']} | {found['seeds']} |"
        )
    return "\n".join(lines)


def _told(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    told = np.where(rows >= 0, scores[np.maximum(rows, 0)], -np.inf)
    return np.where(np.isnan(told), -np.inf, told)


def _picked(column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows >= 0, column[np.maximum(rows, 0)], np.nan)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}" if abs(value) < 1000 else f"{value:.5g}"
