"""How well scores rank architectures: Spearman's correlation with true figures, over all and among the best.

A search looks for the best, so what decides is whether scores order the architectures near the top. A correlation over
all of them is easily high: it is enough to tell hopeless ones apart.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

# Two pairs correlate at 1 or -1 whatever they are.
_LEAST_PAIRS = 3
_BEST = 1 / 3


def ranking(told: Mapping[str, np.ndarray], true: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Returns for each kind of score its rank correlation with the true figures, `all` and within the `best_third`.

    Args:
      told: scores float [N] by name.
      true: figures, float [N]; higher is better.
    """
    best = best_third(true)
    return {
        name: {"all": rank_correlation(scores, true), "best_third": rank_correlation(scores[best], true[best])}
        for name, scores in told.items()
    }


def rank_correlation(told: np.ndarray, true: np.ndarray) -> float | None:
    """Returns Spearman's correlation of two float [N] to four digits; ties share their mean rank.

    Pairs in which either is not finite are left out. None where fewer than three are left, or either is constant.
    """
    both = np.isfinite(told) & np.isfinite(true)
    told, true = (np.asarray(values, np.float64)[both] for values in (told, true))
    if len(told) < _LEAST_PAIRS or np.ptp(told) == 0 or np.ptp(true) == 0:
        return None
    correlation: Any = stats.spearmanr(told, true)
    return round(float(correlation.statistic), 4)


def best_third(true: np.ndarray) -> np.ndarray:
    """Returns which of the finite figures float [N] are among their highest third, bool [N], ties with its last too."""
    finite = np.isfinite(true)
    if not finite.any():
        return finite
    ascending = np.sort(true[finite])
    return finite & (np.where(finite, true, -np.inf) >= ascending[-max(round(len(ascending) * _BEST), 1)])


def ranking_words(record: Mapping[str, Any]) -> dict[str, str]:
    """Returns a result's `rank_correlation` in words, by name of the score; scores without a correlation are left out.

    Args:
      record: of result.json: `cells`, `ranked_by`, and for each score what `ranking` returns.
    """
    words = {}
    for name in (each for each in ("accuracy", "log_likelihood", "prior", "expected_score") if each in record):
        over_all, best = (record[name][which] for which in ("all", "best_third"))
        if over_all is not None:
            among = "" if best is None else f", {best:.3f} within the best third"
            words[name.replace("_", "-")] = (
                f"{over_all:.3f} with {record['ranked_by']} of {record['cells']} cells{among}"
            )
    return words
