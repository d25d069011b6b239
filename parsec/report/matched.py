"""The verdict on cells of different sizes: each beside random cells of about its own number of parameters.

Larger networks learn more, so that the cells of a front have no common sample to be ranked in. Where a search finds
nothing, a cell is one more draw among its k random ones, and beats 0, 1, ... or k of them with the same chance. The
test is on the sum over all cells, whose distribution is that of independent uniform numbers, exactly (the rank test
stratified, van Elteren 1960, Bulletin of the International Statistical Institute 37, 351-361, with one found cell in
each stratum). Equals count against the found cell for "better", and for it for "worse".
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from parsec.report.verdict import (
    Verdict,
    binomial_interval,
    deviation_of,
    means_of,
    number_or_none,
    percent,
    summarise,
    verdict_of,
)


def judge_matched(found: np.ndarray, random: np.ndarray) -> Verdict:
    """Returns the verdict on cells float [F], each beside its random ones float [F, k]; NaN where a cell diverged."""
    ours, theirs = (np.nan_to_num(each, nan=-math.inf, neginf=-math.inf) for each in (found, random))
    sums = np.ones(1)
    for _ in found:
        sums = np.convolve(sums, np.full(random.shape[1] + 1, 1 / (random.shape[1] + 1)))
    below, not_above = int((theirs < ours[:, None]).sum()), int((theirs <= ours[:, None]).sum())
    # Rounded, so that a level is reached where counting reaches it.
    p_better, p_worse = round(float(sums[below:].sum()), 12), round(float(sums[: not_above + 1].sum()), 12)
    return verdict_of(p_better, p_worse)


def summarise_matched(
    found: np.ndarray, random: np.ndarray, residual: np.ndarray, params: Sequence[Sequence[int]], images: int
) -> dict[str, Any]:
    """Returns the figures of `parsec.report.verdict.summarise` with the verdict, ranks and sentence of `judge_matched`.

    `beaten` is the share of the random cells that the found cell they were drawn for is better than, with its interval;
    `members` has the mean, deviation and share of each found cell, and the mean and parameters of its random ones.

    Args:
      found: test accuracies in percent, float [F, S] for S seeds; NaN where a run diverged.
      random: those of the random cells, float [F, k, S].
      residual: of the plain residual network, float [S].
      params: of the random cells, [F][k].
      images: on which each accuracy was measured.
    """
    count = random.shape[1]
    summary = summarise(found, random.reshape(-1, random.shape[2]), residual, images)
    ours, theirs = means_of(found), means_of(random.reshape(-1, random.shape[2])).reshape(len(found), count)
    verdict = judge_matched(ours, theirs)
    beats = np.nan_to_num(theirs, nan=-math.inf) < np.nan_to_num(ours, nan=-math.inf)[:, None]
    summary |= {
        "beaten": float(beats.mean()),
        # Independent draws whose chances differ vary less than those of one chance: the interval is wide enough.
        "beaten_interval": list(binomial_interval(int(beats.sum()), beats.size)),
        "p_better": verdict.p_better,
        "p_worse": verdict.p_worse,
        "verdict": verdict.words,
        "members": [
            {
                "test": number_or_none(mean),
                "deviation": number_or_none(deviation_of(runs)),
                "random": number_or_none(means_of(others[None])[0]),
                "random_params": list(sizes),
                "beaten": float(beaten.mean()),
            }
            for mean, runs, others, sizes, beaten in zip(ours, found, theirs, params, beats, strict=True)
        ],
    }
    del summary["rank"], summary["among"]
    low = summary["p_worse"] < summary["p_better"]
    cells = "The cell of the front is" if len(found) == 1 else f"The {len(found)} cells of the front are"
    sentence = (
        f"{cells} {verdict.words} of about as many parameters{'' if len(found) == 1 else ' as each'}: "
        f"{percent(summary['found'])} in the mean against {percent(summary['random_mean'])} of {beats.size} random "
        f"cells trained alike, {summary['seeds']} seeds each, {int(beats.sum())} of which are beaten, "
        f"p = {verdict.p_worse if low else verdict.p_better:.2g} for {'worse' if low else 'better'}; the plain "
        f"residual network has {percent(summary['residual'])}"
    )
    return summary | {"sentence": sentence}
