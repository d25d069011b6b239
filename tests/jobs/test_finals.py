"""The last comparison: who takes part, who wins, and that nothing is trained twice."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parsec.cells import get_space
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator
from parsec.jobs.search.domain import whole_domain
from parsec.jobs.search.finals import COMPARED, choose_finalists, decide, remembered
from parsec.jobs.search.strategy import Searched
from parsec.run.workdir import claim
from parsec.settings.search import SearchConfig

SPACE = get_space("nasbench201")
DOMAIN = whole_domain(SPACE)
NAMES = ("valid_accuracy", "valid_log_likelihood")
ROWS = np.array([[0, 1, 2, 3, 4, 0], [1, 1, 1, 1, 1, 1], [3, 3, 3, 3, 3, 3], [2, 2, 2, 2, 2, 2]], np.int32)
EVALUATED = Evaluated(ROWS, np.array([[20.0], [np.nan], [40.0], [30.0]]))


def scores_of(asked: list, together: int = 2) -> Evaluator:
    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Callable[[], None]) -> np.ndarray:
        assert len(architectures) <= together
        asked.extend(architectures.tolist())
        first = np.where(architectures[:, 0] == 3, np.nan, architectures.sum(1)).astype(np.float32)
        return np.stack([first, architectures[:, 0].astype(np.float32)], 1)

    return Evaluator(("valid_accuracy", "other"), evaluate, together=together)


def test_a_mode_that_is_not_in_the_domain_gives_way_to_the_most_probable_sample():
    narrow = replace(DOMAIN, valid=lambda rows: np.asarray(rows)[:, 0] != 4)
    logits = np.where(np.arange(5) == 4, 8.0, 0.0).astype(np.float32) * np.ones((6, 1), np.float32)
    logits[0] = [0.0, 3.0, 0.0, 0.0, 8.0]
    found = choose_finalists(Searched(EVALUATED, logits), NAMES, SPACE, narrow, 2)
    assert found.tolist() == [[1, 4, 4, 4, 4, 4], ROWS[2].tolist()]


def test_finalists_are_the_priors_mode_and_the_best_of_the_search():
    assert choose_finalists(Searched(EVALUATED), NAMES, SPACE, DOMAIN, 2).tolist() == ROWS[[2, 3]].tolist()
    # What scores alike is one network.
    alike = Searched(EVALUATED._replace(scores=np.array([[31.0, 5, 6], [np.nan] * 3, [40.0, 5, 7], [30.0, 5, 6]])))
    assert choose_finalists(alike, NAMES, SPACE, DOMAIN, 9).tolist() == ROWS[[2, 0]].tolist()
    # What failed is none.
    assert choose_finalists(Searched(EVALUATED), NAMES, SPACE, DOMAIN, 9).tolist() == ROWS[[2, 3, 0]].tolist()
    logits = np.zeros((6, 5), np.float32)
    logits[:, 4] = 1
    assert choose_finalists(Searched(EVALUATED, logits), NAMES, SPACE, DOMAIN, 3).tolist() == [
        [4] * 6,
        *ROWS[[2, 3]].tolist(),
    ]
    # What more is expected of goes before what is more probable.
    expected = Searched(EVALUATED, logits, effects=np.roll(logits, 1, 1))
    assert choose_finalists(expected, NAMES, SPACE, DOMAIN, 3).tolist() == [[0] * 6, *ROWS[[2, 3]].tolist()]
    # The mode may be among the best.
    logits[:, 3] = 2
    assert choose_finalists(Searched(EVALUATED, logits), NAMES, SPACE, DOMAIN, 3).tolist() == ROWS[[2, 3, 0]].tolist()


def test_candidates_by_what_was_told_and_by_what_was_measured_take_turns():
    scores = np.array([[0.9, 10, -3.0], [0.8, 11, -2.0], [0.7, 12, -1.0], [np.nan] * 3])
    told = Searched(Evaluated(ROWS, scores))
    names = ("value", *NAMES)
    assert choose_finalists(told, names, SPACE, DOMAIN, 9).tolist() == ROWS[[0, 2, 1]].tolist()
    assert choose_finalists(told, names[::-1], SPACE, DOMAIN, 9).tolist() == ROWS[[0, 1, 2]].tolist()


def test_the_best_of_them_is_found_and_none_is_trained_twice(tmp_path: Path):
    asked: list = []
    with claim(tmp_path, SearchConfig()) as run:
        scores = remembered(run.path / COMPARED, lambda: nullcontext((scores_of(asked), None)))
        # The first two of the rows fail or are worse.
        assert decide(run, ROWS[[2, 0, 3, 1]], scores).tolist() == ROWS[3].tolist()
        assert len(asked) == 4
        again = remembered(run.path / COMPARED, lambda: nullcontext((scores_of(asked), None)))
        np.testing.assert_array_equal(again(ROWS)[:, 0], [10, 6, np.nan, 12])
        np.testing.assert_array_equal(again(ROWS)[:, 1], [0, 1, 3, 2])
        assert len(asked) == 4
        assert decide(run, ROWS[[2]], again).tolist() == ROWS[2].tolist()
        (run.path / COMPARED).write_text("{}\n")
        with pytest.raises(UserError, match=r"line 1 of .*compared.jsonl is not an evaluation"):
            remembered(run.path / COMPARED, lambda: nullcontext((scores_of(asked), None)))
