"""BULK&CUT: its stages share the epochs, children grow from the front and are cut from it, and every draw repeats."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from parsec.evaluate.contract import no_pause
from parsec.hyper import bulk_and_cut
from parsec.hyper.bulk_and_cut import (
    BULK,
    CUT,
    RANDOM,
    Member,
    Search,
    choose_parent,
    choose_rate,
    next_stage,
    train_next,
)
from parsec.hyper.evaluator import hyper_goals
from parsec.hyper.network import Task, Trained, Variables
from parsec.hyper.space import HyperParameters, HyperSpace, hyper_domain, parameter_count

HYPER = HyperParameters((2,), (True,), 7, False, True, (2,), 0.01, 10)


@pytest.fixture
def search(space: HyperSpace, task: Task) -> Search:
    goals = hyper_goals(("accuracy", "-log10_params"), (), space, task)
    return Search(space, hyper_domain(space), task, goals, 6, 120, 0)


def member(stage: str, accuracy: float, *, parent: int = -1, width: int = 2, epochs: int = 6) -> Member:
    """Returns a network whose parameters grow with its width."""
    hyper = replace(HYPER, conv=(width,))
    log_params = np.log10(parameter_count(hyper, (9, 9, 2), 2))
    scores = [accuracy, -log_params, accuracy] if np.isfinite(accuracy) else [np.nan] * 3
    return Member(stage, parent, hyper, epochs, np.array(scores))


def test_stages_take_their_shares_of_the_epochs_and_nothing_beyond(search: Search) -> None:
    members: list[Member] = []
    while (following := next_stage(search, members)) is not None:
        members.append(member(following[0], 60, epochs=following[1]))
    assert Counter(each.stage for each in members) == {RANDOM: 7, BULK: 8, CUT: 15}
    assert {each.epochs for each in members if each.stage == CUT} == {2}
    assert sum(each.epochs for each in members) == search.total


def test_while_nothing_was_trained_without_diverging_networks_stay_random(search: Search) -> None:
    members = [member(RANDOM, np.nan)] * 15
    assert next_stage(search, members) == (RANDOM, 6)
    assert next_stage(search, [*members, member(RANDOM, 50)]) == (CUT, 2)


def test_parents_are_of_the_front_and_the_accurate_grow_most(search: Search) -> None:
    # The first two are the front, the third is the second front, the fourth behind it, the last diverged.
    members = [member(RANDOM, 60), member(RANDOM, 90, width=4), member(RANDOM, 80, width=4)]
    members += [member(RANDOM, 70, width=4), member(RANDOM, np.nan)]
    rng = np.random.default_rng(0)
    grown = Counter(choose_parent(search, members, BULK, rng) for _ in range(2000))
    assert set(grown) == {0, 1, 2}
    assert grown[2] / 2000 == pytest.approx(0.15, abs=0.03)
    # (90 - 50)^2 against (60 - 50)^2.
    assert grown[1] / grown[0] == pytest.approx(16, rel=0.5)
    cut = Counter(choose_parent(search, members, CUT, rng) for _ in range(2000))
    assert cut[0] / cut[1] == pytest.approx(1, abs=0.2)
    # Who was cut already waits for the others of its front.
    members.append(member(CUT, 10, parent=1, width=4))
    cut = Counter(choose_parent(search, members, CUT, rng) for _ in range(200))
    assert set(cut) == {0, 2}


def test_learning_rates_follow_what_networks_of_such_a_size_reached(search: Search) -> None:
    # Small networks learn best at 0.1, large ones at 0.001; small ones that were cut at 0.0001.
    rng = np.random.default_rng(0)
    search = search._replace(space=replace(search.space, rates=(1e-5, 1.0)))

    def reached(width: int, rate: float, best: float) -> Member:
        hyper = replace(HYPER, conv=(width,), learning_rate=rate)
        return Member(RANDOM, -1, hyper, 6, np.array([90 - 20 * abs(np.log10(rate / best)), -3, 0]))

    rates = 10 ** np.linspace(-5, 0, 11)
    members = [reached(width, rate, best) for rate in rates for width, best in ((2, 1e-1), (200, 1e-3))]
    # One that diverged is no reason to fear its size.
    members.append(reached(200, 1.0, 1e-3)._replace(scores=np.full(3, np.nan)))
    small, large = (replace(HYPER, conv=(width,)) for width in (2, 200))
    assert np.log10(choose_rate(search, members, RANDOM, small, rng)) == pytest.approx(-1, abs=0.3)
    assert np.log10(choose_rate(search, members, BULK, large, rng)) == pytest.approx(-3, abs=0.3)
    # Networks that are cut learn from those that were cut alone: here from none, then from these.
    drawn = {choose_rate(search, members, CUT, small, rng) for _ in range(50)}
    assert len(drawn) > 20 and 1e-5 <= min(drawn) < 1e-4 and 1e-3 < max(drawn) <= 1e-2
    members += [reached(2, rate, 1e-4)._replace(stage=CUT) for rate in 10 ** np.linspace(-5, -2, 7)]
    assert np.log10(choose_rate(search, members, CUT, small, rng)) == pytest.approx(-4, abs=0.3)


def test_few_networks_do_not_drive_the_rate_to_an_end(search: Search) -> None:
    search = search._replace(space=replace(search.space, rates=(1e-5, 1.0)))
    drawn = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        members = [
            Member(RANDOM, -1, replace(HYPER, conv=(width,), learning_rate=rate), 6, np.array([accuracy, -3, 0]))
            for width, rate, accuracy in ((2, 1e-2, 80.0), (30, 1e-4, 30.0))
        ]
        drawn.append(np.log10(choose_rate(search, members, RANDOM, replace(HYPER, conv=(4,)), rng)))
    # Of two networks the process learns no length, and hopes the same of nearly all rates.
    assert len(set(drawn)) > 5 and np.mean(np.array(drawn) <= -4.95) < 0.3


def test_children_begin_with_their_parent_s_weights_and_are_taught_where_they_are_cut(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[HyperParameters, Variables, Any]] = []

    def fake(hyper, task, variables, epochs, seed, pause, teacher=None) -> Trained:
        calls.append((hyper, variables, teacher))
        return Trained(variables, 60.0 + len(calls), 50.0)

    monkeypatch.setattr(bulk_and_cut, "train", fake)
    members: list[Member] = []
    kept: list[Variables] = []
    while (trained := train_next(search, members, kept.__getitem__, no_pause)) is not None:
        again = train_next(search, members, kept.__getitem__, no_pause)
        assert again is not None and again[0].hyper == trained[0].hyper and again[0].parent == trained[0].parent
        members.append(trained[0])
        kept.append(trained[1])
    for each, (hyper, _, teacher) in zip(members, calls[::2], strict=True):
        parent = members[each.parent].hyper if each.parent >= 0 else None
        sizes = [parameter_count(of, (9, 9, 2), 2) for of in (hyper, parent) if of is not None]
        assert (parent is None) == (each.stage == RANDOM) and (teacher is not None) == (each.stage == CUT)
        if each.stage == BULK:
            assert sizes[0] >= sizes[1]
        assert 1e-3 <= hyper.learning_rate <= 1e-2 * (1 + 1e-9)
        if each.stage == CUT:
            assert sizes[0] <= sizes[1] and teacher.shape == (40, 2) and hyper.learning_rate <= 1e-2
    assert any(not all(each.hyper.pools) for each in members)
