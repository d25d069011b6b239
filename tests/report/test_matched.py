"""The verdict on cells of different sizes: its chances by counting, and what it makes of runs that diverged."""

from itertools import product

import numpy as np
import pytest

from parsec.report.matched import judge_matched, summarise_matched
from parsec.report.verdict import BETTER, SAME, WORSE


@pytest.mark.parametrize("seed", range(6))
def test_chances_are_those_of_every_order_counted(seed: int):
    rng = np.random.default_rng(seed)
    found, random = rng.normal(size=3), rng.normal(size=(3, 2)) - seed / 4
    beaten = int((random < found[:, None]).sum())
    # Each cell is as likely to beat none of its two, one, or both.
    sums = [sum(each) for each in product(range(3), repeat=3)]
    verdict = judge_matched(found, random)
    assert verdict.p_better == pytest.approx(np.mean([each >= beaten for each in sums]))
    assert verdict.p_worse == pytest.approx(np.mean([each <= beaten for each in sums]))


def test_a_size_of_its_own_does_not_make_a_cell_better_but_beating_its_likes_does():
    sizes = np.array([[10.0], [20.0], [30.0], [40.0]])
    alike = sizes + np.array([[-1.0, 1.0, -2.0, 2.0]])
    assert judge_matched(sizes[:, 0], alike).words == SAME
    assert judge_matched(sizes[:, 0] + 3, alike).words == BETTER
    assert judge_matched(sizes[:, 0] - 3, alike).words == WORSE
    # Equals count for neither side, and a cell that diverged beats nothing.
    assert judge_matched(np.ones(4), np.ones((4, 4)))[1:] == (1.0, 1.0)
    assert judge_matched(np.full(4, np.nan), alike).words == WORSE


def test_figures_and_sentence_say_what_was_compared_with_what():
    found = np.array([[50.0, 52.0, 51.0], [60.0, np.nan, 62.0]])
    random = np.array([[[40.0] * 3, [55.0] * 3], [[np.nan] * 3, [59.0] * 3]])
    summary = summarise_matched(found, random, np.full(3, 45.0), [[900, 1100], [1900, 2100]], 10_000)
    assert summary["beaten"] == 0.75 and summary["found_cells"] == 2 and summary["random_cells"] == 4
    assert summary["beaten_interval"][0] < 0.75 < summary["beaten_interval"][1]
    assert [each["beaten"] for each in summary["members"]] == [0.5, 1.0]
    assert summary["members"][1] == {
        "test": 61.0,
        "deviation": pytest.approx(np.sqrt(2)),
        "random": 59.0,
        "random_params": [1900, 2100],
        "beaten": 1.0,
    }
    assert "rank" not in summary and summary["failed"] == 4
    assert summary["sentence"] == (
        "The 2 cells of the front are not distinguishable from random cells of about as many parameters as each: "
        "56.00 % in the mean against 51.33 % of 4 random cells trained alike, 3 seeds each, 3 of which are beaten, "
        "p = 0.33 for better; the plain residual network has 45.00 %"
    )
