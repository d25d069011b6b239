"""Rank correlations: over all and among the best; ties, missing figures, and too few of them."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from parsec.report.ranking import best_third, rank_correlation, ranking, ranking_words

NAN = np.nan


def test_the_best_third_is_ranked_by_the_true_figures_and_not_by_the_told_ones():
    """Told right but for the best three of nine, which are told upside down."""
    true = np.arange(9.0)
    told = np.array([0, 1, 2, 3, 4, 5, 8, 7, 6.0])
    found = ranking({"accuracy": told, "log_likelihood": -true}, true)
    assert found["accuracy"] == {"all": round(float(spearmanr(told, true).statistic), 4), "best_third": -1.0}
    assert found["log_likelihood"] == {"all": -1.0, "best_third": -1.0}


@pytest.mark.parametrize(
    ("true", "best"),
    [
        ([1, 2, 3, 4, 5, 6], [4, 5]),
        ([6, 5, 4, 3, 2, 1], [0, 1]),
        # The last of the third is tied, and a figure that is missing counts for nothing.
        ([1, 5, 5, 5, 2, 3], [1, 2, 3]),
        ([NAN, 9, 8, 7, NAN, np.inf], [1]),
        ([NAN, NAN], []),
        ([3], [0]),
    ],
)
def test_the_best_third_counts_finite_figures_and_takes_ties_along(true: list[float], best: list[int]):
    assert np.flatnonzero(best_third(np.array(true, float))).tolist() == best


def test_ties_share_their_mean_rank_and_missing_pairs_are_left_out():
    told, true = np.array([1, 1, 2, 3, NAN, 9.0]), np.array([1, 2, 2, 5, 0, NAN])
    assert rank_correlation(told, true) == round(float(spearmanr(told[:4], true[:4]).statistic), 4)


@pytest.mark.parametrize(
    ("told", "true"),
    [([1, 2], [2, 1]), ([1, 2, NAN], [1, 2, 3]), ([4, 4, 4], [1, 2, 3]), ([1, 2, 3], [7, 7, 7]), ([], [])],
    ids=["two", "two finite", "told alike", "true alike", "none"],
)
def test_too_few_pairs_or_constants_have_no_correlation(told: list[float], true: list[float]):
    assert rank_correlation(np.array(told, float), np.array(true, float)) is None


def test_scores_of_float32_are_ranked_in_all_their_digits():
    assert rank_correlation(np.array([0.1, 0.2, 0.3], np.float32), np.array([1.0, 2.0, 3.0])) == 1.0


def test_words_leave_out_what_is_not_known():
    known, unknown = {"all": 0.5, "best_third": None}, {"all": None, "best_third": None}
    record = {"cells": 7, "ranked_by": "test_200", "accuracy": known, "log_likelihood": unknown}
    assert ranking_words(record) == {"accuracy": "0.500 with test_200 of 7 cells"}
    record["log_likelihood"] = {"all": -0.25, "best_third": 0.125}
    assert ranking_words(record)["log-likelihood"] == "-0.250 with test_200 of 7 cells, 0.125 within the best third"
    assert ranking_words({}) == {}
