"""The one loop and its ledger: what is charged, when a run is over, what is refused, and what a journal brings back."""

import functools
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from parsec.cells.domain import product_domain
from parsec.errors import UserError
from parsec.evaluate.contract import Evaluated, Evaluator, Pause
from parsec.evaluate.table import fidelity_evaluator, table_evaluator
from parsec.run.journal import JOURNAL, Journal, Scored, Told
from parsec.run.ledger import PROPOSALS_PER_QUERY, Ledger, Rule
from parsec.run.play import check_asks, play, play_lanes
from parsec.run.trials import longest_trainings
from parsec.search.contract import Strategy
from parsec.search.registry import make_strategy
from parsec.tables.table import make_table

SIZES = (3, 2)
DOMAIN = product_domain(SIZES)
TABLE = make_table(
    "six", np.array(SIZES), DOMAIN.pool, {"score": np.arange(6.0), "cost": np.array([5.0, 4, 3, 2, 1, np.nan])}
)
BOTH = table_evaluator(TABLE, ("score", "-cost"))
# The same after four times as long a training, with ten times the score.
PAIRS = fidelity_evaluator(
    replace(TABLE, columns={**TABLE.columns, "longer": 10 * np.arange(6.0)}),
    [("score", "-cost"), ("longer", "-cost")],
)


def scripted(*asks: list[list[int]], jittable: bool = True) -> Strategy:
    """A strategy that proposes what it is told to, the last again and again, and remembers how it was told scores."""
    script = jnp.array(asks, jnp.int32)

    def ask(key: jax.Array, state: Any) -> Any:
        return script[jnp.minimum(state[0], len(asks) - 1)], (state[0] + 1, state[1])

    def tell(state: Any, architectures: Any, scores: Any) -> Any:
        return (state[0], state[1] + jnp.nan_to_num(jnp.asarray(scores)).sum()), {}

    return Strategy(lambda key: (jnp.zeros((), jnp.int32), jnp.zeros(())), ask, tell, jittable)


def listening(strategy: Strategy) -> tuple[Strategy, list[tuple[np.ndarray, np.ndarray]]]:
    """Returns the strategy, and the list of the architectures and scores that it is told."""
    told: list[tuple[np.ndarray, np.ndarray]] = []

    def tell(state: Any, architectures: Any, scores: Any) -> Any:
        told.append((np.array(architectures), np.array(scores)))
        return strategy.tell(state, architectures, scores)

    return strategy._replace(tell=tell, jittable=False), told


def on_the_host(strategy: Strategy, rule: Rule, evaluator: Evaluator = BOTH, **more: Any) -> Ledger:
    ledger = Ledger(rule, DOMAIN, evaluator.rows, len(evaluator.objectives), "scripted")
    play(strategy, evaluator, ledger, jax.random.key(0), **more)
    return ledger


def compiled(strategy: Strategy, rule: Rule, evaluator: Evaluator = BOTH) -> Any:
    program = jax.jit(functools.partial(play_lanes, strategy, evaluator, rule))
    return jax.tree.map(lambda leaf: leaf[0], program(jax.random.key(0)[None]))


@pytest.mark.parametrize(
    ("asks", "rule", "charged", "proposals"),
    [
        ([[[0, 0], [1, 1]], [[1, 1], [2, 0]]], Rule(3), [0, 3, 4], 4),
        ([[[0, 0], [0, 0]], [[0, 1], [0, 0]]], Rule(4, "all"), [0, 0, 1, 0], 4),
        ([[[0, 0], [0, 1]], [[1, 0], [1, 1]]], Rule(3), [0, 1, 2], 4),
        ([[[0, 0], [-1, -1]], [[-1, -1], [-1, -1]]], Rule(5), [0], 1),
        ([[[-1, -1]]], Rule(2), [], 0),
        ([[[2, 1]]], Rule(2), [5], 2 * PROPOSALS_PER_QUERY),
    ],
    ids=["repeats are free", "or charged", "the budget is kept", "nothing is free", "nothing ends it", "only repeats"],
)
def test_both_forms_charge_alike(asks: list, rule: Rule, charged: list[int], proposals: int):
    ledger, tally = on_the_host(scripted(*asks), rule), compiled(scripted(*asks), rule)
    assert (ledger.charged, ledger.proposals) == (charged, proposals)
    assert np.asarray(tally.rows).tolist() == charged + [-1] * (rule.budget - len(charged))
    assert (int(tally.charged), int(tally.proposals), int(tally.invalid)) == (len(charged), proposals, 0)


@pytest.mark.parametrize(
    ("asks", "charged", "proposals"),
    [
        ([[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [1, 0, 0]]], [0, 6, 2], 8 * PROPOSALS_PER_QUERY),
        ([[[0, 0, 1], [1, 0, 1]]], [6, 8], 2),
        ([[[0, 0, 0], [-1, -1, -1], [1, 0, 1]], [[2, 0, 1], [2, 0, 0], [2, 1, 0]]], [0, 8], 5),
        ([[[0, 0, 1], [0, 1, 0]], [[1, 0, 0], [1, 1, 0]], [[2, 0, 0], [2, 1, 0]]], [6, 1, 2, 3, 4], 6),
    ],
    ids=["another fidelity is another query", "the whole budget", "what cannot be paid is the end", "short ones fit"],
)
def test_both_forms_charge_a_training_by_its_epochs(asks: list, charged: list[int], proposals: int):
    """Two queries of four epochs; a training of one epoch is a quarter of a query."""
    rule = Rule(2, epochs=(1, 4))
    ledger, tally = on_the_host(scripted(*asks), rule, PAIRS), compiled(scripted(*asks), rule, PAIRS)
    assert (ledger.charged, ledger.proposals) == (charged, proposals)
    assert np.asarray(tally.rows).tolist() == charged + [-1] * (8 - len(charged))
    assert int(tally.proposals) == proposals and int(tally.spent) == sum(4 if row > 5 else 1 for row in charged)


def test_scores_are_told_of_the_fidelity_that_was_asked_for_and_options_of_it_are_checked():
    strategy, told = listening(scripted([[2, 0, 0], [2, 0, 1], [-1, -1, -1]]))
    ledger = on_the_host(strategy, Rule(2, epochs=(1, 4)), PAIRS)
    np.testing.assert_array_equal(told[0][1], np.array([[4, -1], [40, -1], [np.nan, np.nan]], np.float32))
    np.testing.assert_array_equal(ledger.finished().architectures, [[2, 0, 0], [2, 0, 1]])
    rows, scores = jax.jit(PAIRS.traced)(jnp.array([[2, 0, 1], [2, 0, 0], [3, 0, 0]]))
    assert np.asarray(rows).tolist() == [10, 4, -1] and np.asarray(scores)[:2, 0].tolist() == [40, 4]
    with pytest.raises(UserError, match=r"proposed option 2 of choice 2; it must be 0\.\.1"):
        on_the_host(scripted([[0, 0, 2]]), Rule(2, epochs=(1, 4)), PAIRS)
    with pytest.raises(UserError, match=r"ask must return integers \[B, 3\]"):
        on_the_host(scripted([[0, 0]]), Rule(2, epochs=(1, 4)), PAIRS)


def test_the_longest_trainings_stand_at_the_query_whose_epochs_they_end_in():
    # 1 + 4 epochs end in the second query of four, 1 + 4 + 1 + 1 + 1 + 4 = 12 in the third.
    charged = np.array([[0, 6, 1, 2, 3, 8, -1, -1, -1, -1, -1, -1], [7, 10, 9, *[-1] * 9]])
    found = longest_trainings(Rule(3, epochs=(1, 4)), charged, PAIRS)
    assert found.tolist() == [[-1, 0, 2], [1, 4, 3]]
    np.testing.assert_array_equal(longest_trainings(Rule(3), charged[:, :3], BOTH), charged[:, :3])


