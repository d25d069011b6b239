"""The verdict: are found cells better than random cells trained alike, by a test that is seldom fooled?

A search that finds nothing draws a random cell. The test asks how often random cells would do as well as the found ones
do, 5 % on either side. Where there are enough of them, that is counted: the exact rank test (Mann, Whitney 1947, Annals
of Mathematical Statistics 18, 50-60), which assumes nothing of how accuracies are spread. It cannot answer before there
are 19 random cells to one found: a cell that beats 8 of 8 does so by luck once in 9. With fewer, a one-sided prediction
interval for one more draw takes its place (Hahn 1969, Journal of the American Statistical Association 64, 878-888; for
the mean of m draws alike). Accuracies crowd below their ceiling and trail off to the bad side, so the interval is taken
on empirical logits (Cox, Snell 1989, "Analysis of Binary Data", section 2.1.6); where the tail is long, the best cell
there is may not stand out of it, and only the ranks of more cells can tell.

The share of random cells that a cell beats is a count among independent draws; its interval is the exact binomial one
(Clopper, Pearson 1934, Biometrika 26, 404-413).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

BETTER, SAME, WORSE = (
    "better than random cells",
    "not distinguishable from random cells",
    "worse than random cells",
)
# Chance of "better", and of "worse", that is accepted where the found cell is a random one.
LEVEL = 0.05
# Fewer random cells or training runs tell nothing.
LEAST_CELLS, LEAST_SEEDS = 5, 3


class Verdict(NamedTuple):
    """What the test says.

    Attributes:
      words: `BETTER`, `SAME` or `WORSE`.
      p_better: chance that random cells do as well or better; None where nothing can be tested.
      p_worse: chance that random cells do as badly or worse.
    """

    words: str
    p_better: float | None
    p_worse: float | None


class Rank(NamedTuple):
    """Where a cell stands among random ones.

    Attributes:
      rank: 1 for the best; equals share the better rank.
      among: the random cells that were trained, and the cell itself.
      beaten: share of the random cells that it is better than, in 0 .. 1.
      interval: of that share among all cells of the space, 95 %; equals count against it below and for it above.
    """

    rank: int
    among: int
    beaten: float
    interval: tuple[float, float]


def judge(found: np.ndarray, random: np.ndarray, images: int) -> Verdict:
    """Returns the verdict on found cells.

    Args:
      found: test accuracies in percent, float [M, S] for S seeds; NaN where a run diverged.
      random: those of the random cells, float [N, S]. A cell is its mean over the runs that did not diverge, and one
        without any is left out, which favours nobody but the cells that are left.
      images: on which each accuracy was measured.
    """
    ours, theirs = means_of(found), means_of(random)
    theirs = theirs[np.isfinite(theirs)]
    if not np.isfinite(ours).all():
        # Where random cells train and a found one does not, nothing is left to test.
        return Verdict(WORSE, None, None) if len(theirs) >= LEAST_CELLS else Verdict(SAME, None, None)
    if len(theirs) < LEAST_CELLS:
        return Verdict(SAME, None, None)
    if 1 / math.comb(len(ours) + len(theirs), len(ours)) <= LEVEL:
        return verdict_of(*(_rank_test(ours, theirs, side) for side in ("greater", "less")))
    ours, theirs = _logits(ours, images), _logits(theirs, images)
    spread = theirs.std(ddof=1) * math.sqrt(1 / len(ours) + 1 / len(theirs))
    distance = float(ours.mean() - theirs.mean())
    # Random cells that are all alike: any difference at all is one.
    ratio = distance / spread if spread > 0 else math.copysign(math.inf, distance) if distance else 0.0
    return verdict_of(*(float(tail(ratio, len(theirs) - 1)) for tail in (stats.t.sf, stats.t.cdf)))


def rank(found: np.ndarray, random: np.ndarray) -> Rank:
    """Returns where one cell, float [S], stands among random ones, float [N, S]; see `judge` for runs that diverged."""
    ours, theirs = means_of(found[None])[0], means_of(random)
    ours = ours if np.isfinite(ours) else -np.inf
    theirs = np.where(np.isfinite(theirs), theirs, -np.inf)
    below, not_above, count = int((theirs < ours).sum()), int((theirs <= ours).sum()), len(theirs)
    low, high = binomial_interval(below, count)[0], binomial_interval(not_above, count)[1]
    return Rank(1 + count - not_above, count + 1, below / count, (low, high))


def binomial_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the exact two-sided interval of a probability of which `hits` of `trials` came true, in 0 .. 1."""
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def summarise(found: np.ndarray, random: np.ndarray, residual: np.ndarray, images: int) -> dict[str, Any]:
    """Returns the figures of a comparison as JSON can hold them, None where there is none; `sentence` says them.

    Args:
      found: test accuracies in percent of the found cells, float [M, S]; NaN where a run diverged.
      random: of the random cells, float [N, S].
      residual: of the plain residual network, float [S].
      images: on which each accuracy was measured.

    Returns:
      `found` and `residual`, means with `_deviation` over seeds; `random_mean` with `random_deviation` over the means
      of cells; `seed_deviation`, of one cell in the median; `rank`, `among`, `beaten` and `beaten_interval` of the
      found cell with the best mean; `p_better`, `p_worse` and `verdict` of `judge`.
    """
    means, verdict = means_of(random), judge(found, random, images)
    finite = means[np.isfinite(means)]
    ours = means_of(found)
    best = int(np.nanargmax(ours)) if np.isfinite(ours).any() else 0
    place = rank(found[best], random)
    summary: dict[str, Any] = {
        "found": number_or_none(ours.mean()),
        "found_deviation": number_or_none(np.mean([deviation_of(runs) for runs in found])),
        "random_mean": number_or_none(finite.mean()) if finite.size else None,
        "random_deviation": number_or_none(deviation_of(finite)),
        "seed_deviation": number_or_none(_median([deviation_of(runs) for runs in (*found, *random)])),
        "residual": number_or_none(means_of(residual[None])[0]),
        "residual_deviation": number_or_none(deviation_of(residual)),
        "found_cells": len(found),
        "random_cells": len(random),
        "failed": int((~np.isfinite(np.concatenate([found, random, residual[None]]))).sum()),
        "seeds": found.shape[1],
        "rank": place.rank,
        "among": place.among,
        "beaten": place.beaten,
        "beaten_interval": list(place.interval),
        "p_better": verdict.p_better,
        "p_worse": verdict.p_worse,
        "verdict": verdict.words,
    }
    return summary | {"sentence": sentence(summary)}


