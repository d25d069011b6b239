"""The verdict is seldom fooled by luck, sees what is there, and says it in one sentence."""

import numpy as np
import pytest
from scipy import stats

from parsec.report.verdict import (
    BETTER,
    LEAST_CELLS,
    LEAST_SEEDS,
    LEVEL,
    SAME,
    WORSE,
    binomial_interval,
    judge,
    rank,
    summarise,
)
from parsec.settings import search as settings
from parsec.tables.digits201 import load_digits201

RANDOM = np.array([[80.0, 82.0, 81.0], [84.0, 83.0, 85.0], [78.0, 80.0, 79.0], [81.0, 80.0, 82.0], [83.0, 82.0, 81.0]])
NAN = np.full(3, np.nan)


def trained_cells() -> np.ndarray:
    """Returns test accuracies of real cells, three seeds each, float [N, 3]: skewed, with a tail of bad cells."""
    columns = load_digits201().columns
    rows = np.unique(columns["representative"]).astype(int)
    return np.stack([columns[f"test_{seed}"][rows] for seed in range(3)], 1)


def drawn(kind: str, rng: np.random.Generator, count: int) -> np.ndarray:
    if kind == "real cells":
        cells = trained_cells()
        return cells[rng.integers(0, len(cells), count)]
    cells, seeds = (2.0, 1.0) if kind == "cells differ" else (0.0, 2.0)
    return 80 + cells * rng.normal(size=(count, 1)) + seeds * rng.normal(size=(count, 3))


@pytest.mark.parametrize("count", [8, 16])
@pytest.mark.parametrize("kind", ["real cells", "cells differ", "seeds alone"])
def test_a_cell_drawn_at_random_is_seldom_called_better_or_worse(kind: str, count: int):
    rng = np.random.default_rng(count)
    repeats = 2000
    cells = drawn(kind, rng, repeats * (count + 1)).reshape(repeats, count + 1, 3)
    words = [judge(each[:1], each[1:], 359).words for each in cells]
    # Four deviations of a rate of 5 % over 2,000 repeats are 2 %; the bad tail of real cells adds another at its end.
    assert 0.02 < words.count(BETTER) / repeats < LEVEL + 0.02
    assert 0.02 < words.count(WORSE) / repeats < LEVEL + (0.04 if kind == "real cells" else 0.02)


def test_several_found_cells_are_seldom_called_better_by_luck():
    rng = np.random.default_rng(5)
    cells = drawn("cells differ", rng, 2000 * 11).reshape(2000, 11, 3)
    words = [judge(each[:3], each[3:], 10_000).words for each in cells]
    assert 0.03 < words.count(BETTER) / 2000 < LEVEL + 0.02


def test_what_is_far_from_the_random_cells_is_told():
    assert judge(np.array([[90.0, 91.0, 92.0]]), RANDOM, 1000).words == BETTER
    assert judge(np.array([[70.0, 71.0, 72.0]]), RANDOM, 1000).words == WORSE
    assert judge(np.array([[82.0, 83.0, 84.0]]), RANDOM, 1000).words == SAME
    # Nearer the ceiling one point weighs more.
    near = judge(RANDOM[:1] + 15, RANDOM - np.array([[3.0]]) + 15, 1000)
    far = judge(RANDOM[:1] - 25, RANDOM - np.array([[3.0]]) - 25, 1000)
    assert near.p_better is not None and far.p_better is not None and near.p_better < far.p_better


def test_the_test_is_the_prediction_interval_on_logits():
    found = np.array([[84.0, 85.0, 86.0]])
    shares = np.append(RANDOM.mean(1), 85.0) * 10
    logits = np.log((shares + 0.5) / (1000 - shares + 0.5))
    ratio = (logits[-1] - logits[:-1].mean()) / (logits[:-1].std(ddof=1) * np.sqrt(1 + 1 / 5))
    verdict = judge(found, RANDOM, 1000)
    assert verdict.p_better == pytest.approx(stats.t.sf(ratio, 4))
    assert verdict.p_worse == pytest.approx(stats.t.cdf(ratio, 4))


def test_runs_that_diverged_are_left_out_and_a_found_cell_without_any_is_worse():
    partly = RANDOM.copy()
    partly[0, 1] = np.nan
    same = RANDOM.copy()
    same[0] = RANDOM[0, [0, 2]].mean()
    found = np.array([[86.0, 85.0, 87.0]])
    assert judge(found, partly, 1000) == judge(found, same, 1000)
    assert judge(found, np.concatenate([RANDOM, NAN[None]]), 1000) == judge(found, RANDOM, 1000)
    assert judge(NAN[None], RANDOM, 1000).words == WORSE
    # With four random cells nothing is tested, not even this.
    assert judge(found + 10, np.concatenate([RANDOM[:4], NAN[None]]), 1000) == (SAME, None, None)
    summary = summarise(NAN[None], RANDOM, NAN, 1000)
    assert (summary["found"], summary["residual"], summary["failed"]) == (None, None, 6)
    assert "worse than random cells" in summary["sentence"] and "diverges" in summary["sentence"]
    assert summary["rank"] == 6


def test_cells_that_are_all_alike():
    alike = np.full((8, 3), 90.0)
    assert judge(alike[:1], alike, 1000).words == SAME
    assert judge(alike[:1] + 1, alike, 1000).words == BETTER
    assert judge(np.full((1, 3), 100.0), alike, 1000).words == BETTER


def test_a_rank_counts_the_better_cells_and_gives_equals_the_better_place():
    place = rank(np.array([81.0, 82.0, 83.0]), RANDOM)
    assert (place.rank, place.among) == (2, 6)
    # The mean of 82 equals that of the last random cell: neither beaten nor better.
    assert place.beaten == pytest.approx(3 / 5)
    assert place.interval == (binomial_interval(3, 5)[0], binomial_interval(4, 5)[1])


def test_the_binomial_interval_is_the_exact_one():
    assert binomial_interval(0, 10) == pytest.approx((0, 0.3085), abs=1e-4)
    assert binomial_interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert binomial_interval(10, 10) == pytest.approx((0.6915, 1), abs=1e-4)
    low, high = binomial_interval(3, 16)
    assert stats.binom.sf(2, 16, low) == pytest.approx(0.025) == stats.binom.cdf(3, 16, high)


def test_the_sentence_holds_the_verdict_and_every_figure():
    summary = summarise(np.array([[90.0, 91.0, 92.0]]), RANDOM, np.array([85.0, 86.0, 87.0]), 1000)
    sentence = summary["sentence"]
    for part in ("found cell is better than random cells", "91.00 %", "81.40 ± 1.82 % of 5", "3 seeds", "86.00 %"):
        assert part in sentence
    assert "\n" not in sentence
    two = summarise(RANDOM[:2], RANDOM, RANDOM[0], 1000)
    assert two["sentence"].startswith("The 2 found cells are not distinguishable from random cells")
    assert two["seed_deviation"] == pytest.approx(1.0)
    assert two["rank"] == 1 and two["found"] == pytest.approx(82.5)


def test_the_least_numbers_are_those_that_settings_name():
    assert (settings.LEAST_CELLS, settings.LEAST_SEEDS) == (LEAST_CELLS, LEAST_SEEDS)