@pytest.mark.parametrize("asks", [[[[0, 0], [3, 0]]], [[[0, 2], [0, 0]]], [[[0, -1], [0, 0]]]])
def test_an_option_that_does_not_exist_is_the_strategys_error_in_both_forms(asks: list):
    with pytest.raises(
        UserError, match=r"strategy scripted proposed option -?\d of choice \d; it must be 0\.\.[12], or"
    ):
        on_the_host(scripted(*asks), Rule(3))
    tally = compiled(scripted(*asks), Rule(3))
    # Neither charged nor marked as any row of the table, and the run ends.
    assert int(tally.invalid) == 1 and not np.asarray(tally.seen)[-1]
    assert np.asarray(tally.rows).tolist() == [0, -1, -1]


@pytest.mark.parametrize("asked", [np.zeros((2, 3), np.int32), np.zeros(2, np.int32), np.zeros((1, 2), np.float32)])
def test_what_is_no_list_of_architectures_is_refused(asked: np.ndarray):
    strategy = scripted([[0, 0]])._replace(ask=lambda key, state: (asked, state), jittable=False)
    with pytest.raises(UserError, match=r"ask must return integers \[B, 2\]"):
        on_the_host(strategy, Rule(2))
    with pytest.raises(UserError, match=r"ask must return integers \[B, 2\]"):
        check_asks(strategy, "scripted", 2)


def test_an_architecture_outside_the_domain_is_refused():
    partial = make_table("two", np.array(SIZES), np.array([[0, 0], [2, 1]]), {"score": np.arange(2.0)})
    with pytest.raises(UserError, match=r"proposed \[1, 1\], which is no architecture of this search"):
        on_the_host(scripted([[0, 0], [1, 1]]), Rule(2), table_evaluator(partial, ("score",)))


def test_all_objectives_are_told_and_kept():
    strategy, told = listening(scripted([[0, 0], [2, 1], [-1, -1]], [[1, 0], [1, 1], [0, 0]]))
    ledger = on_the_host(strategy, Rule(5))
    np.testing.assert_array_equal(told[0][1], np.array([[0, -5], [5, np.nan], [np.nan, np.nan]], np.float32))
    np.testing.assert_array_equal(ledger.finished().scores[2:], [[2, -3], [3, -2]])
    rows, scores = jax.jit(BOTH.traced)(jnp.array([[0, 1], [3, 0]]))
    assert np.asarray(rows).tolist() == [1, -1]
    np.testing.assert_array_equal(scores, np.array([[1, -4], [np.nan, np.nan]], np.float32))


def test_a_score_of_another_length_is_refused():
    short = BOTH._replace(evaluate=lambda *asked: np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="names 2 objectives"):
        on_the_host(scripted([[0, 0]]), Rule(1), short)