def sentence(summary: dict[str, Any]) -> str:
    """Returns the verdict as one plain sentence with its figures; without its closing full stop."""
    cells = "The found cell is" if summary["found_cells"] == 1 else f"The {summary['found_cells']} found cells are"
    theirs = f"{percent(summary['random_mean'], summary['random_deviation'])} of {summary['random_cells']} random cells"
    tested = ""
    if summary["p_better"] is not None:
        low = summary["p_worse"] < summary["p_better"]
        tested = f", p = {summary['p_worse' if low else 'p_better']:.2g} for {'worse' if low else 'better'}"
    elif summary["found"] is None:
        tested = ", as its training diverges" if summary["found_cells"] == 1 else ", as the training of one diverges"
    return (
        f"{cells} {summary['verdict']}: {percent(summary['found'])} against {theirs} trained alike, "
        f"{summary['seeds']} seeds each{tested}; the plain residual network has {percent(summary['residual'])}"
    )


def percent(mean: float | None, deviation: float | None = None) -> str:
    """Returns an accuracy as text, with its deviation where there is one."""
    if mean is None:
        return "no accuracy"
    return f"{mean:.2f} %" if deviation is None else f"{mean:.2f} ± {deviation:.2f} %"


def verdict_of(p_better: float, p_worse: float) -> Verdict:
    """Returns the verdict that two p-values are."""
    words = BETTER if p_better <= LEVEL else WORSE if p_worse <= LEVEL else SAME
    return Verdict(words, p_better, p_worse)


def means_of(runs: np.ndarray) -> np.ndarray:
    """Returns the mean over the finite runs of each cell, float64 [N] for [N, S]; NaN where there are none."""
    runs = np.asarray(runs, np.float64)
    finite = np.isfinite(runs)
    count = finite.sum(1)
    return np.where(count > 0, np.where(finite, runs, 0).sum(1) / np.maximum(count, 1), np.nan)


def deviation_of(runs: np.ndarray) -> float:
    """Returns the deviation of the finite runs [S], NaN where there are fewer than two."""
    finite = np.asarray(runs, np.float64)[np.isfinite(runs)]
    return float(finite.std(ddof=1)) if finite.size > 1 else math.nan


def number_or_none(value: Any) -> float | None:
    """Returns a number as JSON can hold it: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _rank_test(ours: np.ndarray, theirs: np.ndarray, side: str) -> float:
    """Returns how often means [M] of random cells would lie so far to that side of [N] others."""
    # Equal means are put on the side that favours the found cells less.
    shifted = np.nextafter(ours, -np.inf if side == "greater" else np.inf)
    tested: Any = stats.mannwhitneyu(shifted, theirs, alternative=side, method="exact")
    return round(float(tested.pvalue), 12)


def _logits(accuracies: np.ndarray, images: int) -> np.ndarray:
    right = accuracies * images / 100
    return np.log((right + 0.5) / (images - right + 0.5))


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan
