"""What every strategy of several fidelities must do: brackets, who is promoted, and what each learns from."""

import functools
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from parsec.cells.domain import Domain
from parsec.report.pareto import hypervolume, hypervolume_curves
from parsec.run.trials import Task, run_trials
from parsec.search.brackets import Rung, best_first, halved, hyperband
from parsec.search.contract import Strategy
from parsec.search.front import directions
from parsec.search.mo_bohb import _density, _draw, _longest_known
from parsec.search.registry import make_strategy, names
from parsec.tables.fidelities import name_after
from parsec.tables.table import Table, make_table, table_domain

NAMES = names(many=True, multi_fidelity=True)
EPOCHS = (1, 4, 16)
OBJECTIVES = ("accuracy_16", "saving")
QUICK: dict[str, dict[str, Any]] = {
    "mo_bohb": {"initial": 6},
    "sh_emoa": {"population": 8, "stage": 3},
    "sh_mo_bananas": {"initial": 6, "batch": 6, "candidates": 40, "parents": 10, "capacity": 128},
}


@functools.cache
def landscape() -> Table:
    """Accuracy and saving pull apart; a shorter training knows less of the accuracy, and is lower."""
    rng = np.random.default_rng(3)
    sizes = (4, 4, 4, 4, 4)
    rows = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), 1)
    rows = rows[rows.sum(1) % 5 != 0]
    worth = np.sort(rng.random((5, 4)), 1)
    value = worth[np.arange(5), rows].sum(1) / 5 + 0.2 * rng.random((4, 4))[rows[:, 0], rows[:, 1]] - 0.2
    noise = rng.normal(size=len(rows))
    short = {f"accuracy_{e}": value - 0.1 / e + 0.05 * noise / e for e in EPOCHS[:-1]}
    return make_table(
        "landscape", np.array(sizes), rows, {**short, "accuracy_16": value, "saving": 1 - rows.sum(1) / 16}
    )


def domain() -> Domain:
    return replace(table_domain(landscape()), fidelities=EPOCHS)


@functools.cache
def strategy_of(name: str) -> Strategy:
    made = make_strategy(name, domain(), QUICK[name], len(OBJECTIVES))
    return made._replace(ask=jax.jit(made.ask), tell=jax.jit(made.tell)) if made.jittable else made


def scores_of(pairs: np.ndarray) -> np.ndarray:
    """Returns the scores of pairs [B, L + 1], float32 [B, 2]; NaN where nothing is proposed."""
    rows = landscape().find(pairs[:, :-1])
    each = [[landscape().columns[name_after(name, e)] for name in OBJECTIVES] for e in EPOCHS]
    found = np.array(each)[pairs[:, -1], :, rows].astype(np.float32)
    return np.where((pairs[:, 0] >= 0)[:, None], found, np.float32(np.nan))


def advance(
    name: str, state: Any, steps: range, key: jax.Array, failing: int = 0, open_at_once: int = 1
) -> tuple[np.ndarray, Any]:
    """Asks and tells, so many asks at once, the last of them first; every `failing`-th architecture fails."""
    strategy, asked, waiting = strategy_of(name), [], []
    for step in steps:
        pairs, state = strategy.ask(jax.random.fold_in(key, step), state)
        pairs = np.asarray(pairs)
        offered = pairs[pairs[:, 0] >= 0]
        assert len(offered) and (landscape().find(offered[:, :-1]) >= 0).all()
        assert offered[:, -1].min() >= 0 and offered[:, -1].max() < len(EPOCHS)
        asked.append(pairs)
        waiting.append(pairs)
        while len(waiting) == open_at_once:
            pairs = waiting.pop()
            told = scores_of(pairs)
            if failing:
                told[landscape().find(pairs[:, :-1]) % failing == 0] = np.nan
            state, info = strategy.tell(state, pairs, told)
            assert int(info["failed"]) == int(np.isnan(told[pairs[:, 0] >= 0, 0]).sum())
            assert all(np.ndim(value) == 0 for value in info.values())
    assert {each.shape for each in asked} == {asked[0].shape} and asked[0].dtype == np.int32
    return np.concatenate(asked), state


@pytest.mark.parametrize("name", NAMES)
def test_is_a_function_of_its_key_and_its_state_survives_being_saved(name: str, key: jax.Array) -> None:
    start = strategy_of(name).init(key)
    first, state = advance(name, start, range(14), key)
    again, _ = advance(name, start, range(14), key)
    other, _ = advance(name, start, range(14), jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    expected, _ = advance(name, state, range(14, 20), key)
    saved = [np.array(leaf) for leaf in jax.tree.leaves(state)]
    resumed, _ = advance(name, jax.tree.unflatten(jax.tree.structure(state), saved), range(14, 20), key)
    np.testing.assert_array_equal(resumed, expected)


@pytest.mark.parametrize("name", NAMES)
def test_survives_failures_and_several_asks_at_once(name: str, key: jax.Array) -> None:
    _, state = advance(name, strategy_of(name).init(key), range(4), key, failing=1)
    late, state = advance(name, state, range(4, 24), key, failing=3)
    assert len(np.unique(late[late[:, 0] >= 0][-8:], axis=0)) > 1
    advance(name, state, range(24, 34), key, open_at_once=3)


@pytest.mark.parametrize("name", NAMES)
def test_trainings_of_all_lengths_are_asked_for(name: str, key: jax.Array) -> None:
    asked, _ = advance(name, strategy_of(name).init(key), range(90), key)
    counts = np.bincount(asked[asked[:, 0] >= 0, -1], minlength=3)
    assert counts.min() > 0 and (counts[0] > counts[1] or name == "mo_bohb")


@functools.cache
def volume_within_budget(name: str) -> float:
    """Returns the mean hypervolume of what is found within 40 queries, as a fraction of the whole front's."""
    table = landscape()
    gains = np.stack([table.columns[each] for each in OBJECTIVES], 1)
    task = Task(name, QUICK.get(name, {}), OBJECTIVES, 40, "unique", 0)
    rows = run_trials(lambda: (table, domain()), task, 4).rows
    assert rows.shape == (4, 40)
    return hypervolume_curves(rows, gains)[:, -1].mean() / hypervolume(gains)


@pytest.mark.parametrize("name", NAMES)
def test_more_of_the_front_is_found_than_by_full_trainings_of_random_cells_in_the_same_epochs(name: str) -> None:
    assert volume_within_budget(name) > volume_within_budget("random") + 0.03


def test_hyperbands_brackets_are_those_of_the_paper() -> None:
    # R = 81 and eta = 3, as in Table 1 of Li et al., with (s_max + 1) / (s + 1) eta^s for the first rung.
    assert hyperband((1, 3, 9, 27, 81)) == (
        tuple(map(Rung, range(5), (81, 27, 9, 3, 1))),
        tuple(map(Rung, range(1, 5), (34, 11, 3, 1))),
        tuple(map(Rung, range(2, 5), (15, 5, 1))),
        tuple(map(Rung, range(3, 5), (8, 2))),
        (Rung(4, 5),),
    )
    # Trainings of any lengths: a rung takes what one or two of 200 epochs do.
    assert hyperband((12, 200)) == ((Rung(0, 17), Rung(1, 1)), (Rung(1, 2),))
    assert halved((9, 25), 0, 10) == (Rung(0, 10), Rung(1, 3))
    assert halved((1, 3, 9), 0, 2) == (Rung(0, 2), Rung(1, 1), Rung(2, 1))


def test_the_best_are_those_of_the_first_fronts_and_then_those_that_add_most() -> None:
    front = np.array([[1, 0.3], [0.9, 0.55], [0.85, 0.6], [0.6, 0.9], [0.2, 1]], np.float32)
    scores = np.concatenate([0.4 * front, front])
    along = directions(2, 512)
    # Of the five of the first front three: that of the largest box, and those that add most to it.
    gained, left = [], set(range(5))
    while len(gained) < 3:
        volume = {at: hypervolume(front[[*gained, at]].astype(float)) for at in left}
        gained.append(max(volume, key=lambda at: volume[at]))
        left.remove(gained[-1])
    assert best_first(scores, 3, along, scores[:0]).tolist() == [5 + at for at in gained]
    assert set(best_first(scores, 7, along, scores[:0]).tolist()) > {5, 6, 7, 8, 9}
    assert len(best_first(scores, 20, along, scores[:0])) == 10
    # A larger box of a later front comes after a smaller one of an earlier.
    later = np.array([[0.6, 0.6], [0.95, 0.05], [1, 1], [0.7, 0.7]], np.float32)
    assert best_first(later, 4, along, later[:0]).tolist() == [2, 3, 1, 0]
    # What adds least to what was chosen before comes last; where nothing adds anything the largest box is first.
    assert best_first(front, 5, along, front[[1, 4]])[-2:].tolist() == [1, 4]
    assert best_first(front, 1, along, front + 1).tolist() == [gained[0]]


def rung_of(pairs: np.ndarray) -> np.ndarray:
    return pairs[pairs[:, 0] >= 0]


def test_the_best_of_a_rung_are_trained_longer_and_no_others(key: jax.Array) -> None:
    halving = replace(domain(), fidelities=(1, 2, 4))
    strategy = make_strategy("sh_mo_bananas", halving, QUICK["sh_mo_bananas"], 2)
    asked, state = strategy.ask(key, strategy.init(key))
    assert rung_of(asked)[:, -1].tolist() == [2] * 6, "the first are trained fully"
    state, _ = strategy.tell(state, asked, scores_of(asked))
    first, state = strategy.ask(jax.random.fold_in(key, 1), state)
    assert rung_of(first)[:, -1].tolist() == [0] * 6
    scores = np.array([[0.1, 0.1], [0.9, 0.2], [0.2, 0.9], [np.nan, 0.9], [0.7, 0.7], [0.3, 0.3]], np.float32)
    # Not all of it is told yet, so that another bracket begins.
    other, state = strategy.ask(jax.random.fold_in(key, 2), state)
    assert rung_of(other)[:, -1].tolist() == [0] * 6
    state, info = strategy.tell(state, first, scores)
    assert info["failed"] == 1
    second, state = strategy.ask(jax.random.fold_in(key, 3), state)
    assert rung_of(second)[:, -1].tolist() == [1] * 3
    chosen = {tuple(row) for row in rung_of(second)[:, :-1].tolist()}
    assert chosen == {tuple(first[at, :-1].tolist()) for at in (1, 2, 4)}
    told = np.array([[0.3, 0.3], [0.8, 0.8], [0.1, 0.1], *[[np.nan, np.nan]] * 3], np.float32)
    state, _ = strategy.tell(state, second, told)
    third, _ = strategy.ask(jax.random.fold_in(key, 4), state)
    assert rung_of(third).tolist() == [[*second[1, :-1].tolist(), 2]]


def test_nothing_is_begun_twice_at_the_shortest_training(key: jax.Array) -> None:
    for name in ("mo_bohb", "sh_mo_bananas"):
        options = {**QUICK[name], **({"uniform": 0.0} if name == "mo_bohb" else {})}
        strategy = make_strategy(name, domain(), options, 2)
        state, begun = strategy.init(key), []
        for step in range(20):
            asked, state = strategy.ask(jax.random.fold_in(key, step), state)
            begun += [row[:-1] for row in rung_of(asked).tolist() if row[-1] == 0]
            state, _ = strategy.tell(state, asked, scores_of(asked))
        repeated = len(begun) - len({tuple(row) for row in begun})
        # Of MO-BOHB a uniform sample stands in where nothing new was drawn, before there is a model too.
        assert repeated <= (3 if name == "mo_bohb" else 0), name


def test_the_model_is_of_the_longest_training_that_enough_is_known_of(key: jax.Array) -> None:
    strategy = make_strategy("mo_bohb", domain(), {"initial": 11}, 2)
    state = strategy.init(key)
    asked, state = strategy.ask(key, state)
    state, _ = strategy.tell(state, asked, scores_of(asked))
    assert _longest_known(state, 2, 11) is None
    known = _longest_known(state, 2, 10)
    assert known is not None and len(known[0]) == 11
    asked, state = strategy.ask(jax.random.fold_in(key, 1), state)
    state, _ = strategy.tell(state, asked, np.where(np.arange(len(asked))[:, None] == 0, np.nan, scores_of(asked)))
    # Of the 16 of the shortest training one failed.
    shorter = _longest_known(state, 2, 11)
    assert shorter is not None and len(shorter[0]) == 15 and _longest_known(state, 2, 15) is None


def test_a_density_counts_options_and_one_more_that_takes_all_alike() -> None:
    mask = np.array([[True, True, False], [True, True, True]])
    found = _density(np.array([[0, 2], [0, 1], [1, 2]]), mask)
    np.testing.assert_allclose(found, [[2.5 / 4, 1.5 / 4, 1], [1 / 12, 4 / 12, 7 / 12]])
    drawn = _draw(np.random.default_rng(0), np.where(mask, found, 0.0), 20_000)
    assert drawn[:, 0].max() == 1
    share = [np.bincount(drawn[:, at], minlength=3) / 20_000 for at in (0, 1)]
    np.testing.assert_allclose(share, [[2.5 / 4, 1.5 / 4, 0], [1 / 12, 4 / 12, 7 / 12]], atol=0.015)


def test_mo_bohb_proposes_what_the_good_have_and_the_others_have_not(key: jax.Array) -> None:
    strategy = make_strategy("mo_bohb", domain(), {"initial": 60, "uniform": 0.0, "candidates": 200, "good": 0.1}, 2)
    asked, state = strategy.ask(key, strategy.init(key))
    # Whoever takes option 3 of the first choice is best in both, however the others are.
    best = (asked[:, 0] == 3).astype(np.float32)[:, None]
    state, _ = strategy.tell(state, asked, np.float32(0.3) + 0.5 * best * np.ones((1, 2), np.float32))
    proposed, _ = strategy.ask(jax.random.fold_in(key, 1), state)
    assert (rung_of(proposed)[:, 0] == 3).all()
    worst, _ = strategy.ask(jax.random.fold_in(key, 1), state._replace(scores=1 - state.scores))
    assert (rung_of(worst)[:, 0] != 3).all()


def test_a_population_moves_up_after_its_births_and_is_trained_again(key: jax.Array) -> None:
    made = make_strategy("sh_emoa", domain(), {"population": 4, "stage": 1}, 2)
    ask, tell, state = jax.jit(made.ask), jax.jit(made.tell), made.init(key)
    asked: list[np.ndarray] = []
    for step in range(40):
        pair, state = ask(jax.random.fold_in(key, step), state)
        if step == 16:
            members = {tuple(row) for row in np.asarray(state.queue).tolist()}
            assert len(members) > 1 and members <= {tuple(row[:-1].tolist()) for row in asked}
        asked.append(np.asarray(pair)[0])
        state, info = tell(state, pair, scores_of(np.asarray(pair)))
    levels = [int(row[-1]) for row in asked]
    # Of 16 epochs each: 16 births, the population again and four more, the population again and all others.
    assert levels[:16] == [0] * 16 and levels[16] == 1 and levels[-1] == 2 and levels == sorted(levels)
    assert {tuple(row[:-1].tolist()) for row in asked[16:20]} == members
    assert levels.count(1) >= 4 + 4 and int(info["fidelity"]) == 2


def test_what_comes_late_of_a_training_that_the_population_has_left_is_ignored(key: jax.Array) -> None:
    made = make_strategy("sh_emoa", domain(), {"population": 2, "stage": 1}, 2)
    state, tell = made.init(key), jax.jit(made.tell)
    pairs = [np.array([[1, at % 4, at // 4, 0, 0, 0]], np.int32) for at in range(17)]
    for pair in pairs[:16]:
        state, _ = tell(state, pair, np.array([[0.5, 0.5]], np.float32))
    assert int(state.fidelity) == 1 and (np.asarray(state.within.members) == -1).all()
    late, _ = tell(state, pairs[16], np.array([[0.9, 0.9]], np.float32))
    assert (np.asarray(late.within.members) == -1).all() and int(late.left) == int(state.left)
    current, _ = tell(state, pairs[16] + np.eye(6, dtype=np.int32)[5:], np.array([[0.9, 0.9]], np.float32))
    assert np.asarray(current.within.members)[0].tolist() == pairs[16][0, :-1].tolist()
    assert int(current.left) == int(state.left) - 1
