"""What fits in the minutes: by measured speeds, never more than was given, refused where nothing fits."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from parsec.cells import get_space
from parsec.errors import UserError
from parsec.jobs.images import budget
from parsec.jobs.images.budget import Speed, fit_search, fit_trainings, measure, search_speed, shortened, training_speed
from parsec.jobs.search.coherence import check_search
from parsec.jobs.search.problem import load_problem
from parsec.jobs.search.verify import plan_verification, searched_images
from parsec.jobs.train.cell_source import chosen_cell
from parsec.jobs.train.task import Task, load_task
from parsec.settings.search import (
    DataSettings,
    NetworkSettings,
    SamplerSettings,
    SearchConfig,
    StrategySettings,
    VerifySettings,
)
from parsec.settings.train import RegularisationSettings, TrainConfig, TrainDataSettings, TrainNetworkSettings

SEARCH = SearchConfig(
    space="nasbench201",
    steps=1000,
    data=DataSettings(batch_size=16, valid_batch_size=24),
    network=NetworkSettings(channels=2, cells=1),
    sampler=SamplerSettings(num_children=2),
    verify=VerifySettings(random=0),
)
# Images that a step of SEARCH costs: those looked at count a third.
STEP = 2 * (16 + 24 / 3)
TRAIN = TrainConfig(
    dataset="digits",
    genotype="|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|",
    epochs=10.0,
    data=TrainDataSettings(batch_size=100, valid_fraction=0.0, cutout=0),
    network=TrainNetworkSettings(channels=2, cells=1),
    regularisation=RegularisationSettings(auxiliary_weight=0.0, drop_path=0.0),
)


def task(config: TrainConfig = TRAIN) -> Task:
    """Returns a small task."""
    return load_task(config, *chosen_cell(config.from_run, config.genotype))


def cost(config: SearchConfig) -> float:
    """Returns the images that a search and its verification cost; one of the latter counts one and a half."""
    problem, verify = load_problem(config), config.verify
    networks = verify.random + 2
    verified = plan_verification(config, problem).steps * config.data.batch_size * networks * verify.seeds
    return searched_images(config, problem) + 1.5 * verified


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"verify": VerifySettings(random=5), "steps": 3000},
        {"verify": VerifySettings(random=5, steps=60)},
        {"strategy": StrategySettings(evaluator="train", evaluations=30, epochs=10.0)},
    ],
    ids=["joint", "verified", "verified for so long", "trained"],
)
def test_a_search_is_shortened_to_what_fits_with_its_verification(changes: dict, monkeypatch: pytest.MonkeyPatch):
    config = replace(SEARCH, **changes)
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(30.0, 0.01))
    problem, wanted = load_problem(config), cost(config) * 0.01
    assert fit_search(config, problem, wanted / 0.9 + 70).settings == {}
    given = 0.6 * wanted + 100
    fit = fit_search(config, problem, given)
    brief = shortened(config, fit.settings)
    takes = cost(brief) * 0.01 + 60
    assert 0.8 * given < takes <= given
    assert brief.strategy.epochs == config.strategy.epochs
    assert len(fit.settings) == 1 and "%" in fit.words


def test_a_search_by_training_is_shortened_with_its_candidates_and_its_verification(monkeypatch: pytest.MonkeyPatch):
    strategy = StrategySettings(evaluator="train", evaluations=96, steps=100)
    config = replace(
        SEARCH,
        strategy=strategy,
        derive=replace(SEARCH.derive, finalists=8, final_steps=200, valid_images=300),
        verify=VerifySettings(random=19, steps=150),
    )
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(30.0, 0.01))
    problem = load_problem(config)

    def takes(brief: SearchConfig) -> float:
        verified = brief.verify.steps * 16 * 21 * 3
        return (searched_images(brief, problem) + 1.1 * verified) * 0.01 + 60

    given = 0.4 * takes(config) / 0.9
    fit = fit_search(config, problem, given)
    brief = shortened(config, fit.settings)
    assert 0.9 * 0.85 * given < takes(brief) <= 0.9 * given
    # All three by about the same share.
    assert 0.3 < brief.strategy.evaluations / 96 < 0.4
    assert brief.derive.finalists == int(brief.strategy.evaluations / 96 * 8)
    assert abs(brief.verify.steps / 150 - brief.strategy.evaluations / 96) < 0.02
    # The least that tells anything is kept, or the whole is refused with the minutes that it needs.
    with pytest.raises(UserError, match=r"fewer than 12 children of the search fit in the 0\.5 minutes") as raised:
        fit_search(config, problem, 30.0)
    least = float(str(raised.value).split("needs at least ")[1].split(":")[0])
    fewest = shortened(config, fit_search(config, problem, (least + 0.3) * 60).settings)
    assert (fewest.strategy.evaluations, fewest.derive.finalists, fewest.verify.steps) == (12, 1, 50)


def test_a_shortened_search_keeps_the_least_verification_that_there_is(monkeypatch: pytest.MonkeyPatch):
    config = replace(SEARCH, verify=VerifySettings(random=5, share=0.4), steps=2000)
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(30.0, 0.01))
    problem, wanted = load_problem(config), cost(config) * 0.01
    assert plan_verification(config, problem).steps > 100
    fit = fit_search(config, problem, 0.5 * wanted)
    brief = shortened(config, fit.settings)
    check_search(brief, get_space(brief.space))
    assert plan_verification(brief, load_problem(brief)).steps == 50
    assert 0.35 * wanted < cost(brief) * 0.01 + 60 <= 0.5 * wanted
    # Where there was to be none, there is none.
    none = replace(config, verify=VerifySettings(random=0))
    assert set(fit_search(none, problem, 0.5 * wanted).settings) == {"steps"}


def test_a_search_of_which_hardly_a_step_fits_is_refused_with_the_minutes_that_it_needs(
    monkeypatch: pytest.MonkeyPatch,
):
    config = replace(SEARCH, verify=VerifySettings(random=5, steps=60))
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: Speed(30.0, 0.1))
    problem = load_problem(config)
    with pytest.raises(UserError, match=r"raise config\.minutes") as raised:
        fit_search(config, problem, 30.0)
    assert "\n" not in str(raised.value)
    least = float(str(raised.value).split("needs at least ")[1].split(":")[0])
    assert int(fit_search(config, problem, (least + 0.1) * 60).settings["steps"]) in range(20, 25)


def test_a_search_that_trains_nothing_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "search_speed", lambda config, problem: pytest.fail("measured"))
    config = replace(SEARCH, strategy=StrategySettings(name="alphax", evaluator="table"))
    assert fit_search(config, load_problem(config), 1.0).settings == {}


def test_the_speed_of_a_search_is_that_of_the_images_it_costs(monkeypatch: pytest.MonkeyPatch):
    done = []

    def fake(step: Any, state: Any) -> Speed:
        done.append(state)
        return Speed(7.0, 6.0)

    monkeypatch.setattr(budget, "measure", fake)
    first, each = search_speed(SEARCH, load_problem(SEARCH))
    assert (first, each) == (7.0, pytest.approx(6 / STEP))
    told = replace(SEARCH, strategy=StrategySettings(name="alphax", evaluations=5))
    assert search_speed(told, load_problem(told))[1] == pytest.approx(6 / (2 * 16))
    trained = replace(SEARCH, strategy=StrategySettings(name="alphax", evaluator="train", evaluations=5, inherit=False))
    problem = load_problem(trained)
    images = 20 * 16 + len(problem.valid.labels) / 3
    assert search_speed(trained, problem)[1] == pytest.approx(6 / (4 * images))
    assert done[2] is None and done[0] is not None


def test_trainings_share_what_is_left_for_as_many_steps_each(monkeypatch: pytest.MonkeyPatch):
    tasks = [task(), task(replace(TRAIN, genotype="resnet"))]
    speeds = iter([Speed(20.0, 0.3), Speed(10.0, 0.2)] * 3)
    monkeypatch.setattr(budget, "training_speed", lambda task: next(speeds))
    # 140 steps were given, 14 of them an epoch.
    assert int(fit_trainings(tasks, 70.0).settings["steps"]) == int((0.9 * 70 - 30) / 0.5)
    assert fit_trainings(tasks, 1000.0).settings == {"steps": "140"}
    assert fit_trainings(tasks, -5.0).settings == {"steps": "14"}


def test_the_speed_of_a_training_has_its_share_of_validations(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(budget, "measure", lambda step, state: Speed(2.0, 3.0))
    assert training_speed(task()) == (2.0, 3.0)
    validated = task(replace(TRAIN, data=replace(TRAIN.data, valid_fraction=0.2)))
    assert training_speed(validated) == (4.0, pytest.approx(3 + 3 / 11))


def test_the_first_step_is_measured_apart(monkeypatch: pytest.MonkeyPatch):
    now, steps = [100.0], []
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def step(state: int, index: int) -> tuple[int, int]:
        assert state == index
        now[0] += 50.0 if index == 0 else 2.0
        steps.append(index)
        return state + 1, 0

    assert measure(step, 0) == (50.0, 2.0)
    # No longer than is needed: some seconds, or so many steps of a fast one.
    assert steps == [0, 1, 2, 3]
    now[0] = 0.0
    assert measure(lambda state, index: (state, index), None).each == 0.0