def test_what_is_evaluated_side_by_side_takes_about_as_long():
    """Four are asked for and evaluated two at a time: the two cheap ones together, and each gets its own score."""
    together: list[list[int]] = []

    def evaluate(architectures: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        together.append(TABLE.find(architectures).tolist())
        return BOTH.evaluate(architectures, evaluated, pause)

    def cost(architectures: np.ndarray) -> np.ndarray:
        return architectures[:, 1].astype(np.float64)

    strategy, told = listening(scripted([[0, 1], [0, 0], [1, 1], [1, 0]]))
    on_the_host(strategy, Rule(4), BOTH._replace(evaluate=evaluate, together=2, cost=cost))
    assert together == [[0, 2], [1, 3]]
    assert told[0][1][:, 0].tolist() == [1, 0, 3, 2]


class KilledError(Exception):
    """The process is gone."""


def slowly(order: list[int], journal: Path, dies_after: int = 100) -> Callable[..., np.ndarray]:
    """Returns scores in such an order: the n-th to finish is the one with the n-th row, once those before are known."""
    lock, finished = threading.Condition(), []

    def wait_for(written: str, count: int) -> None:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_text().count(written) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def evaluate(architecture: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        row = int(TABLE.find(architecture[None])[0])
        with lock:
            lock.wait_for(lambda: finished == order[: order.index(row)] or len(finished) == dies_after, timeout=60)
        if len(finished) == dies_after:
            wait_for('"tell"', 1)
            raise KilledError
        wait_for('"scores"', len(finished))
        with lock:
            finished.append(row)
            lock.notify_all()
        return BOTH.evaluate(architecture, evaluated, pause)

    return evaluate


def test_evaluations_finish_in_any_order_and_a_killed_run_goes_on_from_its_journal(tmp_path: Path):
    """Three asks of two are open at once, and the last to be asked finish first; then the process is killed."""
    asks = [[0, 0], [0, 1]], [[1, 0], [1, 1]], [[2, 0], [2, 1]]

    def run(journal: Journal, evaluate: Any) -> tuple[Ledger, list]:
        strategy, told = listening(scripted(*asks))
        with ThreadPoolExecutor(6) as pool:
            evaluator = BOTH._replace(evaluate=evaluate)
            # One query more than there are architectures, so that the third ask is told as well.
            return on_the_host(strategy, Rule(7), evaluator, journal=journal, pool=pool, under_way=5), told

    (tmp_path / "whole").mkdir()
    whole, told = run(Journal(tmp_path / "whole"), slowly([5, 4, 2, 3, 0, 1], tmp_path / "whole" / JOURNAL))
    assert sorted(whole.charged) == list(range(6))
    assert told[0][0].tolist() == asks[2]

    (tmp_path / "cut").mkdir()
    with pytest.raises(KilledError):
        run(Journal(tmp_path / "cut"), slowly([5, 4, 2, 3, 0, 1], tmp_path / "cut" / JOURNAL, dies_after=3))
    before = Journal(tmp_path / "cut").entries
    assert sum(isinstance(entry, Scored) for entry in before) >= 2 and any(isinstance(entry, Told) for entry in before)
    asked: list[int] = []

    def again(architecture: np.ndarray, evaluated: Evaluated, pause: Pause) -> np.ndarray:
        asked.append(int(TABLE.find(architecture[None])[0]))
        return BOTH.evaluate(architecture, evaluated, pause)

    resumed, told = run(Journal(tmp_path / "cut"), again)
    # What the journal holds is not evaluated again, and nothing is lost or counted twice.
    scored = {int(TABLE.find(entry.architecture[None])[0]) for entry in before if isinstance(entry, Scored)}
    assert not scored & set(asked) and scored | set(asked) == set(range(6)) and len(asked) == len(set(asked))
    assert told[0][0].tolist() == asks[2]
    np.testing.assert_array_equal(resumed.finished().scores, whole.finished().scores)


def test_a_journal_is_read_back_to_the_bit_and_another_runs_is_refused(tmp_path: Path):
    journal = Journal(tmp_path)
    strategy = make_strategy("regularized_evolution", DOMAIN, {"population": 2})
    on_the_host(strategy, Rule(5), journal=journal)
    text = (tmp_path / JOURNAL).read_text()
    scores = [json.loads(line)["scores"] for line in text.splitlines() if "scores" in line]
    assert len(scores) == 5 and all(len(each) == 2 for each in scores)

    def never(*asked: Any) -> np.ndarray:
        raise AssertionError("evaluated again")

    again = on_the_host(strategy, Rule(5), BOTH._replace(evaluate=never), journal=Journal(tmp_path))
    assert again.charged == on_the_host(strategy, Rule(5)).charged
    assert (tmp_path / JOURNAL).read_text() == text
    with pytest.raises(UserError, match="is not what this run does; choose another --workdir"):
        on_the_host(scripted([[0, 0]]), Rule(5), journal=Journal(tmp_path))
    assert (tmp_path / JOURNAL).read_text() == text
